"""Transforms: each is its function with its settings; the order of the list is what counts."""

import copy
import math
import pickle

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import gradients
from tinygrad_opt.optim import transforms
from tinygrad_opt.optim.transforms import (
    Centralize,
    ClipAGC,
    ClipBlockRMS,
    ClipNorm,
    ClipValue,
    Guard,
    Noise,
    Normalize,
    WeightDecay,
)


def named():
    """Return a matrix and a vector, with gradients, by name."""
    rng = np.random.default_rng(0)
    pairs = [(name, tg.Tensor(rng.normal(size=shape), requires_grad=True)) for name, shape in [("w", (2, 3)), ("b", 2)]]
    for _, p in pairs:
        p.grad = tg.Tensor(rng.normal(size=p.shape))
    return pairs


def values(pairs):
    return [p.grad.tolist() for _, p in pairs]


# the transform, its text, the same by the function before step t
TABLE = [(ClipNorm(0.5), "ClipNorm(max_norm=0.5, norm_type=2.0)", lambda p, t: gradients.clip_grad_norm_(p, 0.5)),
         (ClipNorm(0.5, math.inf), "ClipNorm(max_norm=0.5, norm_type=inf)",
          lambda p, t: gradients.clip_grad_norm_(p, 0.5, math.inf)),
         (ClipValue(0.1), "ClipValue(clip_value=0.1)", lambda p, t: gradients.clip_grad_value_(p, 0.1)),
         (ClipAGC(0.1, eps=0.5), "ClipAGC(clip_factor=0.1, eps=0.5)",
          lambda p, t: gradients.clip_grad_agc_(p, 0.1, 0.5)),
         (ClipAGC(), "ClipAGC(clip_factor=0.01, eps=0.001)", lambda p, t: gradients.clip_grad_agc_(p)),
         (ClipBlockRMS(0.1), "ClipBlockRMS(threshold=0.1)", lambda p, t: gradients.clip_grad_block_rms_(p, 0.1)),
         (Normalize(), "Normalize(scope='global')", lambda p, t: gradients.normalize_grad_(p)),
         (Normalize("tensor"), "Normalize(scope='tensor')", lambda p, t: gradients.normalize_grad_(p, "tensor")),
         (Centralize(), "Centralize()", lambda p, t: gradients.centralize_grad_(p)),
         (Noise(0.1, 0.5, tg.Generator(7)), "Noise(eta=0.1, gamma=0.5)",
          lambda p, t: gradients.add_grad_noise_(p, t - 1, 0.1, 0.5, tg.Generator(7))),
         (WeightDecay(0.1), "WeightDecay(weight_decay=0.1)", lambda p, t: gradients.add_weight_decay_(p, 0.1))]


@pytest.mark.parametrize("transform, text, act", TABLE, ids=[text for _, text, _ in TABLE])
def test_each_is_its_function_and_says_its_settings(transform, text, act):
    ours, theirs, before = named(), named(), values(named())
    assert copy.deepcopy(transform)(ours, 5) is None
    act(theirs, 5)
    assert values(ours) == values(theirs) != before
    assert repr(transform) == repr(pickle.loads(pickle.dumps(transform))) == text


def test_the_table_is_complete():
    assert {type(transform).__name__ for transform, _, _ in TABLE} | {"Guard"} == set(transforms.__all__)


@pytest.mark.parametrize("make, name", [
    (lambda: ClipNorm(0), "max_norm"), (lambda: ClipNorm(1, -1), "norm_type"), (lambda: ClipValue(-1.0), "clip_value"),
    (lambda: ClipAGC(0), "clip_factor"), (lambda: ClipAGC(eps=0), "eps"), (lambda: ClipBlockRMS(0.0), "threshold"),
    (lambda: Normalize("all"), "scope"), (lambda: Noise(eta=0), "eta"), (lambda: Noise(gamma=-1), "gamma"),
    (lambda: Guard(math.nan), "limit"), (lambda: WeightDecay(-0.1), "weight_decay")])
def test_settings_are_checked_when_it_is_made(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_noise_starts_at_eta():
    p = tg.zeros(40_000, requires_grad=True)
    for t, variance in [(1, 0.3), (16, 0.3 / 16 ** 0.55)]:
        p.grad = tg.zeros(40_000)
        Noise(generator=tg.Generator(t))([("p", p)], t)
        assert p.grad.numpy().var() == pytest.approx(variance, rel=0.05)


def test_a_guard_warns_the_first_time_it_acts():
    p = tg.tensor([2.0, 1.0], requires_grad=True)
    guard, other = Guard(), Guard(5.0)
    assert repr(guard) == "Guard(limit=1000000.0)"

    def after(gradient, transform):
        p.grad = tg.tensor(gradient)
        transform([("p", p)], 1)
        return p.grad.tolist()
    assert after([7.0, math.inf], guard) == [7.0, math.inf]
    with pytest.warns(RuntimeWarning, match=r"'p' has entries beyond 1e\+06"):
        assert after([-1e7, 1.0], guard) == [-1e6, 1.0]
    assert after([-1e7, 1.0], guard) == [-1e6, 1.0]                # in silence
    with pytest.warns(RuntimeWarning, match="'p' has entries beyond 5"):
        assert after([-1e7, 1.0], other) == [-5.0, 1.0]


def test_an_optimizer_runs_them_in_their_order():
    def moved(*chain):
        p = tg.Tensor(np.zeros((1, 2)), requires_grad=True)
        optimizer = tg.optim.SGD([("p", p)], lr=1.0, grad_transforms=list(chain))
        p.grad = tg.Tensor(np.array([[1.0, 7.0]]))
        optimizer.step()
        return p.numpy()
    np.testing.assert_allclose(moved(Centralize(), ClipValue(2.0)), [[2.0, -2.0]])
    np.testing.assert_allclose(moved(ClipValue(2.0), Centralize()), [[0.5, -0.5]])
    np.testing.assert_allclose(moved(), [[-1.0, -7.0]])
