"""Initial values: distributions, formulas, determinism, errors."""

import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.nn import init

N = 200_000
GAIN = math.sqrt(2 / (1 + 0.1 ** 2))                # leaky_relu of slope 0.1

# Each with the mean and the standard deviation that its formula promises for a weight of 400 by 500.
MOMENTS = {
    "uniform": (lambda w, g: init.uniform_(w, -1, 3, generator=g), 1, 4 / math.sqrt(12)),
    "normal": (lambda w, g: init.normal_(w, 2, 0.5, generator=g), 2, 0.5),
    "xavier_uniform": (lambda w, g: init.xavier_uniform_(w, 3, generator=g), 0, 3 * math.sqrt(2 / 900)),
    "xavier_normal": (lambda w, g: init.xavier_normal_(w, 3, generator=g), 0, 3 * math.sqrt(2 / 900)),
    "kaiming_uniform": (lambda w, g: init.kaiming_uniform_(w, 0.1, generator=g), 0, GAIN / math.sqrt(500)),
    "kaiming_normal": (lambda w, g: init.kaiming_normal_(w, 0, "fan_out", "tanh", g), 0, 5 / 3 / 20),
    "trunc_normal": (lambda w, g: init.trunc_normal_(w, generator=g), 0, 0.8796),
    "orthogonal": (lambda w, g: init.orthogonal_(w, 2, generator=g), 0, 2 / math.sqrt(500)),
    "sparse": (lambda w, g: init.sparse_(w, 0.75, 2, generator=g), 0, 2 * math.sqrt(0.25)),
}


@pytest.mark.parametrize("fill, mean, std", MOMENTS.values(), ids=MOMENTS)
def test_the_distribution_has_the_moments_of_its_formula(fill, mean, std):
    weight = tg.nn.Parameter(np.full((400, 500), np.nan))
    assert fill(weight, tg.Generator(0)) is weight and weight.requires_grad
    values = weight.numpy()
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(N) and values.std() == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize("fill", [fill for fill, _, _ in MOMENTS.values()], ids=MOMENTS)
def test_a_seed_gives_the_same_numbers_in_every_dtype(fill):
    single, double = tg.zeros(6, 5), tg.zeros(6, 5, dtype="float64")
    fill(single, tg.Generator(3))
    fill(double, tg.Generator(3))
    assert single.dtype == "float32"
    np.testing.assert_array_equal(single.numpy(), double.numpy().astype("float32"))
    tg.manual_seed(3)
    assert fill(tg.zeros(6, 5), None).tolist() == single.tolist()


@pytest.mark.parametrize("shape, fan_in, fan_out", [((3, 5), 5, 3), ((4, 2, 3, 3), 18, 36)])
def test_uniform_families_fill_their_interval_to_the_edge(shape, fan_in, fan_out):
    weight = tg.empty(1000, *shape[1:])
    bound = math.sqrt(6 / (fan_in + 1000 * math.prod(shape[2:])))
    assert bound * 0.98 < np.abs(init.xavier_uniform_(weight).numpy()).max() <= np.float32(bound)
    weight = tg.empty(*shape)
    for mode, fan in (("fan_in", fan_in), ("fan_out", fan_out)):
        bound = math.sqrt(6 / fan)
        values = init.kaiming_uniform_(weight, mode=mode).numpy()
        assert bound * 0.5 < np.abs(values).max() <= np.float32(bound)


@pytest.mark.parametrize("mean, std, a, b", [
    (0, 1, -2, 2), (1, 2, 0, 5), (0, 1, 3, 4), (0, 1, -9, -8), (0, 1, 8, 9), (0.5, 0.02, 0.46, 0.54)])
def test_truncated_normals_follow_the_density_between_the_limits(mean, std, a, b):
    values = init.trunc_normal_(tg.empty(20000, dtype="float64"), mean, std, a, b, tg.Generator(0)).numpy()
    assert a <= values.min() and values.max() <= b
    grid = np.linspace(a, b, 20001)
    density = np.exp(-((grid - mean) / std) ** 2 / 2 + ((np.clip(mean, a, b) - mean) / std) ** 2 / 2)
    expected = (grid * density).sum() / density.sum()
    spread = math.sqrt(((grid - expected) ** 2 * density).sum() / density.sum())
    assert values.mean() == pytest.approx(expected, abs=5 * spread / math.sqrt(20000))
    middle = grid[np.searchsorted(np.cumsum(density), density.sum() / 2)]
    assert np.median(values) == pytest.approx(middle, abs=0.05 * spread)


def test_constants_and_the_identity():
    assert init.constant_(tg.empty(2), 3.5).tolist() == [3.5, 3.5]
    assert init.ones_(tg.empty(2, dtype="int64")).tolist() == [1, 1]
    assert init.zeros_(tg.ones(2)).tolist() == [0, 0]
    assert init.eye_(tg.empty(3, 2)).tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (3, 2, 4)])
def test_orthogonal_matrices_are_orthogonal_and_not_biased_in_sign(shape):
    weight = init.orthogonal_(tg.empty(*shape, dtype="float64"), gain=2).numpy().reshape(shape[0], -1)
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)
    corners = [init.orthogonal_(tg.empty(3, 3)).numpy()[0, 0] for _ in range(200)]
    assert 60 < sum(corner > 0 for corner in corners) < 140


def test_sparse_columns_have_their_share_of_zeros():
    weight = init.sparse_(tg.empty(10, 6), 0.25).numpy()
    assert ((weight == 0).sum(0) == 3).all() and len({tuple(column) for column in (weight == 0).T}) > 1


@pytest.mark.parametrize("arguments, gain", [
    (("linear",), 1), (("sigmoid",), 1), (("tanh",), 5 / 3), (("relu",), math.sqrt(2)), (("selu",), 0.75),
    (("leaky_relu",), math.sqrt(2 / 1.0001)), (("leaky_relu", 0.5), math.sqrt(1.6)),
])
def test_gains(arguments, gain):
    assert init.calculate_gain(*arguments) == pytest.approx(gain, rel=1e-15)


def test_filling_is_not_recorded_and_a_backward_that_needs_the_old_values_refuses():
    weight = tg.nn.Parameter([[1.0, 2.0]])
    loss = (weight * weight).sum()
    assert init.ones_(weight).is_leaf
    with pytest.raises(RuntimeError, match="written to"):
        loss.backward()


W = tg.ones(2, 3)


@pytest.mark.parametrize("act, words", [
    (lambda: init.uniform_(W, 2, 1), "a <= b, got a=2 and b=1"),
    (lambda: init.normal_(W, 0, -1), "std of at least 0, got 0 and -1"),
    (lambda: init.normal_(W, float("nan")), "finite mean"),
    (lambda: init.trunc_normal_(W, std=0), "std above 0 and a < b, got mean=0.0, std=0"),
    (lambda: init.trunc_normal_(W, a=1, b=1), "a < b"),
    (lambda: init.trunc_normal_(W, a=90, b=91), "nothing between a=90 and b=91"),
    (lambda: init.xavier_normal_(tg.ones(3)), r"at least 2 axes, .* got the shape \(3,\)"),
    (lambda: init.kaiming_normal_(W, mode="fan"), "'fan_in' or 'fan_out', got 'fan'"),
    (lambda: init.kaiming_uniform_(W, nonlinearity="none"), "nonlinearity must be one of .*got 'none'"),
    (lambda: init.eye_(tg.ones(3)), "a matrix"),
    (lambda: init.orthogonal_(tg.ones(3)), "at least 2 axes"),
    (lambda: init.sparse_(W, 1.5), r"sparsity in \[0, 1\]"),
    (lambda: init.sparse_(tg.ones(3), 0.5), r"the shape \(3,\)"),
])
def test_bad_arguments_change_nothing_and_are_named(act, words):
    with pytest.raises(ValueError, match=words):
        act()
    assert W.tolist() == [[1.0] * 3] * 2
