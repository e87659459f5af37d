"""The post-mortem names the first number that went wrong, its step and its cause, and can make it again."""

import math
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn, optim
from tinygrad_opt.optim import transforms


def train(model, optimizer, loss, batches, **options):
    with tg.lab.PostMortem(model, optimizer, loss, **options) as pm:
        for x, y in batches:
            optimizer.zero_grad()
            pm.loss(model(x), y).backward()
            optimizer.step()
    return pm


def ones(*shape):
    return tg.ones(*shape)


class Scaled(nn.Module):
    """One factor: a model whose numbers can be followed by hand."""

    def __init__(self, factor, dtype="float32"):
        super().__init__()
        self.w = nn.Parameter(np.array(factor, dtype))

    def forward(self, x):
        return self.w * x


def bad_data():
    x = np.ones((4, 2), "float32")
    x[2, 1] = np.nan
    return nn.Linear(2, 1), optim.SGD, tg.mse_loss, [(ones(4, 2), ones(4, 1)), (tg.tensor(x), ones(4, 1))]


def bad_target():
    return nn.Linear(2, 1), optim.SGD, tg.mse_loss, [(ones(4, 2), tg.tensor([[1.0], [math.inf], [1.0], [0.0]]))]


def too_fast():
    # The curvature is 2: beyond lr = 1 the error grows by 2 lr - 1 = 3 a step, and the loss by 9.
    return Scaled([2.0]), lambda p: optim.SGD(p, lr=2.0), lambda y, t: ((y - t) ** 2).sum(), [(1.0, 0.0)] * 99


def logarithm():
    return Scaled([[1.0, 0.0]]), optim.SGD, lambda y, t: -y.log().mean(), [(1.0, 0.0)]


def quotient():
    return Scaled([0.5]), lambda p: optim.SGD(p, lr=0.5), lambda y, t: (1 / (y - t)).sum(), [(1.0, 0.0), (0.0, 0.0)]


def root():
    return Scaled([1.0, 0.0]), optim.Adam, lambda y, t: y.sqrt().sum(), [(1.0, 0.0)]


def half():
    return Scaled([300.0], "float16"), optim.SGD, lambda y, t: (y * y).sum(), [(np.ones(1, "float16"), 0.0)]


def single():
    return Scaled([100.0]), optim.SGD, lambda y, t: y.exp().sum(), [(1.0, 0.0)]


def gradients():
    # A slope of 1e30 for one batch, then 1e10 times as much of it: the square is beyond float32.
    return (Scaled([1.0]), lambda p: optim.SGD(p, lr=1.0), lambda y, t: (y ** 2).sum(),
            [(0.1, 0.0), (0.1, 0.0), (0.1, 0.0), (1e15, 0.0), (1.0, 0.0)])


def division_of_zero():
    return (Scaled([1.0, 2.0]), lambda p: optim.Adam(p, eps=0.0), lambda y, t: y.sum(),
            [(tg.tensor([1.0, 0.0]), 0.0)])


def from_the_start():
    return Scaled([math.nan]), optim.SGD, lambda y, t: y.sum(), [(1.0, 0.0)]


def layer():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU()))
    model[2][0].weight.data = np.full((1, 3), 3e38, "float32")
    model[0].weight.data, model[0].bias.data = np.ones((3, 2), "float32"), np.ones(3, "float32")
    return model, optim.AdamW, tg.mse_loss, [(ones(1, 2), ones(1, 1))]


CASES = {
    bad_data: ("bad data", "step 2, input 0 of the model", "1 of 8 numbers, the first nan at (2, 1)."),
    bad_target: ("bad data", "step 1, target 0 of the loss", "1 of 4 numbers, the first inf at (1, 0)."),
    too_fast: ("lr above the stability edge", "", "grown 9 times a step for"),
    logarithm: ("undefined operation", "step 1, the loss function, operation log", "log(0) = -inf."),
    quotient: ("undefined operation", "step 2, the loss function, operation div", "div(1, 0) = inf."),
    root: ("undefined operation", "step 1, on the way back, operation sqrt", "the gradient of sqrt(0) is inf."),
    half: ("overflow in float16", "operation mul", "mul(300, 300) = inf, which float16 cannot hold."),
    single: ("overflow", "operation exp", "exp(100) = inf, which float32 cannot hold."),
    gradients: ("exploding gradients", "", "The norm of the gradients was"),
    division_of_zero: ("the optimizer's own line", "step 1, w", "gives nan."),
    from_the_start: ("not finite from the start", "step 1, w", "nothing that is computed with it"),
    layer: ("overflow", "step 1, layer 2.0 (Linear), operation linear", "which float32 cannot hold."),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_names_the_cause_and_makes_it_again(case, tmp_path, capsys):
    (kind, where, why), (model, maker, loss, batches) = CASES[case], case()
    pm = train(model, maker(list(model.named_parameters())), loss, batches, factor=math.inf)
    assert pm.kind == kind and where in pm.finding.where and why in pm.finding.why
    assert pm.report() == [pm.finding] and str(pm.report()) in capsys.readouterr().out
    if case is from_the_start:
        with pytest.raises(ValueError, match="no operation to repeat .not finite from the start"):
            pm.reproduction(tmp_path / "a.npz")
        return
    script = pm.reproduction(tmp_path / "a.npz")
    if case in (bad_data, logarithm, root, division_of_zero):              # one of each form, in a process of its own
        done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    else:
        exec(script, {})
        printed = capsys.readouterr().out
    assert "nan" in printed or "inf" in printed
    # The script can fail: with finite numbers in the file it does.
    saved = tg.load(tmp_path / "a.npz")
    for key in ("arguments", "batch", "before"):
        if key in saved:
            saved[key] = tamed(saved[key])
    tg.save(saved, tmp_path / "a.npz")
    with pytest.raises(AssertionError, match="here all numbers are finite"):
        exec(script, {})


def tamed(value):
    if isinstance(value, dict):
        return {key: 0.5 if key == "eps" else tamed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [tamed(part) for part in value]
    return np.ones_like(value) if getattr(value, "dtype", np.dtype(int)).kind == "f" else value


def test_the_saved_step_is_the_whole_step(tmp_path):
    tg.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1, bias=False), nn.ReLU())
    for p in model.parameters():
        p.data = abs(p.numpy())
    optimizer = optim.Adam(model.named_parameters(), lr=0.03)
    x = tg.rand(2, 3, generator=tg.Generator(0))

    def loss(y, t):
        return (10 * y - t * y.log()).mean()
    pm = train(model, optimizer, loss, [(x, ones(2, 1))] * 200)
    assert pm.kind == "undefined operation" and pm.steps[-1].step > 1
    pm.reproduction(tmp_path / "b.npz")
    saved = tg.load(tmp_path / "b.npz")
    twin = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1, bias=False), nn.ReLU())
    again = optim.Adam(twin.named_parameters())
    twin.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    tg.default_generator().set_state(saved["generator"])
    with np.errstate(all="ignore"):
        value = loss(twin(*saved["inputs"]), *saved["targets"])
    assert not math.isfinite(value.item()) and again.step_count == pm.steps[-1].step - 1


def test_edge_of_gradient_descent():
    model, maker, loss, batches = too_fast()
    pm = train(model, maker(list(model.named_parameters())), loss, batches, keep=7)
    assert pm.kind == "lr above the stability edge" and len(pm.steps) == 7
    assert "makes the edge about 1; lr is 2" in pm.finding.why             # 2 over the curvature 2
    # Of the losses 4 * 9^k the sixth is 9^3 times the median of those before, the seventh 1312 times.
    assert pm.steps[-1].step == 7 and pm.finding.what.endswith("the loss is 2.13e+06, it began at 4")
    with pytest.raises(ValueError, match="factor=math.inf waits for the first infinite number"):
        pm.reproduction("nowhere.npz")


def test_a_step_that_goes_too_far_is_the_rate_and_not_the_gradient():
    model = Scaled([1.0])
    # The slope is 4 w^3, 4 at 1, and lr 10 leads to -39, where the loss is 2.3e6.
    pm = train(model, optim.SGD(model.named_parameters(), lr=10.0), lambda y, t: (y ** 4).sum(), [(1.0, 0.0)] * 9)
    assert pm.kind == "lr above the stability edge" and pm.steps[-1].step == 2
    assert "Step 1 moved the parameters by 40, and their norm was 1" in pm.finding.why


def make(seed):
    tg.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 2))
    x, y = tg.data.moons(64, generator=0)
    return model, tg.data.DataLoader(tg.data.TensorDataset(x, y), 16, True, generator=1)


MAKERS = [optim.AdamW, lambda p: optim.SGD(p, lr=0.1, momentum=0.9, grad_transforms=[transforms.ClipNorm(0.1)]),
          lambda p: optim.Lookahead(optim.Adam(p)), lambda p: optim.SAM(p, optim.SGD, lr=0.1), optim.LBFGS]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_healthy_run_is_the_same_to_the_bit(maker):
    ends = []
    for watched in (False, True):
        model, loader = make(2)
        optimizer = maker(list(model.named_parameters()))
        pm = tg.lab.PostMortem(model, optimizer, tg.cross_entropy)

        criterion = pm.loss if watched else tg.cross_entropy
        with pm if watched else nullcontext():
            for batch in loader:
                def closure(x=batch[0], y=batch[1]):
                    optimizer.zero_grad()
                    loss = criterion(model(x), y)
                    loss.backward()
                    return loss
                optimizer.step(closure)
        if watched:
            assert [step.step for step in pm.steps] == [1, 2, 3, 4] and not pm.kind and not pm.report()
            assert all(np.isfinite(step.loss) and step.parameters > 0 for step in pm.steps)
            assert maker is optim.LBFGS or all(step.update > 0 for step in pm.steps)
        ends.append([p.numpy().tobytes() for p in model.state_dict().values()])
    assert ends[0] == ends[1]
    assert not model._forward_pre_hooks


def test_what_a_step_holds():
    model = Scaled([3.0, -4.0])
    pm = train(model, optim.SGD(model.named_parameters(), lr=0.5), lambda y, t: (y ** 2 / 2).sum(), [(1.0, 0.0)] * 2)
    assert [tuple(step) for step in pm.steps] == [(1, 12.5, 5.0, 0.5, 2.5, 2.5), (2, 3.125, 2.5, 0.5, 1.25, 1.25)]
    assert repr(pm.table()).splitlines()[1].split() == ["1", "12.5", "5", "0.5", "2.5", "2.5"]


def test_what_was_added_to_the_loss_is_outside():
    model = Scaled([1.0])
    optimizer = optim.SGD(model.named_parameters())
    with tg.lab.PostMortem(model, optimizer, lambda y: y.sum()) as pm:
        loss = pm.loss(model(1.0)) + (model.w - 1).sqrt().sum()
        loss.backward()
        optimizer.step()
    assert pm.kind == "outside of the loss" and pm.finding.where == "step 1, w"
    assert model.w.tolist() == [1.0]                # it stopped before the step


def test_other_errors_pass_and_bad_use_is_refused():
    model = Scaled([1.0])
    optimizer = optim.SGD(model.named_parameters())
    with pytest.raises(KeyError), tg.lab.PostMortem(model, optimizer, tg.mse_loss):
        raise KeyError
    with pytest.raises(RuntimeError, match="pm.loss"), tg.lab.PostMortem(model, optimizer, tg.mse_loss):
        (model(1.0) ** 2).sum().backward()
        optimizer.step()
    with pytest.raises(TypeError, match="got Scaled, SGD, NoneType"):
        tg.lab.PostMortem(model, optimizer, None)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        tg.lab.PostMortem(model, optimizer, tg.mse_loss, keep=1)
    with pytest.raises(ValueError, match="factor must be above 1"):
        tg.lab.PostMortem(model, optimizer, tg.mse_loss, factor=1)
    with pytest.raises(TypeError, match="one number, the function returned shape .3,."):
        tg.lab.PostMortem(model, optimizer, lambda y: y).loss(ones(3))
    with pytest.raises(ValueError, match="all was finite so far"):
        tg.lab.PostMortem(model, optimizer, tg.mse_loss).reproduction("nowhere.npz")
