"""Every optimizer against its paper, against PyTorch, and against recorded paths of reference implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
from _optimizers import NAMES, each, each_name, each_of, make, parameters
from _papers import PAPERS

import tinygrad_opt as tg
from tinygrad_opt import optim

GRADS = [0.5, -1.25, 2.0, 0.125, -0.75, 3.0, -0.01, 0.0, 1e-5, -2.5] * 2


def test_every_optimizer_has_a_paper():
    assert set(PAPERS) == set(NAMES)


@each
def test_paper_oracle(name, options):
    x = tg.tensor(1.5, requires_grad=True, dtype=tg.float64)
    optimizer = make(name, options, [x])
    for g in GRADS:
        x.grad = np.float64(g)
        optimizer.step()
    assert x.item() == pytest.approx(PAPERS[name](1.5, GRADS, 0.05, **options), rel=1e-12)


@each
def test_the_oracle_can_fail(name, options):
    right, wrong = (PAPERS[name](1.5, GRADS, lr, **options) for lr in (0.05, 0.06))
    assert right != pytest.approx(wrong, rel=1e-6)


TORCH = ["SGD", "ASGD", "Adagrad", "Adadelta", "RMSprop", "Rprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


@pytest.fixture
def torch():
    """PyTorch, whose scalar state is double only where its default dtype is."""
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(torch.float32)


@each_of(TORCH)
def test_torch_parity(name, options, torch):
    mine, theirs = parameters(), [torch.tensor(p.numpy(), requires_grad=True) for p in parameters()]
    a = make(name, options, mine)
    b = getattr(torch.optim, name)(theirs, lr=0.05, **options)
    random = np.random.default_rng(1)
    for step in range(50):
        for k, (p, q) in enumerate(zip(mine, theirs)):
            g = np.asarray(random.standard_normal(p.shape))
            skip = k == 1 and step % 5 == 2                   # a gradient that is sometimes missing
            p.grad = None if skip else tg.Tensor(g)
            q.grad = None if skip else torch.tensor(g)
        a.step()
        b.step()
    for p, q in zip(mine, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=1e-10)
    for p, q in zip(mine, theirs):
        assert set(a.state[p]) - {"step"} == set(b.state[q]) - {"step"}
        for key, value in b.state[q].items():
            np.testing.assert_allclose(np.asarray(a.state[p][key]), value.numpy(), atol=1e-10)


ORACLES = Path(__file__).parents[2] / "shared" / "oracles"
LOSSES = {
    "P1": lambda d, W, b: ((tg.tanh(d["X"] @ W + b) - d["Y"]) ** 2).mean(),
    "P2": lambda d, x: 0.5 * (x - d["c"]) @ d["A"] @ (x - d["c"]),
    "P3": lambda d, x: (d["a"] * (x - d["c"]) ** 2 / 2 + (x - d["c"]) ** 4 / 4).sum(),
    "P4": lambda d, M: ((d["L"] @ M @ d["R"] - d["C"]) ** 2).mean(),
}


@pytest.mark.skipif(not ORACLES.exists(), reason="the recorded trajectories are not beside this checkout")
@each_name
def test_recorded_trajectories(name):
    """Trained by our own gradients, step by step where the reference implementation went."""
    problems = json.loads((ORACLES / "problems.json").read_text())["problems"]
    for record in json.loads((ORACLES / f"{name}.json").read_text())["records"]:
        problem, loss = problems[record["problem"]], LOSSES[record["problem"]]
        data = {key: tg.Tensor(np.array(value)) for key, value in problem["data"].items()}
        params = {key: tg.Tensor(np.array(value), requires_grad=True) for key, value in problem["start"].items()}
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in record["kwargs"].items()}
        optimizer = getattr(optim, name)([params[key] for key in record["params"]], **options)
        for step in range(record["steps"][-1] + 1):
            if step in record["steps"]:
                for key, values in record["params"].items():
                    np.testing.assert_allclose(params[key].numpy(), values[record["steps"].index(step)], rtol=1e-9,
                                               atol=record["tolerance"], err_msg=f"{record['id']}, step {step}")
            optimizer.zero_grad()
            loss(data, **params).backward()
            optimizer.step()
