"""Losses as modules: their options, their state, and the formulas, each written down a second time."""

import pickle

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn

random = np.random.default_rng(0)
X, Y = random.standard_normal((4, 3)), random.standard_normal((4, 3))
P, Q = 1 / (1 + np.exp(-X)), 1 / (1 + np.exp(-Y))
LABELS, SIGNS = np.array([0, 2, 1, 2]), np.where(Y > 0, 1.0, -1.0)
WEIGHT, ROWS = np.array([0.2, 1.0, 3.0]), np.arange(4)
LOGP = X - np.log(np.exp(X).sum(1, keepdims=True))
SHARES = np.exp(Y) / np.exp(Y).sum(1, keepdims=True)
HINGE = np.maximum(0, 0.5 - X[ROWS, LABELS][:, None] + X)
HINGE[ROWS, LABELS] = 0
D = np.abs(X - Y)
COSINE = (X * Y).sum(-1) / np.linalg.norm(X, axis=-1) / np.linalg.norm(Y, axis=-1)


def picked(logp, weight):
    return -(weight[LABELS] * logp[ROWS, LABELS]), weight[LABELS].sum()


# The module, its inputs, and the losses with what their sum is divided by for the mean.
TABLE = {
    "MSELoss": (nn.MSELoss, {}, (X, Y), (X - Y) ** 2, 12),
    "L1Loss": (nn.L1Loss, {}, (X, Y), D, 12),
    "HuberLoss": (nn.HuberLoss, {"delta": 0.7}, (X, Y), np.where(D < 0.7, D * D / 2, 0.7 * (D - 0.35)), 12),
    "SmoothL1Loss": (nn.SmoothL1Loss, {"beta": 0.7}, (X, Y), np.where(D < 0.7, D * D / 1.4, D - 0.35), 12),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {"weight": WEIGHT}, (X, LABELS), *picked(LOGP, WEIGHT)),
    "CrossEntropyLoss-shares": (nn.CrossEntropyLoss, {}, (X, SHARES), -(SHARES * LOGP).sum(1), 4),
    "CrossEntropyLoss-smoothed": (nn.CrossEntropyLoss, {"label_smoothing": 0.3}, (X, LABELS),
                                  -(0.7 * LOGP[ROWS, LABELS] + 0.1 * LOGP.sum(1)), 4),
    "CrossEntropyLoss-ignored": (nn.CrossEntropyLoss, {"ignore_index": 2}, (X, LABELS),
                                 np.where(LABELS == 2, 0, -LOGP[ROWS, LABELS]), 2),
    "NLLLoss": (nn.NLLLoss, {"weight": WEIGHT}, (LOGP, LABELS), *picked(LOGP, WEIGHT)),
    "BCELoss": (nn.BCELoss, {"weight": WEIGHT}, (P, Q),
                -WEIGHT * (Q * np.log(P) + (1 - Q) * np.log(1 - P)), 12),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, {"pos_weight": WEIGHT}, (X, Q),
                          -(WEIGHT * Q * np.log(P) + (1 - Q) * np.log(1 - P)), 12),
    "KLDivLoss": (nn.KLDivLoss, {}, (LOGP, SHARES), SHARES * (np.log(SHARES) - LOGP), 12),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss, {"margin": 0.5}, (X, SIGNS),
                           np.where(SIGNS == 1, X, np.maximum(0, 0.5 - X)), 12),
    "MarginRankingLoss": (nn.MarginRankingLoss, {"margin": 0.5}, (X, Y, SIGNS),
                          np.maximum(0, 0.5 - SIGNS * (X - Y)), 12),
    "CosineEmbeddingLoss": (nn.CosineEmbeddingLoss, {"margin": -0.5}, (X, Y, SIGNS[:, 0]),
                            np.where(SIGNS[:, 0] == 1, 1 - COSINE, np.maximum(0, COSINE + 0.5)), 4),
    "SoftMarginLoss": (nn.SoftMarginLoss, {}, (X, SIGNS), np.log1p(np.exp(-SIGNS * X)), 12),
    "TripletMarginLoss": (nn.TripletMarginLoss, {"p": 1.0, "eps": 0.0}, (X, Y, P),
                          np.maximum(0, 1 + np.abs(X - Y).sum(1) - np.abs(X - P).sum(1)), 4),
    "MultiMarginLoss": (nn.MultiMarginLoss, {"p": 2, "margin": 0.5}, (X, LABELS), (HINGE ** 2).sum(1) / 3, 4),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, {}, (X, Q), np.exp(X) - Q * X, 12),
    "GaussianNLLLoss": (nn.GaussianNLLLoss, {}, (X, Y, P), (np.log(P) + (X - Y) ** 2 / P) / 2, 12),
}
each = pytest.mark.parametrize("cls, options, inputs, losses, count", TABLE.values(), ids=TABLE)


def test_the_table_is_complete():
    assert {name for name in vars(nn) if name.endswith("Loss")} == {name.partition("-")[0] for name in TABLE}


@each
def test_the_module_computes_its_formula_under_every_reduction(cls, options, inputs, losses, count):
    tensors = [tg.Tensor(x) for x in inputs]
    for reduction, expected in (("none", losses), ("sum", losses.sum()), ("mean", losses.sum() / count)):
        y = cls(**options, reduction=reduction)(*tensors)
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert cls(**options)(*tensors).item() == y.item()


@each
def test_gradients_reach_the_input_and_are_right_to_second_order(cls, options, inputs, losses, count):
    tg.check_grads(lambda x: cls(**options)(x, *map(tg.Tensor, inputs[1:])), tg.Tensor(inputs[0]), order=2)


@each
def test_options_are_attributes_that_survive_copies(cls, options, inputs, losses, count):
    module = pickle.loads(pickle.dumps(cls(**options)))
    assert module(*map(tg.Tensor, inputs)).item() == cls(**options)(*map(tg.Tensor, inputs)).item()
    assert list(module.state_dict()) == [name for name in options if name.endswith("weight")]
    assert module.reduction == "mean" and not list(module.parameters())
    module.reduction = "sum"
    assert module(*map(tg.Tensor, inputs)).item() == pytest.approx(losses.sum(), rel=1e-12)
    assert repr(cls()) == f"{cls.__name__}()" and "reduction='sum'" in repr(module)


def test_a_class_weight_is_a_buffer_that_can_be_loaded_and_converted():
    loss = nn.CrossEntropyLoss([1.0, 2.0])
    loss.load_state_dict({"weight": np.array([3.0, 4.0])})
    assert loss.double().weight.tolist() == [3.0, 4.0] and loss.weight.dtype == tg.float64
    assert nn.CrossEntropyLoss().weight is None


@pytest.mark.parametrize("act, error, words", [
    (lambda: nn.MSELoss(size_average=True), TypeError, "unexpected keyword argument 'size_average'"),
    (lambda: nn.MSELoss(reduction="average")(tg.ones(2), tg.ones(2)), ValueError, "'average'"),
    (lambda: nn.MSELoss()(tg.ones(2), tg.ones(2, 1)), ValueError, r"shape \(2, 1\), it must be \(2,\)"),
    (lambda: nn.CrossEntropyLoss()(tg.ones(2, 3), tg.tensor([0, 3])), IndexError, "run from 0 to 2"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=2.0)(tg.ones(1, 3), tg.tensor([0])), ValueError, "2.0"),
])
def test_bad_input_says_what_is_wrong(act, error, words):
    with pytest.raises(error, match=words):
        act()
