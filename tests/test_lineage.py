"""The family tree holds: each edge is walked from both ends."""

import numpy as np
import pytest
from _optimizers import SHAPES

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim import lineage
from tinygrad_opt.optim.lineage import CONSTANT_NADAM, CORRECTED_RMSPROP, EDGES, FULL_ADAGRAD, ROOTS
from tinygrad_opt.optim.verify import driver
from tinygrad_opt.rule import sqrt


@optim.from_rule(lr=1e-3, alpha=0.99, eps=1e-8)
def CorrectedRMSprop(p, g, v, t, lr, alpha, eps):
    v = alpha * v + (1 - alpha) * g ** 2
    p = p - lr * g / (sqrt(v / (1 - alpha ** t)) + eps)
    return p, v


@optim.from_rule(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
def ConstantNAdam(p, g, m, v, t, lr, beta1, beta2, eps):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    m_hat = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1 ** t)
    p = p - lr * m_hat / (sqrt(v / (1 - beta2 ** t)) + eps)
    return p, m, v


class FullMatrixAdagrad:
    """p - lr (eps I + sum g g^T)^(-1/2) g, on the host."""

    def __init__(self, params, lr, eps=1e-4):
        self.params, self.lr = params, lr
        self.sums = [eps * np.eye(len(p)) for p in params]

    def step(self):
        for p, total in zip(self.params, self.sums):
            g = p.grad.numpy()
            total += np.outer(g, g)
            values, vectors = np.linalg.eigh(total)
            p.data -= tg.backend.asarray(self.lr * vectors @ (vectors.T @ g / np.sqrt(values)))


OUTSIDE = {CORRECTED_RMSPROP: CorrectedRMSprop, CONSTANT_NADAM: ConstantNAdam, FULL_ADAGRAD: FullMatrixAdagrad}
WRAPPERS = {"SAM", "Lookahead"}

# What an edge says of its parameters and gradients after `where`; nothing is said of all shapes and random numbers.
ONLY = {"on vectors": [(3,), (7,)], "on a number": [(1,)], "on wide matrices": [(4, 5), (3, 3)]}
START = {"on a number": np.ones_like, "while parameters outweigh their step": lambda p: 100 * p}
GRADIENT = {"while gradients keep their signs": lambda g, t: [abs(a) for a in g],
            "where the first gradient has norm 1": lambda g, t: [a / norm(g) for a in g] if t == 1 else g}
LATE, PLAINLY = "from the second step on", "while there is no estimate of the curvature"


def norm(arrays):
    return np.sqrt(sum((a ** 2).sum() for a in arrays))


def path(name, options, where, late=False):
    """Where an optimizer goes in 50 steps of random gradients; a late one misses the first."""
    random = np.random.default_rng(0)
    shapes = ONLY.get(where, SHAPES)
    starts = [np.asarray(random.standard_normal(shape)) for shape in shapes]
    params = [tg.Tensor(START.get(where, np.copy)(start), requires_grad=True) for start in starts]
    now = []

    def gradients():
        for p, g in zip(params, now):
            p.grad = tg.Tensor(g)
        return tg.Tensor(1.0)

    cls = OUTSIDE.get(name) or getattr(optim, name)
    common = {} if "max_lr" in options else {"lr": 0.05}
    _, step = driver(name)(cls, params, {**common, **options}, gradients)
    for t in range(1, 51):
        now[:] = GRADIENT.get(where, lambda g, t: g)([np.asarray(random.standard_normal(shape)) for shape in shapes], t)
        if not (late and t == 1):
            step(t)
    return [p.numpy() for p in params]


def walk(edge):
    ours = path(edge.name, edge.options, edge.where)
    theirs = path(edge.other, edge.others, edge.where, late=edge.where == LATE)
    return list(zip(ours, theirs))


each_edge = pytest.mark.parametrize("edge", EDGES, ids=[f"{e.name}-{'-'.join(e.options)}" for e in EDGES])


@each_edge
def test_an_edge_holds(edge):
    for ours, theirs in walk(edge):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=0 if edge.exact else 1e-12)


@each_edge
def test_an_edge_is_walked_far_enough_to_fail(edge):
    wrong = path(edge.other, {**edge.others, "lr": 0.06}, edge.where)
    assert any(abs(ours - theirs).max(initial=0) > 1e-3 for (ours, _), theirs in zip(walk(edge), wrong))


def test_every_optimizer_has_its_place():
    placed = {*ROOTS, *(edge.name for edge in EDGES)}
    assert placed == set(optim.OPTIMIZERS) | WRAPPERS
    assert {edge.other for edge in EDGES} - set(OUTSIDE) <= set(optim.OPTIMIZERS)
    assert set(ROOTS).isdisjoint(edge.name for edge in EDGES)


def test_every_edge_says_what_and_where():
    assert {edge.where for edge in EDGES} - {""} <= {*ONLY, *START, *GRADIENT, LATE, PLAINLY}
    assert len({(edge.name, edge.words) for edge in EDGES}) == len(EDGES)


def test_the_lineage_of_adamw():
    said = str(lineage("adam_w"))
    assert said.splitlines()[:2] == ["AdamW = Adam + decoupled decay", "    AdamW(weight_decay=0) is Adam(), exactly"]
    assert "AdEMAMix = AdamW + a slow mean of the gradients" in said
    assert [edge.name for edge in lineage("AdamW")][0] == "AdamW"


def test_a_root_says_what_it_is():
    assert str(lineage("SGD")).startswith("SGD = the gradient\nASGD = SGD + ")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no optimizer in the family tree named 'adamm'; the nearest are Adam, "):
        lineage("adamm")
