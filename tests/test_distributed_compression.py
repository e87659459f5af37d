"""Compression: nothing is lost, it comes later; the bytes are those promised; all ranks have the same bits."""

import numpy as np
import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import DataParallel, Float16, PowerSGD, RandomK, ScaledSign, TopK, simulate

MAKERS = {"Float16": Float16, "TopK": lambda: TopK(0.1), "RandomK": lambda: RandomK(0.1, seed=3),
          "ScaledSign": ScaledSign, "PowerSGD": lambda: PowerSGD(2)}
EXACT = ["Float16", "TopK", "RandomK"]              # in floating point: what is left is a number of the same dtype
each = pytest.mark.parametrize("name", MAKERS)


def gradient(rank, step=0, shape=(20, 15), dtype="float32"):
    return np.random.default_rng([rank, step]).standard_normal(shape).astype(dtype)


def average(world, name, steps=1, **kind):
    compression = MAKERS[name]()
    return [(compression.average(world, gradient(world.rank, step, **kind)).copy(), compression.residuals[0].copy())
            for step in range(steps)]


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sent_and_residual_are_the_gradient(name, dtype):
    (sent, residual), = simulate(1, average, name, 1)[0] if dtype == "float32" else simulate(
        1, lambda world: average(world, name, dtype="float64"))[0]
    whole = gradient(0, dtype=dtype)
    assert sent.dtype == residual.dtype == dtype and residual.any()
    if name in EXACT:
        np.testing.assert_array_equal(sent + residual, whole)
    else:
        np.testing.assert_allclose(sent + residual, whole, rtol=0, atol=4 * np.finfo(dtype).eps)


@each
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_all_ranks_have_the_same_bits_and_what_is_missing_comes_later(name, n):
    steps, runs = 4, [simulate(n, lambda world: average(world, name, 4, dtype="float64")) for _ in range(2)]
    for rank in (*runs[0], *runs[1]):
        for (a, _), (b, _) in zip(rank, runs[0][0]):
            np.testing.assert_array_equal(a, b)
    received = sum(a for a, _ in runs[0][0])
    left = sum(rank[-1][1] for rank in runs[0]) / n
    parts = [gradient(rank, step, dtype="float64") for rank in range(n) for step in range(steps)]
    # In float16 each of n - 1 additions and a division rounds, by 2 ** -11 of at most n times the largest number.
    lost = steps * n * 2 ** -11 * max(abs(part).max() for part in parts) if name == "Float16" and n > 1 else 0
    np.testing.assert_allclose(received + left, sum(parts) / n, rtol=0, atol=1e-13 + lost)


@pytest.mark.parametrize("maker", [lambda: TopK(1), lambda: RandomK(1), lambda: PowerSGD(15)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_whole_they_are_dense(maker, n):
    def rank(world):
        x, compression = gradient(world.rank, dtype="float64"), maker()
        dense = world.all_reduce(x, "mean")
        for _ in range(2):
            np.testing.assert_array_equal(compression.average(world, x), dense)
        assert not compression.residuals[0].any()
    simulate(n, rank)


def test_power_sgd_finds_what_has_its_rank_and_comes_nearer_step_by_step():
    def rank(world):
        random = np.random.default_rng(0)
        left, right = random.standard_normal((30, 2)), random.standard_normal((2, 20))
        own = left * (1 + world.rank) @ right
        np.testing.assert_allclose(PowerSGD(2).average(world, own), world.all_reduce(own, "mean"), atol=1e-12)
        x, compression, errors = gradient(0, dtype="float64"), PowerSGD(3), []
        for _ in range(200):
            compression.residuals.clear()                       # the same matrix each time: the power method
            errors.append(np.linalg.norm(x - compression.average(world, x)))
        best = np.linalg.norm(np.linalg.svd(x, compute_uv=False)[3:])
        assert errors[0] > 1.05 * best and best <= errors[-1] < best * (1 + 1e-6)
        zeros = PowerSGD(1)
        zeros.average(world, np.zeros((30, 20)))                # a step without a gradient takes no direction away
        np.testing.assert_allclose(zeros.average(world, own := left[:, :1] @ right[:1]), own, atol=1e-12)
    simulate(2, rank)


def test_scaled_signs_are_worked_out_by_hand():
    def rank(world):
        return ScaledSign().average(world, np.array([[1.0, -3.0, 0.0], [-4.0, -4.0, 4.0]][world.rank])).tolist()
    assert simulate(2, rank) == [[(4 / 3 - 4) / 2, (-4 / 3 - 4) / 2, (4 / 3 + 4) / 2]] * 2


@pytest.mark.parametrize("name, size", [("Float16", 2 * 300), ("TopK", 30 * (4 + 4)), ("RandomK", 30 * 4),
                                        ("ScaledSign", -(-300 // 8) + 4), ("PowerSGD", (20 + 15) * 2 * 4)])
def test_bytes_are_those_promised(name, size):
    def rank(world):
        average(world, name)
        return sum(account.bytes for account in world.accounts.values())
    assert simulate(3, rank) == [size] * 3


@each
def test_infinities_and_nan_are_seen_by_all_and_do_not_stay(name):
    def rank(world):
        compression, x = MAKERS[name](), gradient(0)
        for bad in (float("inf"), float("nan")):
            spoilt = x.copy()
            spoilt[3, 3] = bad if world.rank == 1 else 1.0
            assert not np.isfinite(compression.average(world, spoilt)).all()
        return all(np.isfinite(compression.average(world, x)).all() for _ in range(3))
    assert simulate(2, rank) == [True, True]


def test_float16_stays_in_range():
    def rank(world):
        compression = Float16()
        means = [compression.average(world, np.array([1e5, 1.0])).tolist() for _ in range(2)]
        return means, compression.residuals[0].tolist()
    limit = 65504 / 2
    assert simulate(2, rank) == [([[limit, 1.0]] * 2, [2e5 - 2 * limit, 0.0])] * 2


def fit(world, compression, steps):
    """Train on random labels: the loss of each step, and the parameters."""
    tg.manual_seed(0)
    random = np.random.default_rng(0)
    x, y = random.standard_normal((64, 20)), random.integers(0, 3, 64)
    model = tg.nn.Sequential(tg.nn.Linear(20, 16), tg.nn.Tanh(), tg.nn.Linear(16, 3)).double()
    model = DataParallel(model, world, bucket_bytes=1000, compression=compression)
    optimizer, losses, part = tg.optim.SGD(model.parameters(), lr=0.5), [], slice(world.rank, None, world.size)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = tg.nn.functional.cross_entropy(model(tg.tensor(x[part])), tg.tensor(y[part]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [p.numpy().copy() for p in model.parameters()]


@pytest.fixture(scope="module")
def dense():
    return simulate(2, lambda world: fit(world, None, 300)[0])


@each
def test_training_arrives_where_it_does_with_whole_gradients(name, dense):
    (losses, first), (_, second) = simulate(2, lambda world: fit(world, MAKERS[name](), 300))
    assert losses[-1] < 1.1 * dense[0][-1] < 0.05 * losses[0]
    for p, q in zip(first, second):
        np.testing.assert_array_equal(p, q)


def test_without_feedback_it_would_not(dense):
    class Forgetful(TopK):
        def begin(self, world, gradient, key=0):
            self.residuals.clear()
            return super().begin(world, gradient, key)
    kept, forgotten = (simulate(2, lambda world, cls=cls: fit(world, cls(0.02), 300)[0][-1])[0]
                       for cls in (TopK, Forgetful))
    assert kept < 2 * dense[0][-1] and forgotten > 10 * dense[0][-1]


def test_dense_compression_is_data_parallel():
    plain, whole = (simulate(2, lambda world, c=c: fit(world, c(), 40)[1])[0] for c in (lambda: None, lambda: TopK(1)))
    for p, q in zip(plain, whole):
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-12)


@each
def test_a_state_is_saved_and_goes_on(name, tmp_path):
    def rank(world):
        compression, path = MAKERS[name](), tmp_path / f"{name}{world.rank}.npz"
        for step in range(2):
            compression.average(world, gradient(world.rank, step), "a")
        tg.save(compression.state_dict(), path)
        other = MAKERS[name]()
        other.load_state_dict(tg.load(path))
        for step in range(2, 4):
            np.testing.assert_array_equal(compression.average(world, gradient(world.rank, step), "a"),
                                          other.average(world, gradient(world.rank, step), "a"))
        with pytest.raises(ValueError, match="a saved state is a dict with residuals"):
            other.load_state_dict({})
    simulate(2, rank)


def test_options_have_ranges():
    for wrong in (lambda: TopK(0), lambda: RandomK(1.5), lambda: TopK("all")):
        with pytest.raises(ValueError, match=r"fraction must lie in \(0, 1\], got"):
            wrong()
    for rank in (0, 1.5, True):
        with pytest.raises(ValueError, match="PowerSGD: rank must be a whole number of at least 1, got"):
            PowerSGD(rank)


def check_mpi(world):
    for name in MAKERS:
        for received, _ in average(world, name, 3):
            assert (world.all_gather(received) == received).all()
    x = gradient(world.rank, dtype="float64")
    np.testing.assert_allclose(TopK(1).average(world, x), world.all_reduce(x, "mean"), rtol=0, atol=1e-12)
    for p in fit(world, PowerSGD(1), 10)[1]:
        assert (world.all_gather(p) == p).all()


@needs_mpi
@pytest.mark.parametrize("n", [3])
def test_by_mpi(n):
    on_ranks(n, check_mpi)
