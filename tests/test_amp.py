"""Mixed precision: what autocast rounds, what stays float32, and the scaler that goes with it."""

import copy
import math
import pickle
import threading
from functools import partial

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn, optim, precision
from tinygrad_opt.amp import GradScaler, autocast
from tinygrad_opt.nn import functional as F
from tinygrad_opt.tensor import float16

HALVES = ["float16", "bfloat16"]


def rounded(x, dtype):
    """Round numbers of float32 to a half precision, the slow way, and return them in float32."""
    x = np.asarray(x, "float32")
    if dtype == "float16":
        return x.astype("float16").astype("float32")
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 256), exponent).astype("float32") / np.float32(256)


def normal(*shape, dtype="float32", seed=0, grad=False):
    return tg.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=grad)


# ---- rounding ---------------------------------------------------------------------------------------------


def test_bfloat16_is_the_upper_half_of_a_float32():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(1000) * 10.0 ** rng.integers(-30, 30, 1000)).astype("float32")
    y = precision.to_bfloat16(tg.tensor(x)).numpy()
    np.testing.assert_array_equal(y, rounded(x, "bfloat16"))
    assert not (y.view("uint32") & 0xFFFF).any()


def test_bfloat16_of_ties_and_of_what_is_no_number():
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 0.0, np.inf, -np.inf, 3.4e38], "float32")
    expected = [1.0, 1 + 2**-6, -1.0, 0.0, math.inf, -math.inf, math.inf]
    assert precision.to_bfloat16(tg.tensor(x)).tolist() == expected
    nan = np.array([0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], "uint32").view("float32")
    assert np.isnan(precision.to_bfloat16(tg.tensor(nan)).numpy()).all()
    assert math.isnan(precision.to_bfloat16(tg.tensor(nan[3])).item())


def test_bfloat16_is_that_of_torch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(1).integers(0, 2**32, 10_000, dtype="uint32").view("float32")
    theirs = torch.tensor(x).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(precision.to_bfloat16(tg.tensor(x)).numpy(), theirs)


# ---- products ---------------------------------------------------------------------------------------------

A, B, V = (4, 6), (6, 3), (6,)
PRODUCTS = {
    "@": (lambda a, b: a @ b, np.matmul, [A, B]),
    "matmul of stacks": (tg.matmul, np.matmul, [(2, *A), (2, *B)]),
    "matmul flattened": (tg.matmul, np.matmul, [(2, *A), B]),
    "matmul of vectors": (tg.matmul, np.matmul, [V, V]),
    "mm": (tg.mm, np.matmul, [A, B]),
    "bmm": (tg.bmm, np.matmul, [(2, *A), (2, *B)]),
    "mv": (tg.mv, np.matmul, [A, V]),
    "dot": (tg.dot, np.dot, [V, V]),
    "inner": (tg.inner, np.inner, [A, V]),
    "tensordot": (lambda a, b: tg.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, 1), [A, B]),
    "einsum": (lambda a, b: tg.einsum("ij,jk->ki", a, b), lambda a, b: (a @ b).T, [A, B]),
    "linear": (tg.linear, lambda x, w, b: x @ w.T + b, [(5, 6), (3, 6), (3,)]),
    "linear without bias": (tg.linear, lambda x, w: x @ w.T, [(2, 5, 6), (3, 6)]),
    "linear of a vector": (tg.linear, lambda x, w, b: x @ w.T + b, [(6,), (3, 6), (3,)]),
    "linear_relu": (tg.linear_relu, lambda x, w, b: np.maximum(x @ w.T + b, 0), [(5, 6), (3, 6), (3,)]),
}
each_product = pytest.mark.parametrize("op, plain, shapes", PRODUCTS.values(), ids=PRODUCTS)


@each_product
@pytest.mark.parametrize("dtype", HALVES)
def test_products_round_their_arguments_and_their_result(op, plain, shapes, dtype):
    args = [normal(*shape, seed=k, grad=True) for k, shape in enumerate(shapes)]
    with autocast(dtype):
        y = op(*args)
    exact = plain(*(rounded(x.detach().numpy(), dtype).astype("float64") for x in args))
    assert y.dtype == ("float16" if dtype == "float16" else "float32")
    np.testing.assert_array_equal(y.numpy(), rounded(y.numpy(), dtype))
    np.testing.assert_allclose(y.numpy(), exact, rtol=2**-10 if dtype == "float16" else 2**-7, atol=1e-6)
    assert op(*args).dtype == "float32"
    np.testing.assert_array_equal(op(*args).numpy(), op(*(x.detach() for x in args)).numpy())


@each_product
@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_are_float32_and_those_of_the_rounded_product(op, plain, shapes, dtype):
    args = [normal(*shape, seed=k, grad=True) for k, shape in enumerate(shapes)]
    exact = [tg.tensor(rounded(x.detach().numpy(), dtype), dtype="float64", requires_grad=True) for x in args]
    with autocast(dtype):
        y = op(*args)
    g = tg.tensor(rounded(normal(*y.shape, seed=9).numpy(), dtype), dtype=y.dtype)
    y.backward(g)
    op(*exact).backward(g.astype("float64"))
    for x, z in zip(args, exact):
        assert x.grad.dtype == "float32"
        np.testing.assert_array_equal(x.grad.numpy(), rounded(x.grad.numpy(), dtype))
        np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=2**-10 if dtype == "float16" else 2**-7,
                                   atol=1e-6)


@each_product
def test_both_ways_back_agree(op, plain, shapes):
    """What arrays are pulled back by, and what Tensors are, is the same mathematics."""
    args = [normal(*shape, seed=k, grad=True) for k, shape in enumerate(shapes)]

    def loss():
        with autocast():
            return (op(*args).astype("float32") ** 2).sum()
    for plain_gradient, recorded in zip(tg.grad(loss(), args), tg.grad(loss(), args, create_graph=True)):
        assert recorded.requires_grad and recorded.dtype == "float32"
        np.testing.assert_allclose(plain_gradient.numpy(), recorded.detach().numpy(), rtol=2e-3, atol=2e-3)


def test_second_derivatives():
    x, w = normal(5, 6, seed=1, grad=True), normal(3, 6, seed=2, grad=True)

    def slope(half):
        with autocast(enabled=half):
            y = tg.linear(x, w)
        first, = tg.grad((y.astype("float32") ** 3).sum(), w, create_graph=True)
        return tg.grad((first ** 2).sum(), w)[0].numpy()
    np.testing.assert_allclose(slope(True), slope(False), rtol=0.02, atol=0.02 * np.abs(slope(False)).max())


def test_float64_is_left_alone():
    x, w = normal(2, 3, dtype="float64", grad=True), normal(4, 3, dtype="float64", grad=True)
    with autocast():
        assert tg.linear(x, w).dtype == tg.einsum("ij,kj->ik", x, w).dtype == "float64"
        np.testing.assert_array_equal((x @ w.T).numpy(), x.numpy() @ w.numpy().T)
        assert tg.linear(x, w.detach().astype("float32")).dtype == "float64"
        assert (tg.ones(2, 2, dtype="int64") @ tg.ones(2, 2, dtype="int64")).dtype == "int64"
        tg.check_grads(tg.linear, (x, w), order=2)
        tg.check_grads(lambda a, b: tg.mse_loss(a @ b.T, tg.zeros(2, 4, dtype="float64")), (x, w), order=2)


def test_arrays_and_modules():
    layer = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = normal(5, 3)
    with autocast():
        assert layer(x).dtype == tg.linear(x.data, layer[0].weight.data).dtype == "float16"
    assert layer(x).dtype == "float32" and all(p.dtype == "float32" for p in layer.parameters())


def test_long_sums_of_float16_are_summed_in_float32():
    """4,096 ones: in float16 the sum would stop at 2,048."""
    ones = tg.ones(1, 4096, dtype="float16", requires_grad=True)
    assert (ones @ ones.T).item() == tg.linear(ones, ones).item() == tg.einsum("ij,ij->", ones, ones).item() == 4096
    weight, bias = tg.ones(1, 1, dtype="float16", requires_grad=True), tg.zeros(1, dtype="float16", requires_grad=True)
    for create_graph in (False, True):
        y = tg.linear(ones.detach().reshape(-1, 1), weight, bias)
        slopes = tg.grad(y, (weight, bias), tg.ones(4096, 1, dtype="float16"), create_graph=create_graph)
        assert [g.item() for g in slopes] == [4096, 4096] and slopes[0].dtype == "float16"


def test_float16_gradients_in_the_memory_of_the_last():
    layer, x = nn.Linear(3, 2).to("float16"), normal(5, 3, dtype="float16")
    seen = []
    for _ in range(2):
        layer.zero_grad()
        layer(x).backward(tg.ones(5, 2, dtype="float16"))
        seen.append([p._grad.tolist() for p in layer.parameters()])
    assert seen[0] == seen[1] and layer.weight.grad.dtype == "float16"


def test_what_does_not_fit_into_float16_is_infinite_without_a_warning():
    x = tg.tensor([[1e6]], requires_grad=True)
    with autocast():
        y = x @ tg.ones(1, 1)
    assert y.item() == math.inf


def test_printing_float16():
    assert str(tg.ones(2, dtype="float16")) == "tensor([1., 1.], dtype=float16)"


# ---- what stays float32 -----------------------------------------------------------------------------------

WIDE = {
    **{name: getattr(tg, name) for name in ("sum", "mean", "var", "std", "norm", "logsumexp", "prod", "softmax",
                                            "log_softmax", "softmin")},
    "cumsum": lambda z: z.cumsum(0), "cumprod": lambda z: z.cumprod(0), "method": lambda z: z.sum(dim=1),
    "layer_norm": lambda z: F.layer_norm(z, 3), "rms_norm": lambda z: F.rms_norm(z, 3),
    "batch_norm": lambda z: F.batch_norm(z, None, None, training=True), "LayerNorm": lambda z: nn.LayerNorm(3)(z),
    "normalize": F.normalize, "cosine_similarity": lambda z: F.cosine_similarity(z, z),
}


def against(target, *names):
    """Return losses by name, with a target."""
    return {name: partial(lambda loss, z: loss(z, target), getattr(F, name)) for name in names}


ONES = tg.ones(4, 3, dtype="float16")
LOSSES = {
    **against(ONES, "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "poisson_nll_loss", "kl_div",
              "binary_cross_entropy_with_logits", "hinge_embedding_loss", "soft_margin_loss"),
    **against([0, 1, 2, 0], "cross_entropy", "nll_loss", "multi_margin_loss"),
    "smoothed": lambda z: F.cross_entropy(z, [0, 1, 2, 0], label_smoothing=0.1),
    "probabilities": lambda z: F.cross_entropy(z, ONES / 3),
    "module": lambda z: nn.CrossEntropyLoss()(z, [0, 1, 2, 0]),
    "binary_cross_entropy": lambda z: F.binary_cross_entropy(z.sigmoid(), ONES),
    "gaussian_nll_loss": lambda z: F.gaussian_nll_loss(z, z * 0, var=z * z),
    "margin_ranking_loss": lambda z: F.margin_ranking_loss(z, z * 0, ONES),
    "cosine_embedding_loss": lambda z: F.cosine_embedding_loss(z, z * z, tg.ones(4)),
    "triplet_margin_loss": lambda z: F.triplet_margin_loss(z, z * z, -z),
}


@pytest.mark.parametrize("op", [*WIDE.values(), *LOSSES.values()], ids=[*WIDE, *LOSSES])
def test_reductions_norms_and_losses_are_float32(op):
    z = normal(4, 3, dtype="float16", seed=3, grad=True)
    with autocast():
        y = op(z)
    y.sum().backward()
    assert y.dtype == "float32" and z.grad.dtype == "float16"
    wide = z.detach().astype("float32").requires_grad_()
    op(wide).sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), op(wide).detach().numpy(), rtol=3e-3, atol=3e-3)
    np.testing.assert_allclose(z.grad.numpy(), wide.grad.numpy(), rtol=3e-3, atol=3e-3)


def test_named_arguments_too():
    z = normal(4, 3, dtype="float16")
    with autocast():
        assert F.mse_loss(input=z, target=z).dtype == tg.sum(x=z).dtype == tg.sum(z.data).dtype == "float32"


def test_outside_nothing_changes():
    z = normal(4, 3, dtype="float16")
    assert z.sum().dtype == F.mse_loss(z, z).dtype == (z @ z.T).dtype == "float16"
    with autocast():
        assert z.exp().dtype == (z * z).dtype == z.relu().dtype == "float16"
        assert z.astype("float64").sum().dtype == "float64"


# ---- where it is on ---------------------------------------------------------------------------------------


def on():
    return (tg.ones(1, 1) @ tg.ones(1, 1)).dtype == float16


def test_nesting_and_leaving():
    assert not on() and not precision.is_autocast_enabled()
    with autocast():
        assert on() and precision.is_autocast_enabled()
        with autocast(enabled=False):
            assert not on()
            with autocast("bfloat16"):
                assert not on() and precision.is_autocast_enabled()
        assert on()
    with pytest.raises(KeyError):
        with autocast():
            raise KeyError
    assert not on()


def test_as_a_decorator():
    @autocast()
    def inside():
        return on()
    assert inside() and inside() and not on()


@pytest.mark.parametrize("dtype", [None, "float16", np.float16, np.dtype("float16"), float16])
def test_names_of_the_dtype(dtype):
    with autocast(dtype):
        assert on()


@pytest.mark.parametrize("dtype", ["float32", "half", np.float64, tg.float32])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="must be 'float16' or 'bfloat16'.*enabled=False"):
        autocast(dtype)


def in_a_thread(question):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(question()))
    thread.start()
    thread.join()
    return answers[0]


def test_each_thread_has_its_own():
    with autocast():
        assert not in_a_thread(on)


def test_the_switch_of_the_process():
    try:
        precision.set_autocast_enabled(True)
        assert on() and in_a_thread(on) and precision.is_autocast_enabled()
        with autocast(enabled=False):
            assert not on()
        with autocast():
            precision.set_autocast_enabled(False)
            assert on()
        assert not on()
        precision.set_autocast_enabled(True, "bfloat16")
        assert precision.is_autocast_enabled() and not on()
    finally:
        precision.set_autocast_enabled(False)
    assert not on() and not in_a_thread(on)


# ---- the scaler -------------------------------------------------------------------------------------------


def scaled(scaler, gradient=1.0, w=None, optimizer=None, lr=1.0):
    """Make a gradient, which the scaler has scaled, for a parameter of its own."""
    w = tg.tensor([1.0, 2.0], requires_grad=True) if w is None else w
    optimizer = optim.SGD([w], lr=lr) if optimizer is None else optimizer
    optimizer.zero_grad()
    scaler.scale((w * tg.tensor([gradient, 1.0])).sum()).backward()
    return w, optimizer


def test_the_trace():
    scaler, scales, skipped = GradScaler(4.0, growth_interval=2), [], []
    w, optimizer = scaled(scaler, lr=0.1)
    for gradient in (1.0, math.inf, 1.0, 1.0):
        scaled(scaler, gradient, w, optimizer)
        before = w.tolist()
        scales.append(scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
        skipped.append(w.tolist() == before)
    assert scales == [4.0, 4.0, 2.0, 2.0] and scaler.get_scale() == 4.0
    assert skipped == [False, True, False, False] and optimizer.skipped == 1 and optimizer.step_count == 3


@pytest.mark.parametrize("options", [{}, {"growth_interval": 1}, {"init_scale": 2.0**126, "growth_interval": 1},
                                     {"growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 3}])
@pytest.mark.parametrize("explicit", [False, True])
@np.errstate(over="ignore")
def test_the_states_are_those_of_torch(options, explicit):
    torch = pytest.importorskip("torch")
    ours, theirs = GradScaler(**options), torch.amp.GradScaler("cpu", **options)
    w, p = tg.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    optimizer, reference = optim.SGD([w], lr=1e-3), torch.optim.SGD([p], lr=1e-3)
    for gradient in [1.0, 2.0, math.inf, 1.0, math.nan, 3.0, 1.0, 1.0, 1.0, -math.inf, 1.0, 1.0, 1.0, 1.0]:
        scaled(ours, gradient, w, optimizer)
        reference.zero_grad()
        theirs.scale((p * torch.tensor([gradient, 1.0])).sum()).backward()
        for scaler, stepped in ((ours, optimizer), (theirs, reference)):
            if explicit:
                scaler.unscale_(stepped)
            scaler.step(stepped)
            scaler.update()
        assert ours.state_dict() == theirs.state_dict()
        np.testing.assert_array_equal(w.detach().numpy(), p.detach().numpy())
        np.testing.assert_array_equal(w.grad.numpy(), p.grad.numpy())


def test_clipping_between_unscaling_and_stepping():
    scaler = GradScaler(1024.0)
    w, optimizer = scaled(scaler, 3.0)
    scaler.unscale_(optimizer)
    assert w.grad.tolist() == [3.0, 1.0]
    assert float(nn.utils.clip_grad_norm_([w], 1.0)) == pytest.approx(10 ** 0.5)
    assert scaler.step(optimizer) is None
    np.testing.assert_allclose(w.detach().numpy(), [1 - 3 / 10 ** 0.5, 2 - 1 / 10 ** 0.5], rtol=1e-5)


def test_large_gradients_are_no_overflow():
    """Their squares are infinite, they are not."""
    scaler = GradScaler(1.0)
    w, optimizer = scaled(scaler, 1e30)
    scaler.step(optimizer)
    assert w.tolist()[0] == pytest.approx(-1e30) and getattr(optimizer, "skipped", 0) == 0


def test_several_losses_and_optimizers():
    scaler = GradScaler(8.0)
    a, b = tg.tensor([1.0], requires_grad=True), tg.tensor([1.0], requires_grad=True)
    first, second = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0)
    losses = scaler.scale([(a * math.inf).sum(), (b * 0.5).sum()])
    assert isinstance(losses, list) and isinstance(scaler.scale((a,)), tuple)
    for loss in losses:
        loss.backward()
    scaler.step(first), scaler.step(second)
    scaler.update()
    assert (a.item(), b.item(), scaler.get_scale()) == (1.0, 0.5, 4.0)


def test_a_float16_loss_is_scaled_in_float32():
    loss = tg.tensor(3.0, dtype="float16", requires_grad=True)
    assert GradScaler().scale(loss).item() == 3 * 65536


def test_new_scale():
    scaler = GradScaler()
    scaled(scaler)
    scaler.update(16.0)
    assert scaler.get_scale() == 16.0
    scaler.update(tg.tensor(8.0))
    assert scaler.get_scale() == 8.0
    with pytest.raises(ValueError, match="new_scale must be a positive, finite float32; got -1.0"):
        scaler.update(-1.0)


def test_wrong_order_is_refused():
    scaler = GradScaler()
    w = tg.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=1.0)
    for method in (scaler.unscale_, scaler.step, lambda _: scaler.update()):
        with pytest.raises(RuntimeError, match="before scale()"):
            method(optimizer)
    scaled(scaler, w=w, optimizer=optimizer)
    with pytest.raises(RuntimeError, match="without a step"):
        scaler.update()
    with pytest.raises(RuntimeError, match="closure"):
        scaler.step(optimizer, lambda: None)
    with pytest.raises(RuntimeError, match="closure"):
        scaler.step(optimizer, closure=None)
    scaler.unscale_(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) after unscale_\(\) on the same"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) after step\(\) on the same"):
        scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"unscale_\(\) after step\(\) on the same"):
        scaler.unscale_(optimizer)
    scaler.update()
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="no parameter of this optimizer has a gradient"):
        scaler.step(optimizer)
    with pytest.raises(TypeError, match="takes a Tensor"):
        scaler.scale(3.0)


def test_float16_gradients_are_refused():
    class Holder:
        def __init__(self, p):
            self.param_groups = [{"params": [p]}]
    w = tg.tensor([1.0], dtype="float16", requires_grad=True)
    scaler = GradScaler(4.0)
    scaler.scale(w.sum()).backward()
    with pytest.raises(ValueError, match="float16 gradients cannot be unscaled"):
        scaler.step(Holder(w))


@pytest.mark.parametrize("options, match", [
    ({"init_scale": 0.0}, "scale must be a positive"), ({"init_scale": 1e39}, "scale"),
    ({"init_scale": math.nan}, "scale"), ({"growth_factor": 1.0}, r"growth_factor must be in \(1, inf\); got 1.0"),
    ({"backoff_factor": 1.0}, "backoff_factor"), ({"backoff_factor": 0.0}, "backoff_factor"),
    ({"growth_interval": 0}, "growth_interval"), ({"growth_interval": 2.5}, "growth_interval")])
def test_settings_out_of_range(options, match):
    with pytest.raises(ValueError, match=match):
        GradScaler(**options)


def test_a_loss_that_is_never_finite_ends_in_an_error():
    scaler = GradScaler(1e-37, backoff_factor=0.1)
    w, optimizer = scaled(scaler, math.nan)
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match="the loss itself is not finite"):
        scaler.update()
        scaled(scaler, math.nan, w, optimizer)
        scaler.step(optimizer)
        scaler.update()


def test_switched_off():
    scaler = GradScaler(enabled=False)
    w, optimizer = scaled(scaler)
    scaler.unscale_(optimizer)
    assert w.grad.tolist() == [1.0, 1.0]
    scaler.step(optimizer)
    scaler.update()
    scaler.load_state_dict({})
    assert w.tolist() == [0.0, 1.0]
    assert scaler.get_scale() == 1.0 and scaler.state_dict() == {} and not scaler.is_enabled()
    assert scaler.step(optimizer, lambda: 7.0) == 7.0


def test_saving_and_going_on():
    scaler = GradScaler(32.0, growth_interval=3)
    _, optimizer = scaled(scaler)
    scaler.step(optimizer)
    scaler.update()
    other = GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict() == {
        "scale": 32.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3, "_growth_tracker": 1}
    for twin in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert twin.state_dict() == scaler.state_dict()
    with pytest.raises(RuntimeError, match="enabled=False"):
        other.load_state_dict({})
    with pytest.raises(ValueError, match="a saved state has scale"):
        other.load_state_dict({"scale": 1.0})
    with pytest.raises(ValueError, match="backoff_factor"):
        other.load_state_dict({**scaler.state_dict(), "scale": 1.0, "backoff_factor": 3.0})
    assert other.state_dict() == scaler.state_dict()


# ---- training ---------------------------------------------------------------------------------------------


def test_gradients_that_underflow_and_those_that_do_not():
    """A tenth of a millionth in float16 is 0; times 65,536 it is not."""
    def slope(scaler):
        w = tg.tensor([[1.0]], requires_grad=True)
        optimizer = optim.SGD([w], lr=1.0)
        with autocast():
            loss = (tg.ones(1, 1) @ w).sum() * 1e-8
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        return w.grad.item()
    assert slope(GradScaler(enabled=False)) == 0.0
    assert slope(GradScaler()) == pytest.approx(1e-8, rel=1e-3)


def accuracy(dtype, init_scale=65536.0):
    tg.manual_seed(0)
    x, y = (a[:600] for a in tg.data.digits()[0].tensors)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer, scaler = optim.AdamW(model.parameters(), lr=0.01), GradScaler(init_scale, enabled=dtype == "float16")
    for _ in range(60):
        optimizer.zero_grad()
        with autocast(dtype, enabled=dtype is not None):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert loss.dtype == "float32"
    return (model(x).argmax(1) == y).numpy().mean(), getattr(optimizer, "skipped", 0)


def test_training_is_as_good_as_in_float32():
    plain, _ = accuracy(None)
    assert plain > 0.97
    for dtype in HALVES:
        reached, skipped = accuracy(dtype)
        assert abs(reached - plain) < 0.01 and skipped < 10
    with np.errstate(invalid="ignore"):                          # an infinity times 0
        reached, skipped = accuracy("float16", 2.0**40)          # the scale has to fall before anything is learned
    assert reached > 0.95 and 10 < skipped < 30
