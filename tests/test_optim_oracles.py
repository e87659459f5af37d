"""Every optimizer against its paper, against PyTorch, and against recorded paths of reference implementations."""

import _papers
import numpy as np
import pytest
from _optimizers import NAMES, each, each_of, make, parameters, step

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim.verify import recorded, records, replay

GRADS = [0.5, -1.25, 2.0, 0.125, -0.75, 3.0, -0.01, 0.0, 1e-5, -2.5] * 2


def test_every_optimizer_has_a_paper():
    assert [name for name in NAMES if not hasattr(_papers, name.lower())] == []


@each
def test_paper_oracle(name, options):
    x = tg.full({"Muon": (1, 1), "Shampoo": (1,)}.get(name, ()), 1.5, requires_grad=True, dtype=tg.float64)
    optimizer = make(name, options, [x])
    for g in GRADS:
        x.grad = np.full(x.shape, g)
        step(optimizer)
    assert x.item() == pytest.approx(getattr(_papers, name.lower())(1.5, GRADS, 0.05, **options), rel=1e-12)


@each
def test_the_oracle_can_fail(name, options):
    right, wrong = (getattr(_papers, name.lower())(1.5, GRADS, lr, **options) for lr in (0.05, 0.06))
    assert right != pytest.approx(wrong, rel=1e-11)


TORCH = ["SGD", "ASGD", "Adagrad", "Adadelta", "RMSprop", "Rprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
         "Adafactor"]


@pytest.fixture
def torch():
    """PyTorch, whose scalar state is double only where its default dtype is."""
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(torch.float32)


@each_of(TORCH)
def test_torch_parity(name, options, torch):
    mine = parameters()[:4 if name == "Adafactor" else None]                  # torch divides by the size of one
    theirs = [torch.tensor(p.numpy(), requires_grad=True) for p in mine]
    a = make(name, options, mine)
    b = getattr(torch.optim, name)(theirs, lr=0.05, **options)
    random = np.random.default_rng(1)
    for n in range(50):
        for k, (p, q) in enumerate(zip(mine, theirs)):
            g = np.asarray(random.standard_normal(p.shape))
            skip = k == 1 and n % 5 == 2                   # a gradient that is sometimes missing
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


LOSSES = {
    "P1": lambda d, W, b: ((tg.tanh(d["X"] @ W + b) - d["Y"]) ** 2).mean(),
    "P2": lambda d, x: 0.5 * (x - d["c"]) @ d["A"] @ (x - d["c"]),
    "P3": lambda d, x: (d["a"] * (x - d["c"]) ** 2 / 2 + (x - d["c"]) ** 4 / 4).sum(),
    "P4": lambda d, M: ((d["L"] @ M @ d["R"] - d["C"]) ** 2).mean(),
}


def by_autograd(record, params):
    for p in params.values():
        p.grad = None
    loss = LOSSES[record.problem]({key: tg.Tensor(value) for key, value in record.data.items()}, **params)
    loss.backward()
    return loss


@pytest.mark.parametrize("name", [name for name in recorded() if name in optim.OPTIMIZERS])
def test_recorded_trajectories(name):
    """Trained by our own gradients, step by step where the reference implementation went."""
    for record in records(name):
        result = replay(optim.OPTIMIZERS[name], name, record, by_autograd)
        assert result.ok, f"{record.id}: {result.largest} from the record"
