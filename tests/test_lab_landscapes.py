"""Landscapes: heights against closed forms, directions as the paper has them, and a model that stays as it was."""

import copy

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import interpolate, path_plane, random_plane, record

X = np.random.default_rng(0).standard_normal((12, 3))
Y = np.random.default_rng(1).standard_normal((12, 2))
BATCH = tg.tensor(X), tg.tensor(Y)


def quadratic():
    """Return a model whose mean squared error is a quadratic of its parameters."""
    tg.manual_seed(0)
    return tg.nn.Linear(3, 2).double()


def height(weight, bias, rows=slice(None)):
    return ((X[rows] @ weight.T + bias - Y[rows]) ** 2).mean()


def net():
    tg.manual_seed(1)
    return tg.nn.Sequential(tg.nn.Linear(3, 5), tg.nn.BatchNorm1d(5), tg.nn.Tanh(), tg.nn.Dropout(0.5),
                            tg.nn.Linear(5, 2)).double()


# ---- heights ------------------------------------------------------------------------------------------------------


def test_the_line_is_the_closed_form():
    model = quadratic()
    a, b = [[np.ones((2, 3)), np.zeros(2)], [np.full((2, 3), -0.5), np.array([1.0, 2.0])]]
    line = interpolate(model, a, dict(zip(("weight", "bias"), b)), BATCH, tg.mse_loss, points=11)
    expected = [height((1 - t) * a[0] + t * b[0], (1 - t) * a[1] + t * b[1]) for t in np.linspace(0, 1, 11)]
    np.testing.assert_allclose(line.loss, expected, rtol=1e-12)
    assert line.barrier == 0 and line.test is None                      # a quadratic lies under its chords


def test_batches_count_by_their_size_and_test_data_is_apart():
    model, ends = quadratic(), ([np.zeros((2, 3)), np.zeros(2)], [np.ones((2, 3)), np.ones(2)])
    whole = interpolate(model, *ends, BATCH, tg.mse_loss, points=3)
    parts = [(BATCH[0][:8], BATCH[1][:8]), (BATCH[0][8:], BATCH[1][8:])]
    split = interpolate(model, *ends, iter(parts), tg.mse_loss, points=3, test=parts[1])
    np.testing.assert_allclose(split.loss, whole.loss, rtol=1e-12)
    assert split.test[0] == pytest.approx(height(*ends[0], slice(8, None)), rel=1e-12)
    assert {text.get_text() for text in split.draw().axes[0].get_legend().texts} == {
        "training loss", "test loss", "chord"}


def test_barriers_of_a_line_between_two_wells():
    line = interpolate(lambda w: (w ** 2 - 1) ** 2 + 0.5 * w, -1.0, 1.0, points=201)
    assert line.barrier == pytest.approx(1, abs=1e-12)                  # at 0, where the chord is at 0 too
    assert line.rise == pytest.approx(line.loss.max() - 0.5, abs=1e-12) and 0.5 < line.rise < 0.6
    assert "barrier 1" in {text.get_text() for text in line.draw().axes[0].get_legend().texts}


def test_running_means_belong_to_a_state():
    model, x = net(), BATCH[0]
    before = copy.deepcopy(model.state_dict())
    for _ in range(20):
        model(3 * x + 1)                                                # only the running means move
    after = copy.deepcopy(model.state_dict())
    model.eval()
    line = interpolate(model, before, after, BATCH, tg.mse_loss, points=2)
    assert line.loss[1] == tg.mse_loss(model(x), BATCH[1]).item() != line.loss[0]


# ---- random planes ------------------------------------------------------------------------------------------------


def test_the_random_plane_is_the_closed_form():
    model = quadratic()
    weight, bias = (p.numpy().copy() for p in model.parameters())
    plane = random_plane(model, BATCH, tg.mse_loss, points=5, span=2.0, generator=tg.Generator(3))
    right, up = (direction["weight"] for direction in plane.directions)
    assert plane.x.tolist() == plane.y.tolist() == [-2, -1, 0, 1, 2]
    expected = [[height(weight + s * right + t * up, bias) for s in plane.x] for t in plane.y]
    np.testing.assert_allclose(plane.loss, expected, rtol=1e-12)
    assert plane.path is None and np.isnan(plane.movement)


def test_filters_have_the_norms_of_the_weights_and_the_rest_stays():
    model = net()
    plane = random_plane(model, BATCH, tg.mse_loss, points=3, generator=tg.Generator(0))
    for direction in plane.directions:
        for name, p in model.named_parameters():
            drawn = direction[name]
            if p.ndim == 2:
                np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), np.linalg.norm(p.numpy(), axis=1), rtol=1e-12)
            else:
                assert not drawn.any()
    assert abs(plane.directions[0]["0.weight"] - plane.directions[1]["0.weight"]).min() > 0
    again = random_plane(model, BATCH, tg.mse_loss, points=3, generator=tg.Generator(0))
    np.testing.assert_array_equal(again.loss, plane.loss)


@pytest.mark.parametrize("normalisation", ["layer", "none"])
def test_other_normalisations(normalisation):
    start = {"a": [3.0, 4.0], "b": [[0.0, 0.0]]}
    plane = random_plane(lambda a, b: (a ** 2).sum() + (b ** 2).sum(), start=start, points=3,
                         generator=tg.Generator(0), normalisation=normalisation)
    norms = [np.linalg.norm(plane.directions[0][name]) for name in start]
    if normalisation == "layer":
        np.testing.assert_allclose(norms, [5, 0], rtol=1e-7)
    else:
        assert norms[0] < 5 and norms[1] > 0
    assert plane.loss[1, 1] == 25


# ---- the plane of a path ------------------------------------------------------------------------------------------


def test_a_path_in_a_plane_is_shown_whole():
    random = np.random.default_rng(5)
    across, middle = random.standard_normal((2, 6)), random.standard_normal(6)
    path = [{"weight": (middle + np.cos(k) * across[0] + 0.1 * k * across[1]).reshape(2, 3), "bias": np.zeros(2)}
            for k in range(12)]
    model = quadratic()
    plane = path_plane(path, model, BATCH, tg.mse_loss, points=4, generator=tg.Generator(0))
    assert plane.variance == pytest.approx(1, abs=1e-12) and plane.movement == pytest.approx(1, abs=1e-12)
    assert plane.beside.variance < 0.9 and plane.beside.movement < 0.9
    right, up = (direction["weight"] for direction in plane.directions)
    for point, (s, t) in zip(path, plane.path):
        np.testing.assert_allclose(path[-1]["weight"] + s * right + t * up, point["weight"], atol=1e-12)
    np.testing.assert_allclose(plane.loss[1, 2], height(path[-1]["weight"] + plane.x[2] * right + plane.y[1] * up, 0),
                               rtol=1e-12)
    assert plane.x[0] < plane.path[:, 0].min() and plane.path[:, 0].max() < plane.x[-1]


def test_the_shares_are_those_of_the_singular_values():
    trace = record("adam", "chain", 40, lr=0.1)
    plane = path_plane(trace, "chain", points=3, generator=tg.Generator(0))
    away = trace.path - trace.path[-1]
    squares = np.linalg.svd(away, compute_uv=False) ** 2
    assert plane.variance == pytest.approx(squares[:2].sum() / squares.sum(), rel=1e-12)
    steps = np.diff(plane.path, axis=0)
    assert plane.movement == pytest.approx((steps ** 2).sum() / (np.diff(away, axis=0) ** 2).sum(), rel=1e-12)
    assert plane.movement < plane.variance and plane.beside.variance < plane.variance
    titles = [axes.get_title(loc="left") for axes in plane.draw().axes[:2]]
    assert [title.splitlines()[0] for title in titles] == ["the plane that the path chose", "a random plane"]
    assert f"{plane.variance:.1%} of the variance" in titles[0] and f"{plane.beside.movement:.1%} of the" in titles[1]


def test_a_trained_model_shows_its_path():
    model = net()
    trace = record("sgd", model, 15, data=BATCH, loss=tg.mse_loss, lr=0.1)
    plane = path_plane(trace, model, BATCH, tg.mse_loss, points=3, beside=False)
    assert plane.path.shape == (16, 2) and plane.beside is None and 0.5 < plane.variance <= 1
    np.testing.assert_allclose(plane.path[-1], 0, atol=1e-12)
    assert len(plane.draw().axes) == 2                                  # the plane and its colour bar


def test_a_straight_path_has_a_plane_too():
    plane = path_plane([{"w": [k, k, 0.0]} for k in range(4)], lambda w: (w ** 2).sum(), points=3, beside=False)
    assert plane.variance == pytest.approx(1) and (np.diff(plane.y) > 0).all()


# ---- the model stays as it was ------------------------------------------------------------------------------------


def broken(z, y):
    raise RuntimeError("no loss today")


CALLS = {
    "line": lambda model, loss: interpolate(model, {k: 2 * v.numpy() for k, v in model.state_dict().items()},
                                            model.state_dict(), BATCH, loss, points=2),
    "random plane": lambda model, loss: random_plane(model, BATCH, loss, points=2),
    "plane of a path": lambda model, loss: path_plane(
        [[k * p.numpy() for p in model.parameters()] for k in range(3)], model, BATCH, loss, points=2)}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("loss", [tg.mse_loss, broken])
def test_the_model_is_left_as_it_was(call, loss):
    model = net()
    model[3].eval()                                                     # modes that differ come back as they were
    pending = tg.mse_loss(model(BATCH[0]), BATCH[1])
    pending.backward(retain_graph=True)
    modes, own = [module.training for module in model.modules()], list(model.parameters())
    state, slopes = copy.deepcopy(model.state_dict()), [p.grad.numpy().copy() for p in own]
    if loss is broken:
        with pytest.raises(RuntimeError, match="no loss today"):
            call(model, loss)
    else:
        call(model, loss)
    assert all(p is q for p, q in zip(model.parameters(), own))
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name].numpy())
    for p, slope in zip(own, slopes):
        np.testing.assert_array_equal(p.grad.numpy(), slope)
    pending.backward()                                                  # nothing that it needs was written to


# ---- bad input ----------------------------------------------------------------------------------------------------

GOOD = [np.zeros((2, 3)), np.zeros(2)]


@pytest.mark.parametrize("call, why", [
    (lambda m: interpolate(m, [np.zeros((3, 2)), np.zeros(2)], GOOD, BATCH, tg.mse_loss),
     r"a: weight has shape \(3, 2\), in Linear it has \(2, 3\)"),
    (lambda m: interpolate(m, GOOD, GOOD[:1], BATCH, tg.mse_loss), "b has 1 arrays, Linear learns 2: weight, bias"),
    (lambda m: interpolate(m, GOOD, {"weight": GOOD[0]}, BATCH, tg.mse_loss), "b does not fit Linear; it lacks bias"),
    (lambda m: interpolate(m, {"head": 1.0, **m.state_dict()}, GOOD, BATCH, tg.mse_loss), "has not: head"),
    (lambda m: interpolate(net(), net().state_dict(), [p.numpy() for p in net().parameters()], BATCH, tg.mse_loss),
     "a and b name different things: 1.running_mean, 1.running_var"),
    (lambda m: interpolate(m, GOOD, GOOD, BATCH, tg.mse_loss, points=1), "points must be"),
    (lambda m: interpolate(m, GOOD, GOOD, [], tg.mse_loss), "no batches"),
    (lambda m: interpolate("beale", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), "has 2 coordinates"),
    (lambda m: random_plane(m, BATCH, tg.mse_loss, span=0), "span must lie in"),
    (lambda m: random_plane(m, BATCH, tg.mse_loss, normalisation="filters"), "the nearest are filter"),
    (lambda m: random_plane("beale"), "normalisation='layer'"),
    (lambda m: path_plane([GOOD, GOOD], m, BATCH, tg.mse_loss), "must move"),
    (lambda m: path_plane(record("sgd", "beale", 3), m, BATCH, tg.mse_loss),
     "snapshot 0 of the path does not fit.*has not: w")])
def test_bad_values(call, why):
    with pytest.raises(ValueError, match=why):
        call(quadratic())


@pytest.mark.parametrize("call, why", [
    (lambda m: random_plane(m), "a model needs data="),
    (lambda m: path_plane(m, m, BATCH, tg.mse_loss), "must be a Trace"),
    (lambda m: interpolate(m, GOOD, GOOD, 5, tg.mse_loss), "data must be"),
    (lambda m: random_plane(m, BATCH, tg.mse_loss, start=GOOD), "own parameters"),
    (lambda m: random_plane(lambda w: w, start=[1.0, 2.0], normalisation="none"), "one number"),
    (lambda m: interpolate(tg.nn.Linear(3, 2), 3, GOOD, BATCH, tg.mse_loss), "a must be parameters, by name"),
    (lambda m: interpolate(tg.nn.Linear(3, 2), ["x", GOOD[1]], GOOD, BATCH, tg.mse_loss), "a: weight must be numbers"),
    (lambda m: interpolate(lambda w: None, [1.0], [2.0]), "must return one number, it returned None"),
    (lambda m: interpolate(m, GOOD, GOOD, BATCH[0], tg.mse_loss), "data must be an .x, y."),
    (lambda m: random_plane("booth", span="wide"), "span must be a number")])
def test_bad_types(call, why):
    with pytest.raises(TypeError, match=why):
        call(quadratic())


def test_a_seed_makes_the_same_plane():
    model = tg.nn.Linear(3, 2)
    a, b, c = (random_plane(model, BATCH, tg.mse_loss, 3, generator=seed).loss for seed in (0, tg.Generator(0), 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
