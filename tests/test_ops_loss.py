"""Losses against formulas and torch: values, dtypes, gradients, all reductions, bad targets."""

import math

import numpy as np
import pytest
from _ops import check_dtypes, check_op, check_torch, host, named, ours, public_ops, sample, theirs

import tinygrad_opt as tg
from tinygrad_opt.ops import loss

NEAR, UNIT, POSITIVE = (-2, 2), (0.05, 0.95), (0.2, 3)
SHAPES = ((), (4,), (2, 3), (0, 3))
REDUCTIONS = {"none": lambda x: x, "sum": np.sum, "mean": np.mean}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bce(x, t):
    return -(t * np.log(x) + (1 - t) * np.log(1 - x))


def huber(x, t, delta=0.7):
    return np.where(np.abs(x - t) < delta, (x - t) ** 2 / 2, delta * (np.abs(x - t) - delta / 2))


def poisson(x, t):
    return x - t * np.log(x + 1e-8) + np.where(t > 1, t * np.log(t) - t + 0.5 * np.log(2 * np.pi * t), 0)


def gaussian(x, t, v):
    return 0.5 * (np.log(v) + (x - t) ** 2 / v)


def cosine(a, b):
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def distance(a, b, p=2):
    return (np.abs(a - b + 1e-6) ** p).sum(-1) ** (1 / p)


def triplet(a, b, c):
    return np.maximum(0, 1 + distance(a, b) - distance(a, c))


def swapped(a, b, c):
    return np.maximum(0, 2 + distance(a, b, 3) - np.minimum(distance(a, c, 3), distance(b, c, 3)))


def picked(x, t):
    return -x[np.arange(4), t]


def multi_margin(x, t):
    return (np.maximum(0, 0.5 - x[np.arange(4), t][:, None] + x) ** 2).sum(1) / 3 - 0.25 / 3


# formula of the elements, domain of each argument, options
ELEMENTWISE = {
    "mse_loss": (lambda x, t: (x - t) ** 2, (NEAR, NEAR), {}),
    "l1_loss": (lambda x, t: np.abs(x - t), (NEAR, NEAR), {}),
    "huber_loss": (huber, (NEAR, NEAR), {"delta": 0.7}),
    "smooth_l1_loss": (lambda x, t: huber(x, t) / 0.7, (NEAR, NEAR), {"beta": 0.7}),
    "smooth_l1_loss zero": (lambda x, t: np.abs(x - t), (NEAR, NEAR), {"beta": 0.0}),
    "binary_cross_entropy": (bce, (UNIT, UNIT), {}),
    "binary_cross_entropy_with_logits": (lambda x, t: bce(sigmoid(x), t), (NEAR, UNIT), {}),
    "kl_div": (lambda x, t: t * (np.log(t) - x), (NEAR, UNIT), {}),
    "kl_div log": (lambda x, t: np.exp(t) * (t - x), (NEAR, NEAR), {"log_target": True}),
    "poisson_nll_loss": (lambda x, t: np.exp(x) - t * x, (NEAR, POSITIVE), {}),
    "poisson_nll_loss full": (poisson, (POSITIVE, POSITIVE), {"log_input": False, "full": True}),
    "gaussian_nll_loss": (gaussian, (NEAR, NEAR, POSITIVE), {}),
    "gaussian_nll_loss full": (lambda *a: gaussian(*a) + 0.5 * np.log(2 * np.pi), (NEAR, NEAR, POSITIVE),
                               {"full": True}),
}
# formula of the elements, shapes of the arguments before the target, the target, options
SIGNS, CLASSES = np.array([1, -1, 1, -1]), np.array([2, 0, 1, 1])
TARGETED = {
    "hinge_embedding_loss": (lambda x, t: np.where(t == 1, x, np.maximum(0, 0.8 - x)), [(4,)], SIGNS,
                             {"margin": 0.8}),
    "soft_margin_loss": (lambda x, t: np.log1p(np.exp(-t * x)), [(4,)], SIGNS, {}),
    "margin_ranking_loss": (lambda a, b, t: np.maximum(0, -t * (a - b) + 0.3), [(4,), (4,)], SIGNS,
                            {"margin": 0.3}),
    "cosine_embedding_loss": (
        lambda a, b, t: np.where(t == 1, 1 - cosine(a, b), np.maximum(0, cosine(a, b) + 0.5)),
        [(4, 3), (4, 3)], SIGNS, {"margin": -0.5}),
    "cosine_embedding_loss vectors": (lambda a, b, t: 1 - cosine(a, b), [(3,), (3,)], np.array(1), {}),
    "nll_loss": (picked, [(4, 3)], CLASSES, {}),
    "nll_loss vector": (lambda x, t: -x[t], [(3,)], np.array(2), {}),
    "nll_loss pictures": (lambda x, t: -np.take_along_axis(x, t[:, None], 1)[:, 0], [(2, 3, 2)],
                          np.array([[0, 2], [1, 1]]), {}),
    "multi_margin_loss": (multi_margin, [(4, 3)], CLASSES, {"p": 2, "margin": 0.5}),
    "multi_margin_loss vector": (lambda x, t: np.maximum(0, np.delete(1 - x[t] + x, t)).sum() / 3, [(3,)],
                                 np.array(1), {}),
}
TRIPLETS = {"triplet_margin_loss": (triplet, {}),
            "triplet_margin_loss swap": (swapped, {"swap": True, "p": 3.0, "margin": 2.0})}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")       # torch's, of kl_div
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, shape, reduction):
    formula, domains, options = ELEMENTWISE[name]
    if 0 in shape and reduction == "mean":
        return
    arrays, options = sample([shape] * len(domains), *domains), {**options, "reduction": reduction}
    check_op(ours(name, **options), lambda *a: REDUCTIONS[reduction](formula(*a)), arrays, rtol=1e-10)
    if shape:
        check_torch(ours(name, **options), theirs(name, **options), arrays)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", TARGETED)
def test_targeted(name, reduction):
    formula, shapes, target, options = TARGETED[name]
    arrays, op = sample(shapes, *[NEAR] * len(shapes)), ours(name, **options, reduction=reduction)
    check_op(lambda *x: op(*x, target), lambda *x: REDUCTIONS[reduction](formula(*x, target)), arrays, 1e-10)
    function = theirs(name, **options, reduction=reduction)
    u = pytest.importorskip("torch").tensor(target)
    rtol = 1e-7 if "cosine" in name else 1e-10      # torch keeps it from dividing by 0 in another way
    check_torch(lambda *x: op(*x, tg.Tensor(target)), lambda *x: function(*x, u), arrays, rtol)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", TRIPLETS)
def test_triplets(name, reduction):
    formula, options = TRIPLETS[name]
    arrays, options = sample([(4, 3)] * 3, NEAR, NEAR, NEAR), {**options, "reduction": reduction}
    check_op(ours(name, **options), lambda *a: REDUCTIONS[reduction](formula(*a)), arrays, rtol=1e-10)
    check_torch(ours(name, **options), theirs(name, **options), arrays)


def test_every_public_op_is_in_a_table():
    assert named(ELEMENTWISE) | named(TARGETED) | named(TRIPLETS) | {"cross_entropy"} == public_ops(loss)


# ---- cross-entropy ----------------------------------------------------------------------------------------

INPUTS = {"rows": ((4, 3), CLASSES), "vector": ((3,), np.array(2)), "one row": ((1, 3), np.array([1])),
          "pictures": ((2, 3, 2), np.array([[0, 2], [1, 1]])),
          "films": ((1, 3, 2, 1), np.array([[[2], [0]]]))}
OPTIONS = {"plain": {}, "weight": {"weight": [0.5, 1.0, 2.0]}, "smoothing": {"label_smoothing": 0.1},
           "both": {"weight": [0.5, 1.0, 2.0], "label_smoothing": 0.3}, "ignore": {"ignore_index": 0},
           "all": {"weight": [0.5, 1.0, 2.0], "label_smoothing": 0.3, "ignore_index": 0}}


def reference(x, target, weight=(1, 1, 1), ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """The definition: every label made a row of probabilities."""
    axis, weight = min(1, x.ndim - 1), np.asarray(weight)
    x = np.moveaxis(x, axis, -1)
    logp = x - np.log(np.exp(x).sum(-1, keepdims=True))
    if target.dtype.kind == "f":
        kept, hot = 1, np.moveaxis(target, axis, -1)
    else:
        kept, hot = target != ignore_index, np.eye(3)[target]
    each = -(logp * weight * ((1 - label_smoothing) * hot + label_smoothing / 3)).sum(-1) * kept
    if reduction == "mean" and target.dtype.kind != "f":
        return each.sum() / (hot @ weight * kept).sum()
    return REDUCTIONS[reduction](each)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape, labels", INPUTS.values(), ids=INPUTS)
def test_cross_entropy_of_labels(shape, labels, options, reduction):
    arrays, options = sample([shape], NEAR), {**options, "reduction": reduction}
    op = ours("cross_entropy", **options)
    check_op(lambda x: op(x, labels), lambda x: reference(x, labels, **options), arrays, rtol=1e-10)
    u, function = pytest.importorskip("torch").tensor(labels), theirs("cross_entropy", **options)
    check_torch(lambda x: op(x, labels), lambda x: function(x, u), arrays)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", [OPTIONS[k] for k in ("plain", "weight", "smoothing", "both")])
@pytest.mark.parametrize("shape", [(4, 3), (3,), (2, 3, 2)], ids=str)
def test_cross_entropy_of_probabilities(shape, options, reduction):
    arrays, options = sample([shape, shape], NEAR, UNIT), {**options, "reduction": reduction}
    op = ours("cross_entropy", **options)
    check_op(op, lambda x, t: reference(x, t, **options), arrays, rtol=1e-10)
    check_torch(op, theirs("cross_entropy", **options), arrays)


@pytest.mark.parametrize("options", [OPTIONS[k] for k in ("plain", "weight", "ignore")])
def test_nll_loss_of_log_softmax_is_cross_entropy(options):
    x, = sample([(4, 3)], NEAR)
    a = tg.cross_entropy(tg.Tensor(x), CLASSES, **options)
    b = tg.nll_loss(tg.log_softmax(tg.Tensor(x), 1), CLASSES, **options)
    assert a.item() == pytest.approx(b.item(), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n, classes", [(3, 4), (70, 80)])        # on both sides of where the kernel changes
def test_the_fused_kernel_agrees_with_the_general_way(n, classes, dtype):
    x, labels = tg.Tensor(sample([(n, classes)], (-5, 5))[0], True, dtype), np.arange(n) % classes
    fused, general = tg.cross_entropy(x, labels), tg.cross_entropy(x, labels, weight=[1.0] * classes)
    assert fused.dtype == general.dtype == dtype
    rtol = 1e-5 if dtype == "float32" else 1e-12
    assert fused.item() == pytest.approx(general.item(), rel=rtol)
    for create_graph in (False, True):
        a, b = (tg.grad(y, x, retain_graph=True, create_graph=create_graph)[0] for y in (fused, general))
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol, rtol / n)


def test_cross_entropy_to_third_order():
    tg.check_grads(lambda x: tg.cross_entropy(x, [2, 0]), sample([(2, 3)], NEAR), order=3)


def test_targets_of_every_kind():
    x = tg.Tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    wanted = tg.cross_entropy(x, tg.Tensor([2, 0])).item()
    for target in ([2, 0], (2, 0), np.array([2, 0], "uint8"), np.array([2, 0], "int32"),
                   np.array([2, 9, 0, 9])[::2], tg.Tensor([2, 0]).data):
        assert tg.cross_entropy(x, target).item() == wanted
    assert tg.cross_entropy(x, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).item() == pytest.approx(wanted)
    assert tg.cross_entropy(tg.from_numpy(np.asfortranarray(x.numpy())), [2, 0]).item() == wanted
    raw = tg.cross_entropy(x.data, [2, 0])
    assert not isinstance(raw, tg.Tensor)
    assert host(raw) == np.float32(wanted)


def test_ignored_labels():
    x = tg.Tensor([[1.0, 2.0], [math.inf, 0.0], [3.0, -math.inf]])
    wanted = tg.cross_entropy(x[::2], [0, 0]).item()
    with np.errstate(invalid="ignore"):             # inf - inf in the row that does not count
        assert tg.cross_entropy(x, [0, -100, 0]).item() == pytest.approx(wanted)
    x = tg.Tensor([[1.0, 2.0], [4.0, 5.0]], requires_grad=True)
    y = tg.cross_entropy(x, [1, -1], ignore_index=-1)
    assert y.item() == pytest.approx(tg.cross_entropy(x[:1], [1]).item())
    assert tg.grad(y, x)[0].tolist()[1] == [0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_far_out(dtype):
    x = tg.Tensor([[1000.0, 0.0], [-1000.0, 0.0], [0.0, -math.inf]], requires_grad=True, dtype=dtype)
    assert tg.cross_entropy(x, [0, 0, 0], reduction="none").tolist() == [0, 1000, 0]
    y = tg.cross_entropy(x, [0, 0, 0])
    assert y.item() == pytest.approx(1000 / 3)
    assert (tg.grad(y, x)[0] * 3).tolist() == [[0, 0], [-1, 1], [0, 0]]


@pytest.mark.parametrize("row", [[math.nan, 0.0], [0.0, math.nan]])
def test_nan_logits_give_a_nan_loss(row):
    assert math.isnan(tg.cross_entropy(tg.Tensor([[1.0, 2.0], row]), [0, 1]).item())


# ---- binary cross-entropy and others ----------------------------------------------------------------------


def test_binary_cross_entropy_at_the_ends():
    x, t = np.array([0, 0, 1, 1, 0.5, 1e-20]), np.array([0, 1.0, 0, 1, 0.5, 1])
    wanted = [0, 100, 100, 0, math.log(2), -math.log(1e-20)]
    for dtype in ("float32", "float64"):
        y = tg.binary_cross_entropy(tg.Tensor(x, dtype=dtype), t, reduction="none")
        np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-6)
    op, function = ours("binary_cross_entropy"), theirs("binary_cross_entropy")
    check_torch(lambda x: op(x, t), lambda x: function(x, x.new_tensor(t)), [x], rtol=1e-8)


def test_binary_cross_entropy_with_logits_far_out_and_close():
    x, close = tg.Tensor([-1000.0, 1000.0, -30.0, 30.0], requires_grad=True), math.exp(-30)
    y = tg.binary_cross_entropy_with_logits(x, [1, 0, 0, 1], reduction="none")
    np.testing.assert_allclose(y.numpy(), [1000, 1000, close, close], rtol=1e-6)
    np.testing.assert_allclose(tg.grad(y.sum(), x)[0].numpy(), [-1, 1, close, -close], rtol=1e-6)


@pytest.mark.parametrize("name, options", [
    ("binary_cross_entropy", ["weight"]), ("binary_cross_entropy_with_logits", ["weight"]),
    ("binary_cross_entropy_with_logits", ["weight", "pos_weight"])])
def test_weights_of_binary_cross_entropy(name, options):
    x, t, *weights = sample([(2, 3), (2, 3), (2, 3), (3,)], UNIT, UNIT, POSITIVE, POSITIVE)
    options = dict(zip(options, weights))
    tg.check_grads(ours(name, **options), [x, t])
    check_torch(ours(name, **options), theirs(name, **options), [x, t])


def test_whole_number_and_boolean_targets_do_not_promote():
    x, wanted = tg.Tensor([0.5, 0.2]), tg.Tensor([1.0, 0.0])
    for op in (tg.binary_cross_entropy, tg.binary_cross_entropy_with_logits, tg.mse_loss, tg.kl_div):
        for target in ([1, 0], np.array([1, 0]), tg.Tensor([1, 0]), np.array([True, False]), [1.0, 0.0]):
            y = op(x, target)
            assert y.dtype == "float32"
            assert y.item() == pytest.approx(op(x, wanted).item())


def test_kl_div_of_distributions():
    p, q = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    y = tg.kl_div(tg.Tensor(np.log(q)), p, reduction="batchmean")
    assert y.item() == pytest.approx((0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75) + math.log(2)) / 2)


def test_variances_of_gaussian_nll_loss():
    x, t, column = sample([(4, 3), (4, 3), (4, 1)], NEAR, NEAR, POSITIVE)
    wanted = tg.gaussian_nll_loss(tg.Tensor(x), t, np.repeat(column, 3, 1)).item()
    for var in (column, column[:, 0]):
        assert tg.gaussian_nll_loss(tg.Tensor(x), t, var).item() == pytest.approx(wanted)
    assert tg.gaussian_nll_loss(tg.Tensor([1.0]), [3.0], 2.0).item() == pytest.approx(0.5 * (math.log(2) + 2))
    assert math.isfinite(tg.gaussian_nll_loss(tg.Tensor([1.0]), [1.0], 0.0).item())


def test_class_weights_of_multi_margin_loss():
    labels, options = pytest.importorskip("torch").tensor(CLASSES), {"weight": [0.5, 1.0, 2.0]}
    op, function = ours("multi_margin_loss", **options), theirs("multi_margin_loss", **options)
    check_torch(lambda x: op(x, CLASSES), lambda x: function(x, labels), sample([(4, 3)], NEAR))


def test_dtypes_of_cross_entropy():
    check_dtypes(lambda x: tg.cross_entropy(x, [0, 1]), sample([(2, 3)], NEAR))
    check_dtypes(tg.cross_entropy, sample([(2, 3), (2, 3)], NEAR, UNIT))


# ---- errors -----------------------------------------------------------------------------------------------

Z = tg.ones(4, 3)


@pytest.mark.parametrize("call, error, message", [
    (lambda: tg.cross_entropy(Z, [0, 1, 3, 0]), IndexError, r"target\[2\] is 3; labels of 3 .* from 0 to 2"),
    (lambda: tg.cross_entropy(Z, [0, -1, 1, 0]), IndexError, r"target\[1\] is -1"),
    (lambda: tg.cross_entropy(Z, [0, 5, 1, 0], reduction="sum"), IndexError, r"target\[1\] is 5"),
    (lambda: tg.cross_entropy(tg.ones(2, 3, 2), [[0, 0], [0, 7]]), IndexError, r"target\[1, 1\] is 7"),
    (lambda: tg.cross_entropy(tg.ones(3), 3), IndexError, "target is 3"),
    (lambda: tg.nll_loss(Z, [0, 1, 3, 0]), IndexError, r"nll_loss: target\[2\] is 3"),
    (lambda: tg.cross_entropy(Z, [0.0, 1.0, 2.0, 0.0]), TypeError,
     r"integers of shape \(4,\), or to cross_entropy probabilities of shape \(4, 3\)"),
    (lambda: tg.cross_entropy(Z, [True, False, True, True]), TypeError, "dtype bool"),
    (lambda: tg.cross_entropy(Z, [0, 1]), ValueError, r"shape \(2,\), it must be \(4,\).* \(4, 3\)"),
    (lambda: tg.cross_entropy(Z, np.ones((4, 3), int)), ValueError, r"target has shape \(4, 3\)"),
    (lambda: tg.cross_entropy(Z, CLASSES, weight=[1.0, 2.0]), ValueError, r"shape \(3,\).*got \(2,\)"),
    (lambda: tg.cross_entropy(Z, CLASSES, reduction="average"), ValueError, "'none', got 'average'"),
    (lambda: tg.cross_entropy(Z, CLASSES, label_smoothing=1.5), ValueError, r"\[0, 1\], got 1.5"),
    (lambda: tg.cross_entropy(Z, CLASSES, label_smoothing=math.nan), ValueError, r"\[0, 1\], got nan"),
    (lambda: tg.cross_entropy(tg.ones(), 0), ValueError, "axis of classes, got a single number"),
    (lambda: tg.cross_entropy(Z, Z, ignore_index=2), ValueError, "target holds probabilities"),
    (lambda: tg.mse_loss(tg.ones(4, 1), tg.ones(4)), ValueError,
     r"target has shape \(4,\), it must be \(4, 1\).*squeeze"),
    (lambda: tg.l1_loss(tg.ones(4), 0.0), ValueError, r"target has shape \(\)"),
    (lambda: tg.binary_cross_entropy(Z, Z[0]), ValueError, "binary_cross_entropy: target has shape"),
    (lambda: tg.binary_cross_entropy(2 * Z, Z), ValueError, r"\[0, 1\], got 2.0; for logits"),
    (lambda: tg.binary_cross_entropy(-Z, Z), ValueError, r"\[0, 1\], got -1.0"),
    (lambda: tg.huber_loss(Z, Z, delta=0), ValueError, "delta must be positive, got 0"),
    (lambda: tg.smooth_l1_loss(Z, Z, beta=-1), ValueError, "beta must be at least 0, got -1"),
    (lambda: tg.hinge_embedding_loss(Z, 0 * Z), ValueError, "must hold 1 and -1 only"),
    (lambda: tg.soft_margin_loss(Z, 0.5 * Z), ValueError, "must hold 1 and -1 only"),
    (lambda: tg.margin_ranking_loss(Z, Z[0], Z), ValueError, "input2 has shape"),
    (lambda: tg.cosine_embedding_loss(Z, Z, Z), ValueError, r"it must be \(4,\)"),
    (lambda: tg.triplet_margin_loss(Z, Z, Z[0]), ValueError, "negative has shape"),
    (lambda: tg.gaussian_nll_loss(Z, Z, -Z), ValueError, "var must be at least 0"),
    (lambda: tg.gaussian_nll_loss(Z, Z, Z[0]), ValueError, r"var has shape \(3,\)"),
    (lambda: tg.multi_margin_loss(Z, CLASSES, p=3), ValueError, "p must be 1 or 2, got 3"),
    (lambda: tg.multi_margin_loss(Z, [0, 1, 3, 0]), IndexError, r"target\[2\] is 3"),
    (lambda: tg.kl_div(Z, Z, reduction="batch"), ValueError, "'none', got 'batch'"),
])
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
