"""Parity with torch: the same weights give the same outputs, gradients and names; the same defaults."""

import inspect

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn

torch = pytest.importorskip("torch")

random = np.random.default_rng(0)
X2, X3 = random.standard_normal((6, 4)), random.standard_normal((6, 4, 5))
WORDS = random.integers(0, 7, (3, 5))

# Layers by name, with arguments and an input; both libraries build them from the same call.
LAYERS = [
    ("Linear", (4, 3), {}, X2), ("Linear", (5, 3), {"bias": False}, X3), ("LayerNorm", (4,), {}, X2),
    ("LayerNorm", ((4, 5),), {"bias": False, "eps": 0.1}, X3), ("RMSNorm", (4,), {}, X2),
    ("RMSNorm", ((4, 5),), {"eps": 0.1, "elementwise_affine": False}, X3), ("BatchNorm1d", (4,), {}, X2),
    ("BatchNorm1d", (4,), {"momentum": None, "eps": 0.1}, X3), ("BatchNorm1d", (4,), {"affine": False}, X2),
    ("BatchNorm1d", (4,), {"track_running_stats": False}, X3), ("Embedding", (7, 3), {}, WORDS),
    ("Embedding", (7, 3), {"padding_idx": -2}, WORDS), ("PReLU", (), {}, X2), ("PReLU", (4, 0.1), {}, X3),
    ("Flatten", (), {}, X3), ("Unflatten", (1, (2, 2)), {}, X3), ("Identity", (), {}, X2),
]
ACTIVATIONS = [
    ("CELU", {"alpha": 0.5}), ("ELU", {}), ("GELU", {}), ("GELU", {"approximate": "tanh"}), ("GLU", {}),
    ("Hardshrink", {}), ("Hardsigmoid", {}), ("Hardswish", {}), ("Hardtanh", {}), ("LeakyReLU", {}),
    ("LogSigmoid", {}), ("Mish", {}), ("ReLU", {}), ("ReLU6", {}), ("SELU", {}), ("Sigmoid", {}),
    ("SiLU", {}), ("Softplus", {"beta": 2.0}), ("Softshrink", {}), ("Softsign", {}), ("Tanh", {}),
    ("Tanhshrink", {}), ("Threshold", {"threshold": 0.1, "value": 20.0}), ("Softmax", {"dim": 1}),
    ("LogSoftmax", {"dim": -1}), ("Softmin", {"dim": 0}), ("GLU", {"dim": 0}),
]
POSITIVE = np.abs(X2) + 0.1
SHARES = np.exp(X2) / np.exp(X2).sum(1, keepdims=True)
SIGNS, LABELS = np.where(X2 > 0, 1.0, -1.0), np.array([0, 3, 1, 2, 3, 0])
OTHER, WEIGHT = random.standard_normal((6, 4)), np.array([0.5, 1.0, 2.0, 3.0])
LOSSES = [
    ("MSELoss", {}, (X2, OTHER)), ("L1Loss", {}, (X2, OTHER)), ("HuberLoss", {"delta": 0.3}, (X2, OTHER)),
    ("SmoothL1Loss", {"beta": 0.3}, (X2, OTHER)), ("CrossEntropyLoss", {}, (X2, LABELS)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": 3}, (X2, LABELS)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.2}, (X2, SHARES)),
    ("CrossEntropyLoss", {"weight": WEIGHT}, (X3, LABELS[:, None] * np.ones(5, "int64"))),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 0}, (X2, LABELS)),
    ("BCELoss", {"weight": WEIGHT}, (SHARES, SHARES)),
    ("BCEWithLogitsLoss", {"weight": WEIGHT, "pos_weight": WEIGHT}, (X2, SHARES)),
    ("KLDivLoss", {"log_target": True}, (X2, OTHER)), ("KLDivLoss", {"reduction": "batchmean"}, (X2, SHARES)),
    ("HingeEmbeddingLoss", {}, (X2, SIGNS)), ("MarginRankingLoss", {"margin": 0.2}, (X2, OTHER, SIGNS)),
    ("CosineEmbeddingLoss", {"margin": -0.2}, (X2, OTHER, SIGNS[:, 0])), ("SoftMarginLoss", {}, (X2, SIGNS)),
    ("TripletMarginLoss", {"swap": True}, (X2, OTHER, SHARES)), ("MultiMarginLoss", {"p": 2}, (X2, LABELS)),
    ("MultiMarginLoss", {"margin": 0.5, "weight": WEIGHT}, (X2, LABELS)),
    ("PoissonNLLLoss", {"full": True}, (X2, POSITIVE * 3)),
    ("PoissonNLLLoss", {"log_input": False}, (POSITIVE, POSITIVE)),
    ("GaussianNLLLoss", {"full": True}, (X2, OTHER, POSITIVE)),
]


def same(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


def both(x):
    """The same array as a Tensor of each library, requiring a gradient where it can."""
    learns = x.dtype.kind == "f"
    return tg.Tensor(x, requires_grad=learns), torch.tensor(x, requires_grad=learns)


def match(ours, theirs, first, *others, tolerance=1e-10):
    """Hold results and gradients of both modules to each other."""
    a, b = both(first)
    y, z = ours(a, *map(tg.Tensor, others)), theirs(b, *map(torch.tensor, others))
    same(y, z, tolerance)
    if y.requires_grad:
        slopes = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(slopes)
        z.backward(torch.tensor(slopes))
    if a.requires_grad:
        same(a.grad, b.grad, tolerance)
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        same(p.grad, q.grad, tolerance)


def cases(table):
    return pytest.mark.parametrize("case", table, ids=[f"{case[0]}-{k}" for k, case in enumerate(table)])


@cases(LAYERS)
def test_layers_load_torchs_state_and_compute_the_same(case):
    name, args, options, x = case
    ours, theirs = (getattr(library, name)(*args, **options).double() for library in (nn, torch.nn))
    assert repr(ours) == repr(theirs)
    for parameter in theirs.parameters():
        with torch.no_grad():
            parameter.add_(torch.rand_like(parameter))
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state) and ours.load_state_dict(state) == ([], [])
    for _ in range(2):
        match(ours, theirs, x)
        ours.zero_grad()
        theirs.zero_grad()
    for key, value in theirs.state_dict().items():
        same(ours.state_dict()[key], value)
    match(ours.eval(), theirs.eval(), x)


@cases(ACTIVATIONS)
def test_activations_compute_the_same(case):
    name, options = case
    tolerance = 1e-7 if name == "Hardsigmoid" else 1e-10                 # torch keeps its 1/6 in float32
    match(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), X2 * 3, tolerance=tolerance)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")          # torch's advice on KLDivLoss
@cases(LOSSES)
def test_losses_compute_the_same(case):
    name, options, inputs = case
    for reduction in ("mean", "sum", "none") if "reduction" not in options else ("batchmean",):
        options = {**options, "reduction": reduction}
        tensors = {key: torch.tensor(x) if key.endswith("weight") else x for key, x in options.items()}
        match(getattr(nn, name)(**options), getattr(torch.nn, name)(**tensors), *inputs)


# Torch's arguments that have no meaning here, or are on their way out there, and ours that torch has not.
LEFT_OUT = {"inplace", "device", "size_average", "reduce", "min_value", "max_value", "max_norm", "norm_type",
            "scale_grad_by_freq", "sparse", "_weight", "_freeze", "args", "kwargs", "dtype", "generator"}


@pytest.mark.parametrize("name", sorted({"Dropout", *(case[0] for case in LAYERS + ACTIVATIONS + LOSSES)}))
def test_arguments_have_torchs_names_order_and_defaults(name):
    def arguments(cls):
        parameters = inspect.signature(cls).parameters.values()
        return [(p.name.replace("axis", "dim"), p.default) for p in parameters if p.name not in LEFT_OUT]

    ours, theirs = arguments(getattr(nn, name)), arguments(getattr(torch.nn, name))
    if name in ("Softmax", "LogSoftmax", "Softmin"):                     # torch guesses the axis, and warns
        theirs = [("dim", -1)]
    assert ours == theirs


def test_a_whole_network_carries_over():
    def build(library):
        block = library.Sequential(library.Linear(8, 3), library.BatchNorm1d(3))
        return library.Sequential(library.Embedding(7, 4), library.Flatten(), library.Linear(20, 8),
                                  library.LayerNorm(8), library.GELU(), block)
    ours, theirs = build(nn), build(torch.nn)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict(theirs.state_dict())
    same(ours(tg.Tensor(WORDS)), theirs(torch.tensor(WORDS)), 1e-5)
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_scales_the_same(norm_type, max_norm):
    pairs = [both(x) for x in (X2, X3)]
    for (a, b), x in zip(pairs, (X2, X3)):
        a.grad, b.grad = tg.Tensor(x * 2), torch.tensor(x * 2)
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    totals = [library.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
              for library, parameters in ((tg, ours), (torch, theirs))]
    assert totals[0] == pytest.approx(float(totals[1]), rel=1e-12)
    for a, b in pairs:
        same(a.grad, b.grad)
    nn.utils.clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for a, b in pairs:
        same(a.grad, b.grad)


@pytest.mark.parametrize("nonlinearity", ["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains_are_the_same(nonlinearity):
    assert nn.init.calculate_gain(nonlinearity) == torch.nn.init.calculate_gain(nonlinearity)
