"""The range test: numbers that can be computed by hand, and a training that is left as it was."""

import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn, optim


def bowl(w):
    return (w ** 2).sum() / 2


def test_losses_of_gradient_descent_on_a_bowl():
    found = tg.lab.lr_find(bowl, optimizer="sgd", start=np.array([2.0]), smallest=1e-3, largest=8.0, steps=21, stop=9,
                           smoothing=0)
    rates = np.geomspace(1e-3, 8, 21)
    losses = 2 * np.cumprod((1 - rates) ** 2)       # w shrinks by 1 - lr each step
    n = len(found.losses)
    assert np.array_equal(found.rates, rates[:n]) and np.allclose(found.losses, losses[:n], rtol=1e-9)
    assert np.array_equal(found.smoothed, found.losses)
    # It stops at the first loss of more than 9 times the lowest, which comes where |1 - lr| exceeds 1 enough.
    lowest = np.minimum.accumulate(losses)
    assert n - 1 == np.argmax(losses - lowest > 8 * lowest) and found.divergence == found.rates[-1] > 2 and n < 21
    slopes = np.gradient(losses[:n], np.log(rates[:n]))
    assert found.suggestion == found.rates[np.argmin(slopes[:np.argmin(losses[:n]) + 1])]
    assert found.minimum == found.rates[np.argmin(losses[:n])]


def test_smoothing_is_a_mean_over_both_sides_and_an_explosion_does_not_reach_back():
    found = tg.lab.training.rate_range._smooth(np.array([4.0, 2.0, 1.0, 1e30]), 0.5)
    weights = np.array([[1, 0.5, 0.25, 0.125], [0.5, 1, 0.5, 0.25], [0.25, 0.5, 1, 0.5], [0.125, 0.25, 0.5, 1]])
    assert np.allclose(found, weights @ [4, 2, 1, 4] / weights.sum(1))


class Training:
    def __init__(self, maker):
        tg.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.optimizer = maker(list(self.model.named_parameters()))
        x, y = tg.data.moons(50, generator=0)
        self.loader = tg.data.DataLoader(tg.data.TensorDataset(x, y), 10, True, generator=3)

    def epoch(self):
        for x, y in self.loader:
            self.optimizer.zero_grad()
            tg.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
        return [np.asarray(value).tobytes() for value in self.model.state_dict().values()]


def fails_late():
    calls = iter(range(99))

    def loss(outputs, y):
        if next(calls) == 7:
            raise KeyError("seven")
        return tg.cross_entropy(outputs, y)
    return loss


MAKERS = [lambda p: optim.AdamW(p), lambda p: optim.SGD(p, lr=lambda t: 0.1 / (t + 1), momentum=0.9),
          lambda p: optim.Lookahead(optim.Adam(p)), optim.ScheduleFreeAdamW]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_training_goes_on_as_if_nothing_had_been(maker):
    plain, tested = Training(maker), Training(maker)
    ends = []
    for training in (plain, tested):
        tg.manual_seed(5)
        if hasattr(training.optimizer, "train"):
            training.optimizer.train()
        training.epoch()
        if training is tested:
            model, data = training.model, training.loader
            found = tg.lab.lr_find(model, data, tg.cross_entropy, training.optimizer, steps=20)
            again = tg.lab.lr_find(model, data, tg.cross_entropy, training.optimizer, steps=20)
            tg.lab.lr_find(model, data, tg.cross_entropy, "lion", steps=20, betas=(0.5, 0.9))
            assert np.array_equal(found.losses, again.losses)
            with pytest.raises(KeyError):
                tg.lab.lr_find(model, data, fails_late(), training.optimizer)
        ends.append([training.epoch(), training.optimizer.lr, training.optimizer.step_count])
    assert ends[0] == ends[1]


def test_groups_keep_their_ratio():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    model, seen = nn.Sequential(a, b), []
    optimizer = optim.SGD([{"params": a.parameters(), "lr": 0.1}, {"params": b.parameters(), "lr": 0.02}])
    optimizer.register_step_pre_hook(lambda one, *_: seen.append([group["lr"] for group in one.param_groups]))
    found = tg.lab.lr_find(model, (tg.ones(4, 1), tg.zeros(4, 1)), tg.mse_loss, optimizer, 1e-3, 1e-1, 3)
    assert np.allclose(seen[:3], [[1e-3, 2e-4], [1e-2, 2e-3], [1e-1, 2e-2]]) and len(found.rates) == 3
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02]


def test_where_no_rate_helps():
    found = tg.lab.lr_find(bowl, optimizer="sgd", start=[1.0], smallest=2.5, largest=9.0, stop=math.inf, steps=9)
    assert math.isnan(found.suggestion) and math.isnan(found.minimum) and math.isnan(found.divergence)
    assert repr(found) == "<range test of SGD on bowl: no rate lowers the loss>"
    assert found.draw().axes[0].get_xscale() == "log"
    steep = tg.lab.lr_find(bowl, optimizer="sgd", start=[1.0], largest=1e30, stop=math.inf, steps=99)
    assert steep.divergence > 1e3 and np.isfinite(steep.losses).all()
    labels = [line.get_label() for line in steep.draw().axes[0].get_lines()]
    assert labels[2] == f"steepest: {steep.suggestion:.2g}" and labels[-1] == f"stopped: {steep.divergence:.2g}"


@pytest.mark.parametrize("options, error, words", [
    (dict(smallest=0), ValueError, r"smallest must lie in \(0, inf\), got 0"),
    (dict(smallest=1.0, largest=0.1), ValueError, "got 1.0 and 0.1"),
    (dict(steps=2), ValueError, "at least 3, got 2"), (dict(stop=1), ValueError, r"stop must lie in \(1, inf\], got 1"),
    (dict(smoothing="much"), TypeError, "smoothing must be a number"),
    (dict(smoothing=1), ValueError, "smoothing must lie in .0, 1., got 1"),
    (dict(lr=0.1), TypeError, "looks for lr itself"),
    (dict(optimizer="polyaksgd"), ValueError, "PolyakSGD has no lr to find"),
    (dict(optimizer="rprop"), ValueError, "Rprop reads lr at its first step alone"),
    (dict(optimizer="adamv"), ValueError, "nearest are"),
    (dict(start=[math.nan]), ValueError, "the loss of bowl is nan before any step"),
    (dict(optimizer="sgd", smallest=1e200, largest=1e300), ValueError, "after a step at 1e.200 already"),
])
def test_says_what_is_wrong(options, error, words):
    with pytest.raises(error, match=words):
        tg.lab.lr_find(bowl, **{"start": np.array([1.0]), **options})


def test_one_shot_data_is_refused():
    batch = (tg.ones(2, 1), tg.ones(2, 1))
    with pytest.raises(TypeError, match="only once"):
        tg.lab.lr_find(nn.Linear(1, 1), iter([batch]), tg.mse_loss)
