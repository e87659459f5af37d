"""Gradient processing: each function against arithmetic written down separately, by hand and in optax."""

import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import gradients, nn

SHAPES = (), (5,), (3, 4), (2, 3, 2, 2), (0, 3), (3, 0)


def made(dtype="float64", scale=1.0, shapes=SHAPES):
    """Return parameters with gradients, and both as arrays."""
    rng = np.random.default_rng(0)
    weights = [np.asarray(rng.normal(size=shape)).astype(dtype) for shape in shapes]
    values = [np.asarray(scale * rng.normal(size=shape)).astype(dtype) for shape in shapes]
    parameters = [nn.Parameter(w) for w in weights]
    for parameter, value in zip(parameters, values):
        parameter.grad = tg.Tensor(value)
    return parameters, weights, values


def with_gradient(gradient, weight=None):
    gradient = np.asarray(gradient, "float64")
    parameter = nn.Parameter(np.zeros_like(gradient) if weight is None else np.asarray(weight, "float64"))
    parameter.grad = tg.Tensor(gradient)
    return parameter


def near(parameters, expected, tolerance=1e-14):
    for parameter, value in zip(parameters, expected):
        assert parameter.grad.shape == np.shape(value)
        np.testing.assert_allclose(parameter.grad.numpy(), value, rtol=tolerance, atol=tolerance)


def norm(x):
    return math.sqrt(sum(float(v) ** 2 for v in np.ravel(x)))


def agc(weight, gradient, all_g, clip_factor=0.2, eps=0.5):
    result = []
    for w, g in zip(weight, gradient) if gradient.ndim > 1 else [(weight, gradient)]:
        limit = clip_factor * max(norm(w), eps)
        result.append(g * limit / norm(g) if norm(g) > limit else g)
    return np.array(result).reshape(gradient.shape)


def clipped(w, g, all_g):
    return np.array([min(max(v, -0.7), 0.7) for v in g.flat]).reshape(g.shape)


def block_rms(w, g, all_g, threshold=0.8):
    rms = norm(g) / math.sqrt(g.size) if g.size else 0
    return g * threshold / rms if rms > threshold else g


# name -> what is done, and the same of one gradient (weights, gradient, all gradients)
TABLE = {
    "agc": (lambda p: gradients.clip_grad_agc_(p, 0.2, 0.5), agc),
    "block_rms": (lambda p: gradients.clip_grad_block_rms_(p, 0.8), block_rms),
    "normalize": (gradients.normalize_grad_, lambda w, g, all_g: g / norm([norm(other) for other in all_g])),
    "normalize each": (lambda p: gradients.normalize_grad_(p, "tensor"),
                       lambda w, g, all_g: g / norm(g) if g.size else g),
    "centralize": (gradients.centralize_grad_, lambda w, g, all_g:
                   np.array([unit - sum(unit.flat) / unit.size for unit in g]) if g.ndim > 1 and g.size else g),
    "weight_decay": (lambda p: gradients.add_weight_decay_(p, 0.3), lambda w, g, all_g: g + 0.3 * w),
    "value": (lambda p: gradients.clip_grad_value_(p, 0.7), clipped),
    "guard": (lambda p: gradients.guard_grad_(p, 0.7, quiet=True), clipped),
    "norm": (lambda p: gradients.clip_grad_norm_(p, 0.7),
             lambda w, g, all_g: g * 0.7 / (norm([norm(other) for other in all_g]) + 1e-6)),
    "noise": (lambda p: gradients.add_grad_noise_(p, 3, 0.2, 0.7, tg.Generator(5)), None),
}
each = pytest.mark.parametrize("act, expected", TABLE.values(), ids=TABLE)


@each
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-14), ("float32", 1e-6)])
def test_arithmetic(act, expected, dtype, tolerance):
    parameters, weights, values = made(dtype)
    act(parameters)
    if expected is None:
        noise = np.random.default_rng(5)
        expected = lambda w, g, all_g: g + math.sqrt(0.2 / 4 ** 0.7) * noise.standard_normal(g.shape)
    near(parameters, [expected(w, g, values) for w, g in zip(weights, values)], tolerance)
    assert all(parameter.grad.dtype == dtype for parameter in parameters)


@each
def test_parameters_come_alone_in_lists_by_name_and_without_gradients(act, expected):
    reference, _, _ = made()
    act(reference)
    names = [f"p{k}" for k in range(len(SHAPES))]
    for convert in (iter, lambda p: dict(zip(names, p)), lambda p: zip(names, p), lambda p: [*p, nn.Parameter([1.0])]):
        parameters, _, _ = made()
        act(convert(parameters))
        near(parameters, [p.grad.numpy() for p in reference], 0)
    lonely, listed = (made(shapes=[(3, 4)])[0][0] for _ in range(2))
    act(lonely)
    act([listed])
    assert lonely.grad.tolist() == listed.grad.tolist()
    act([])
    act([nn.Parameter([1.0])])
    with pytest.warns(UserWarning, match="used up"):
        act(iter([]))


@each
def test_they_write_into_the_gradients_own_memory_and_no_other(act, expected):
    layer = nn.Linear(2, 3, bias=False)
    (layer(tg.tensor([[1.0, 2.0]])) * tg.tensor([1.0, 5.0, 9.0])).sum().backward()
    memory = layer.weight._grad
    act(layer.weight)
    assert layer.weight._grad is memory
    seen = layer.weight.grad
    values = seen.tolist()
    layer.zero_grad()
    layer.weight.grad = seen
    act(layer.weight)
    assert seen.tolist() == values
    own = layer.weight._grad
    act(layer.weight)
    assert layer.weight._grad is own

    x = nn.Parameter([[2.0, 3.0]])
    (x ** 3).sum().backward(create_graph=True)
    slope = x.grad
    act([x])
    assert tg.grad(slope.sum(), x)[0].tolist() == [[12.0, 18.0]]


# ---- what is not finite -----------------------------------------------------------------------------------

@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("act", [act for name, (act, _) in TABLE.items() if name not in ("guard", "weight_decay")],
                         ids=[name for name in TABLE if name not in ("guard", "weight_decay")])
def test_a_gradient_that_is_not_finite_is_named_and_spoils_no_other(act, bad):
    calm, bent = with_gradient([[3.0, 4.0]]), with_gradient([[1.0, bad], [3.0, 4.0]])
    last = with_gradient([[bad, bad]])
    with pytest.warns(RuntimeWarning, match="gradient of parameter 'bent' has NaN or infinite") as caught:
        act({"calm": calm, "bent": bent, "last": last})
    assert [warning.filename for warning in caught] == [__file__]
    assert np.isfinite(calm.grad.numpy()).all() and np.isfinite(bent.grad.numpy()[1]).all()
    assert np.isfinite(bent.grad.numpy()[0, 0]) and np.isnan(bent.grad.numpy()[0, 1]) == np.isnan(bad)


def test_what_has_no_finite_norm_is_left_as_it_is_and_the_rest_is_not():
    for act, kept in [(lambda p: gradients.clip_grad_agc_(p, 0.1, 1.0), [[0.06, 0.08]]),
                      (gradients.centralize_grad_, [[-0.5, 0.5]])]:
        bent = with_gradient([[1.0, math.inf], [3.0, 4.0]])
        with pytest.warns(RuntimeWarning, match="parameter 0"):
            act(bent)
        np.testing.assert_allclose(bent.grad.numpy(), [[1.0, math.inf], *kept], rtol=1e-14)
    for act in (lambda p: gradients.clip_grad_block_rms_(p, 1.0), lambda p: gradients.normalize_grad_(p, "tensor")):
        bent, fine = with_gradient([30.0, math.nan]), with_gradient([-7.0])
        with pytest.warns(RuntimeWarning, match="parameter 0"):
            act([bent, fine])
        np.testing.assert_array_equal(bent.grad.numpy(), [30.0, math.nan])
        np.testing.assert_allclose(fine.grad.numpy(), [-1.0], rtol=1e-15)
    bent, fine = with_gradient([30.0, math.nan]), with_gradient([-7.0])
    with pytest.warns(RuntimeWarning, match="parameter 0"):
        gradients.normalize_grad_([bent, fine])
    assert fine.grad.tolist() == [-7.0]


def test_norms_beyond_float32_and_float64():
    for size in (1e30, 1e-30):
        for scope in ("global", "tensor"):
            w = nn.Parameter(np.zeros(4, "float32"))
            w.grad = tg.full((4,), size)
            gradients.normalize_grad_(w, scope)
            np.testing.assert_allclose(w.grad.numpy(), 0.5, rtol=1e-6)
    huge = nn.Parameter([[0.0, 0.0]])
    huge.grad = tg.full((1, 2), 3e38)
    gradients.centralize_grad_(huge)
    assert huge.grad.tolist() == [[0.0, 0.0]]
    beyond = with_gradient([1e200, 1e200])
    with pytest.warns(RuntimeWarning, match="beyond the range of float64"):
        gradients.clip_grad_block_rms_(beyond, 1.0)
    assert beyond.grad.tolist() == [1e200, 1e200]


def test_a_gradient_of_zeros_stays_so():
    for scope in ("global", "tensor"):
        zero = with_gradient([0.0, 0.0])
        gradients.normalize_grad_([zero], scope)
        assert zero.grad.tolist() == [0.0, 0.0]
    gradients.clip_grad_agc_(zero)
    gradients.clip_grad_block_rms_(zero, 1.0)
    assert zero.grad.tolist() == [0.0, 0.0]


# ---- each by itself ---------------------------------------------------------------------------------------

def test_numbers_by_hand():
    w = with_gradient([[30.0, 40.0], [0.3, 0.4], [3.0, 4.0]], weight=[[6.0, 8.0], [6.0, 8.0], [0.0, 0.0]])
    gradients.clip_grad_agc_(w)                      # limits 0.1, 0.1, 0.01 * 1e-3
    near([w], [[[0.06, 0.08], [0.06, 0.08], [6e-6, 8e-6]]])
    vector = with_gradient([3.0, 4.0], weight=[6.0, 8.0])
    gradients.clip_grad_agc_(vector, clip_factor=0.25)
    near([vector], [[1.5, 2.0]])
    below = with_gradient([3.0, 4.0], weight=[6.0, 8.0])
    gradients.clip_grad_agc_(below, clip_factor=0.6)
    gradients.clip_grad_block_rms_(below, 4)
    assert below.grad.tolist() == [3.0, 4.0]
    pair = [with_gradient([3.0]), with_gradient([[4.0]])]
    gradients.normalize_grad_(pair)
    near(pair, [[0.6], [[0.8]]])
    gradients.normalize_grad_(pair, scope="tensor")
    near(pair, [[1.0], [[1.0]]])
    cube = with_gradient([[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]])
    gradients.centralize_grad_(cube)
    near([cube], [[[[-2.0, -1.0], [0.0, 3.0]], [[-1.0, -1.0], [-1.0, 3.0]]]])


def test_noise_falls_as_it_should_and_comes_from_its_seed():
    def noise(t, size=40_000, **options):
        w = with_gradient(np.zeros(size))
        gradients.add_grad_noise_(w, t, **options)
        return w.grad.numpy()

    assert noise(0).var() == pytest.approx(0.3, rel=0.05)
    assert noise(99, eta=1.0).var() == pytest.approx(100 ** -0.55, rel=0.05)
    assert noise(15, eta=0.01, gamma=0.5).var() == pytest.approx(0.0025, rel=0.05)
    assert noise(15, eta=0.01, gamma=0).var() == pytest.approx(0.01, rel=0.05)
    assert abs(noise(0).mean()) < 0.02
    tg.manual_seed(3)
    first = noise(0, 4)
    assert not np.array_equal(noise(0, 4), first)
    np.testing.assert_array_equal(noise(0, 4, generator=tg.Generator(3)), first)


def test_the_guard_limits_what_is_finite_says_so_and_says_where():
    a, b = with_gradient([1e6, -3.0, math.nan]), with_gradient([[-2e6, math.inf], [5e9, -math.inf]])
    seen = a.grad
    with pytest.warns(RuntimeWarning, match=r"parameter 'b' has entries beyond 1e\+06") as caught:
        assert gradients.guard_grad_({"a": a, "b": b}) == ["b"]
    assert [warning.filename for warning in caught] == [__file__]
    np.testing.assert_array_equal(b.grad.numpy(), [[-1e6, math.inf], [1e6, -math.inf]])
    assert a._grad is seen                           # not even copied
    np.testing.assert_array_equal(a.grad.numpy(), [1e6, -3.0, math.nan])
    assert gradients.guard_grad_({"a": a, "b": b}) == []
    assert gradients.guard_grad_([a, b], 2.0, quiet=True) == [0, 1]
    np.testing.assert_array_equal(a.grad.numpy(), [2.0, -2.0, math.nan])


def test_a_limit_beyond_float16_is_none():
    half = nn.Parameter(np.zeros(2, "float16"))
    half.grad = tg.Tensor(np.array([60000, -1], "float16"))
    assert gradients.guard_grad_(half) == []
    gradients.clip_grad_value_(half, 1e6)
    assert half.grad.tolist() == [60000, -1]
    assert gradients.guard_grad_(half, 1000, quiet=True) == [0]
    assert half.grad.tolist() == [1000, -1]


ABOVE, LEAST = "above 0", "at least 0"
SETTINGS = [("clip_factor", ABOVE, lambda p, x: gradients.clip_grad_agc_(p, x)),
            ("eps", ABOVE, lambda p, x: gradients.clip_grad_agc_(p, eps=x)),
            ("threshold", ABOVE, gradients.clip_grad_block_rms_),
            ("eta", ABOVE, lambda p, x: gradients.add_grad_noise_(p, 0, eta=x)),
            ("gamma", LEAST, lambda p, x: gradients.add_grad_noise_(p, 0, gamma=x)),
            ("t", LEAST, gradients.add_grad_noise_),
            ("weight_decay", LEAST, gradients.add_weight_decay_),
            ("limit", ABOVE, lambda p, x: gradients.guard_grad_(p, x, quiet=True))]


@pytest.mark.parametrize("name, least, act", SETTINGS, ids=[name for name, _, _ in SETTINGS])
def test_settings_out_of_range_are_refused_and_nothing_is_changed(name, least, act):
    w = with_gradient([[3.0, 4.0]])
    for bad in (-1, math.nan, *[math.inf] * (name != "limit"), *[0] * (least == ABOVE)):
        with pytest.raises(ValueError, match=f"^{name} must be .*{least}, got {bad}"):
            act(w, bad)
    assert w.grad.tolist() == [[3.0, 4.0]]
    act(w, 0.5)


def test_other_mistakes():
    with pytest.raises(ValueError, match="scope must be 'global' or 'tensor', got 'layer'"):
        gradients.normalize_grad_([], scope="layer")
    with pytest.raises(TypeError, match="parameter 'w' must be a Tensor, got ndarray"):
        gradients.centralize_grad_({"w": np.ones(3)})


# ---- optax ------------------------------------------------------------------------------------------------

def test_optax_agrees():
    optax = pytest.importorskip("optax")
    shapes = (5,), (3, 4), (2, 3, 2, 2)
    channels_last = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}          # optax: units are the last axis

    def theirs(transform, arrays, params, turn):
        def turned(xs):
            return [np.transpose(x, channels_last[x.ndim]) if turn else x for x in xs]
        updates, _ = transform.update(turned(arrays), transform.init(turned(params)), turned(params))
        back = [np.argsort(channels_last[x.ndim]) if turn else range(x.ndim) for x in arrays]
        return [np.transpose(np.asarray(u), axes) for u, axes in zip(updates, back)]

    for act, transform, turn in [
            (lambda p: gradients.clip_grad_agc_(p, 0.3, 1e-3), optax.adaptive_grad_clip(0.3, 1e-3), True),
            (lambda p: gradients.clip_grad_block_rms_(p, 0.8), optax.clip_by_block_rms(0.8), False),
            (gradients.centralize_grad_, optax.centralize(), False),
            (gradients.normalize_grad_, optax.normalize_by_update_norm(), False),
            (lambda p: gradients.add_weight_decay_(p, 0.3), optax.add_decayed_weights(0.3), False),
            (lambda p: gradients.clip_grad_value_(p, 0.5), optax.clip(0.5), False),
            (lambda p: gradients.clip_grad_norm_(p, 0.5), optax.clip_by_global_norm(0.5), False)]:
        parameters, weights, values = made("float32", shapes=shapes)
        act(parameters)
        near(parameters, theirs(transform, values, weights, turn), 2e-6)
    noise = optax.add_noise(0.2, 0.7, 0)
    zeros, state = [np.zeros(40_000, "float32")], noise.init([np.zeros(40_000, "float32")])
    for t in range(3):                                             # the same variance, from the first step on
        updates, state = noise.update(zeros, state)
        w = with_gradient(zeros[0])
        gradients.add_grad_noise_(w, t, 0.2, 0.7, tg.Generator(t))
        assert w.grad.numpy().var() == pytest.approx(np.asarray(updates[0]).var(), rel=0.05)
