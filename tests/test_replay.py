"""A replay is the step once more, line by line: it ends at the parameter that the step wrote, to the bit."""

import copy

import numpy as np
import pytest
from _optimizers import each, make, parameters, step

import tinygrad_opt as tg
from tinygrad_opt.optim.plan import SMALL
from tinygrad_opt.optim.replay import replays, stepping


def close(a, b):
    """Equal, to the bit where the host computes both."""
    assert np.shape(a) == np.shape(b)
    if tg.backend.name == "cupy":
        np.testing.assert_allclose(a, b, rtol=1e-5)
    else:
        np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each
def test_it_ends_where_the_step_did(name, options, dtype):
    params = parameters(dtype, name=name)
    optimizer, random = make(name, options, params), np.random.default_rng(1)
    optimizer._remembers = True
    for k in range(4):
        for p in params:
            p.grad = tg.Tensor(np.asarray(random.standard_normal(p.shape)).astype(dtype))
        before, gradients = [p.numpy().copy() for p in params], [p.grad.numpy().copy() for p in params]
        step(optimizer)
        seen = dict(replays(optimizer))
        assert len(seen) == (0 if name == "SOAP" and k == 0 else sum(p.numel() > 0 for p in params))
        for p, was, g in zip(params, before, gradients):
            if p in seen:
                close(seen[p].before["p"], was)
                close(seen[p].before["g"], g)
                close(seen[p].after["p"], p.numpy())


def test_every_line_has_its_formula_and_its_value():
    w = tg.tensor([1.0, -2.0], requires_grad=True)
    optimizer = tg.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    w.grad = tg.tensor([0.5, 0.5])
    optimizer.step()
    (p, replay), = replays(optimizer)
    assert [moment.formula for moment in replay.moments] == optimizer.formula("text").splitlines()
    assert [moment.target for moment in replay.moments] == ["p", "m", "v", "m_hat", "v_hat", "p"]
    np.testing.assert_allclose(replay.after["m_hat"], [0.5, 0.5])
    assert replay.before["t"] == 1 and replay.before["lr"] == 0.1
    np.testing.assert_allclose(replay.moments[0].value, [0.95, -1.9], rtol=1e-6)


def test_numbers_of_a_rule_are_numbers():
    w = tg.ones(2, 3, requires_grad=True)
    optimizer = tg.optim.LAMB([w], lr=0.1)
    w.grad = tg.ones(2, 3)
    optimizer.step()
    (_, replay), = replays(optimizer)
    numbers = {name for name, value in replay.after.items() if isinstance(value, float)}
    assert {"lr", "beta1", "total0"} <= numbers and replay.after["m"].shape == (2, 3)


def test_state_that_a_line_reads_is_that_of_before():
    w = tg.tensor([1.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1, momentum=0.5)
    for g in (1.0, 2.0):
        w.grad = tg.tensor([g])
        optimizer.step()
    (_, replay), = replays(optimizer)
    assert replay.before["b"] == 1.0 and replay.after["b"] == 2.5
    assert replay.before["p"] == np.float32(0.9)


def test_large_groups_are_remembered_only_when_asked():
    w = tg.ones(SMALL + 1, requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)
    w.grad = tg.ones(SMALL + 1)
    optimizer.step()
    assert list(replays(optimizer)) == []
    optimizer._remembers = True
    optimizer.step()
    assert len(list(replays(optimizer))) == 1


def test_half_precision_is_replayed_on_the_master():
    w = tg.tensor(np.array([1.0, 2.0], "float16"), requires_grad=True)
    optimizer = tg.optim.Adam([w], lr=0.1)
    w.grad = tg.tensor(np.array([0.5, 0.25], "float16"))
    optimizer.step()
    (_, replay), = replays(optimizer)
    assert replay.after["p"].dtype == "float32"
    close(replay.after["p"].astype("float16"), w.numpy())


def test_wrappers_are_looked_into():
    w = tg.tensor([3.0, 4.0], requires_grad=True)
    inner = tg.optim.SGD([w], lr=0.1)
    optimizer = tg.optim.Lookahead(tg.optim.ApplyIfFinite(inner))
    assert stepping(optimizer) == [inner]
    optimizer._remembers = True
    assert inner._remembers


def test_a_copy_of_an_optimizer_remembers_by_itself():
    w = tg.tensor([1.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)
    w.grad = tg.tensor([1.0])
    optimizer.step()
    other = copy.deepcopy(optimizer)
    assert list(replays(other)) == [] and len(list(replays(optimizer))) == 1


def test_remembering_changes_no_bit():
    runs = []
    for remembers in (False, True):
        params = [tg.Tensor(np.linspace(-1, 1, 400), requires_grad=True)]
        optimizer = tg.optim.NAdam(params, lr=0.1)
        optimizer._remembers = remembers
        for _ in range(5):
            params[0].grad = params[0] * params[0]
            optimizer.step()
        runs.append(params[0].numpy())
    np.testing.assert_array_equal(*runs)
