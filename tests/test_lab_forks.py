"""Forks and ways back: to the bit, for plain optimizers, wrappers and schedulers."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn, optim
from tinygrad_opt.lab.snapshots import Snapshot, untouched
from tinygrad_opt.optim import lr_scheduler, transforms
from tinygrad_opt.optim.swa_utils import EMA

MAKERS = {
    "SGD": lambda named: optim.SGD(named, lr=0.1, momentum=0.9), "AdamW": optim.AdamW, "NAdam": optim.NAdam,
    "Adafactor": optim.Adafactor, "SOAP": optim.SOAP, "ScheduleFreeAdamW": optim.ScheduleFreeAdamW,
    "scheduled": lambda named: optim.Adam(named, lr=lambda t: 0.1 / (t + 1)),
    "noisy": lambda named: optim.AdamW(named, grad_transforms=[transforms.Noise(generator=tg.Generator(1))]),
    "Lookahead": lambda named: optim.Lookahead(optim.Adam(named), k=3),
    "Accumulate": lambda named: optim.Accumulate(optim.SGD(named, lr=0.1, momentum=0.9), 2),
    "Multi": lambda named: optim.MultiOptimizer(named, [
        (lambda name, p: p.ndim == 1, lambda own: optim.SGD(own, lr=0.1)),
        lambda own: optim.Lookahead(optim.AdamW(own))]),
    "half": lambda named: optim.AdamW(named, lr=0.01),
}


class Training:
    def __init__(self, kind):
        tg.manual_seed(3)
        layers = [nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 2)]
        self.model = nn.Sequential(*layers).to("float16" if kind == "half" else "float32")
        self.optimizer = MAKERS[kind](list(self.model.named_parameters()))
        self.scheduler = lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        self.average = EMA(self.optimizer)
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()
        x, y = tg.data.moons(40, generator=0)
        self.loader = tg.data.DataLoader(tg.data.TensorDataset(x.astype(self.model[0].weight.dtype), y), 8, True,
                                         generator=5)

    def step(self, batch):
        x, y = batch
        self.optimizer.zero_grad()
        tg.cross_entropy(self.model(x), y).backward()
        self.optimizer.step()
        if self.optimizer.step_count:               # Accumulate has made none yet
            self.scheduler.step()

    def bits(self):
        """Everything that a run goes on from, as bytes and numbers."""
        found = [self.optimizer.lr, self.optimizer.step_count, self.scheduler.state_dict(), self.average.step_count,
                 tg.default_generator().get_state(), self.loader.generator.get_state()]
        arrays = [*self.model.state_dict().values(), *self.average.averages.values()]
        for state in self.optimizer.state.values():
            arrays += [x for value in state.values() for x in (value if isinstance(value, list) else [value])]
        return found, [np.asarray(x).tobytes() for x in arrays]


@pytest.mark.parametrize("kind", MAKERS)
def test_undo_and_redo_give_the_same_bits(kind):
    training = Training(kind)
    rewind, seen = tg.lab.Rewind(training.model, training.optimizer, training.scheduler, keep=7,
                                 data=training.loader), []
    for _ in range(2):
        for batch in rewind.over(training.loader):
            seen.append(training.bits())
            training.step(batch)
    end = training.bits()
    assert len(rewind) == 7 and end != seen[-1]
    batches = rewind.undo(4)
    assert training.bits() == seen[-4] and len(rewind) == 3
    for batch in batches:
        training.step(batch)
    assert training.bits() == end
    rewind.undo(3)
    assert training.bits() == seen[-7]


def test_objects_stay_the_same_and_new_state_goes():
    training = Training("SGD")
    optimizer, group, weight = training.optimizer, training.optimizer.param_groups[0], training.model[0].weight
    before = Snapshot(training.model, optimizer)
    training.step(next(iter(training.loader)))
    optimizer.extra, weight.requires_grad, training.model[4].training = 1, False, False
    before.restore()
    assert optimizer.param_groups[0] is group and group["params"][0] is weight and weight.requires_grad
    assert weight.grad is None and not hasattr(optimizer, "extra") and training.model[4].training
    assert all(not state for state in optimizer.state.values())


def test_untouched_after_an_error_too():
    training = Training("AdamW")
    before = training.bits()
    with pytest.raises(ZeroDivisionError), untouched(training.model, training.optimizer, training.scheduler,
                                                     data=training.loader):
        for batch in training.loader:
            training.step(batch)
        raise ZeroDivisionError
    assert training.bits() == before


def test_rewind_says_what_is_wrong():
    with pytest.raises(TypeError, match="all that a step changes"):
        tg.lab.Rewind()
    with pytest.raises(TypeError, match="got function"):
        tg.lab.Rewind(lambda: 0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        tg.lab.Rewind([tg.ones(1)], keep=0)
    rewind = tg.lab.Rewind([tg.ones(1)])
    rewind.remember()
    with pytest.raises(ValueError, match="from 1 to 1, .* at most 20, see keep.; got 2"):
        rewind.undo(2)


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "Lookahead", "noisy"])
def test_a_fork_goes_where_the_training_goes_and_leaves_it_alone(kind):
    training = Training(kind)
    for batch in training.loader:
        training.step(batch)
    before = training.bits()
    fork = tg.lab.fork(training.optimizer, training.model, 6, data=training.loader, loss=tg.cross_entropy)
    assert training.bits() == before and not fork.difference.any()
    changed = tg.lab.fork(training.optimizer, training.model, 6, data=training.loader, loss=tg.cross_entropy, lr=0.3)
    assert training.bits() == before
    assert np.array_equal(changed.trunk.path, fork.trunk.path)
    assert changed.difference[0] == 0 < changed.difference[1] and changed.branch.lr[0] == 0.3
    for x, y in [*training.loader, *training.loader][:6]:
        training.optimizer.zero_grad()
        tg.cross_entropy(training.model(x), y).backward()
        training.optimizer.step()
    assert np.array_equal(fork.trunk.parameters["0.weight"][-1], training.model[0].weight.numpy())


def test_a_fork_on_a_surface_has_the_momentum():
    surface = tg.lab.surface("reddi")
    w = tg.tensor(surface.start, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.25, momentum=0.5)
    w.grad = np.array([1.0])
    optimizer.step()
    fork = tg.lab.fork(optimizer, surface, 2, momentum=0.0)
    # Steps 1 and 2 of three see -1; the trunk keeps half of the first gradient.
    assert fork.trunk.path.ravel().tolist() == [-0.25, -0.25 + 0.25 * 0.5, -0.125 + 0.25 * 1.25]
    assert fork.branch.path.ravel().tolist() == [-0.25, 0.0, 0.25]
    assert fork.difference.tolist() == [0, 0.125, 0.0625]
    assert fork.draw().axes[1].get_lines()[0].get_ydata().tolist() == fork.difference.tolist()
    assert repr(fork).startswith("<fork of SGD on reddi with momentum=0.0: after 2 steps 0.0625 apart")


def test_an_optimizer_forks_alone():
    w = tg.tensor([1.0, -2.0], requires_grad=True)
    optimizer = optim.Lookahead(optim.Adam([("w", w)], lr=0.1), k=2)
    w.grad = np.ones(2, "float32")
    optimizer.step()
    twin, same = optimizer.fork(betas=(0.5, 0.9)), optimizer.fork()
    for one in (optimizer, twin, same):
        one.param_groups[0]["params"][0].grad = np.array([1, -1], "float32")
        one.step()
    a, b, c = (one.param_groups[0]["params"][0].tolist() for one in (optimizer, twin, same))
    assert a == c != b and optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    with pytest.raises(ValueError, match="Lookahead: unknown option 'beta'; the options are lr, betas"):
        optimizer.fork(beta=1)
    with pytest.raises(ValueError, match="lr"):
        optimizer.fork(lr=-1)


def test_fork_says_what_is_wrong():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters())
    batch, square = (tg.ones(4, 2), tg.ones(4, 1)), tg.mse_loss
    with pytest.raises(TypeError, match="got Linear"):
        tg.lab.fork(model, optimizer, 5)
    with pytest.raises(ValueError, match="steps must be"):
        tg.lab.fork(optimizer, model, 0, data=batch, loss=square)
    with pytest.raises(TypeError, match="only once"):
        tg.lab.fork(optimizer, model, 1, data=iter([batch]), loss=square)
    with pytest.raises(ValueError, match="not those of the model: 0 of group 0"):
        tg.lab.fork(optimizer, nn.Linear(2, 1), 1, data=batch, loss=square)
    with pytest.raises(ValueError, match="a function of one Tensor, the optimizer holds 2, 0.0, 1.0;"):
        tg.lab.fork(optimizer, "rosenbrock", 1)
    with pytest.raises(ValueError, match="unknown option 'betas'; the options are lr, momentum"):
        tg.lab.fork(optimizer, model, 1, data=batch, loss=square, betas=(0, 0))


def test_instruments_are_not_taken_back():
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    rewind = tg.lab.Rewind(model, optimizer)
    with tg.lab.Monitor(model, optimizer, every=1) as monitor:
        for _ in rewind.over(range(4)):
            optimizer.zero_grad()
            model(tg.ones(3, 2)).sum().backward()
            optimizer.step()
        rewind.undo(2)
    assert optimizer.step_count == 2 and monitor.record.steps.tolist() == [0, 1, 2, 3]


def test_distances_are_measured_in_double():
    w = tg.tensor([1.0], requires_grad=True)
    apart = tg.lab.fork(optim.SGD([w], lr=0.0), lambda w: 1e30 * w.sum(), 1, lr=1.0)
    assert apart.difference[-1] == pytest.approx(1e30, rel=1e-6)
