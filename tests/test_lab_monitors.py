"""A monitor changes no bit of a run, measures what NumPy finds too, leaves no hook, and says what is off."""

import json

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import Monitor, TrainingRecord, draw_training

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((32, 6)).astype("f4"), RNG.integers(0, 3, 32)


def network(dropout=0.0, hidden=16):
    tg.manual_seed(0)
    return tg.nn.Sequential(tg.nn.Linear(6, hidden), tg.nn.ReLU(), *[tg.nn.Dropout(dropout)] * (dropout > 0),
                            tg.nn.Linear(hidden, 3))


def train(model, optimizer, steps, tell=lambda loss: loss):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = tell(tg.cross_entropy(model(tg.tensor(X)), tg.tensor(Y)))
        loss.backward()
        optimizer.step()


def monitored(steps=5, every=1, model=None, lr=0.1, **options):
    model = network() if model is None else model
    optimizer = tg.optim.SGD(model.named_parameters(), lr=lr)
    with Monitor(model, optimizer, every, **options) as monitor:
        train(model, optimizer, steps, monitor.loss)
    return monitor


# ---- the run is the same run --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda p: tg.optim.AdamW(p, lr=0.01), lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    lambda p: tg.optim.Adam(p, lr=tg.optim.schedule.cosine(0.01, 50), grad_transforms=[tg.optim.ClipNorm(0.1)]),
    lambda p: tg.optim.Lookahead(tg.optim.LAMB(p, lr=0.01))])
def test_a_monitored_run_is_equal_to_the_bit(make):
    def run(every):
        model = network(dropout=0.3)
        optimizer = make(model.named_parameters())
        if every is None:
            train(model, optimizer, 50)
        else:
            sharpness = (tg.cross_entropy, X, tg.tensor(Y))
            with Monitor(model, optimizer, every, sources=True, sharpness=sharpness, sharpness_every=6) as monitor:
                train(model, optimizer, 50, monitor.loss)
            assert len(monitor.record) == -(-50 // every)
        return [p.numpy().tobytes() for p in model.parameters()], tg.default_generator().get_state()
    plain = run(None)
    assert run(1) == plain and run(7) == plain


def test_hooks_are_there_for_measured_steps_alone_and_go_with_an_exception():
    model = network(hidden=64)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

    def hooks():
        return [len(module._forward_hooks) for module in model]
    with pytest.raises(KeyboardInterrupt):
        with Monitor(model, optimizer, every=3, sources=True) as monitor:
            assert hooks() == [1, 1, 1] and optimizer._remembers
            train(model, optimizer, 1)
            assert hooks() == [0, 0, 0] and not optimizer._remembers
            train(model, optimizer, 2)
            assert hooks() == [1, 1, 1]
            raise KeyboardInterrupt
    assert hooks() == [0, 0, 0] and not optimizer._remembers and not any(optimizer._hooks.values())
    train(model, optimizer, 5)
    assert monitor.record.steps.tolist() == [0]
    monitor.attach()
    train(model, optimizer, 2)
    monitor.detach()
    assert monitor.record.steps.tolist() == [0, 9]


# ---- what is measured ---------------------------------------------------------------------------------------


def test_outputs_are_those_that_numpy_finds():
    model = network()
    with tg.no_grad():
        first = model[0](tg.tensor(X)).numpy()
    record = monitored(model=model, steps=2).record
    assert record.layers == {"0": "Linear", "1": "ReLU", "2": "Linear"}
    for name, x in (("0", first), ("1", np.maximum(first, 0))):
        part = record.activations[name]
        np.testing.assert_allclose([part.mean[0], part.std[0]], [x.mean(), x.std()], rtol=1e-5)
        assert part.dead[0] == (x == 0).all(axis=0).mean()
        assert part.histogram[0].tolist() == np.histogram(x, part.edges)[0].tolist()
        assert part.histogram.sum(axis=1).tolist() == [x.size, x.size]


def test_bins_are_shared_by_steps_of_any_scale():
    layer = tg.nn.Linear(1, 1, bias=False)
    optimizer = tg.optim.SGD(layer.parameters(), lr=0.0)
    with Monitor(layer, optimizer, 1) as monitor:
        for scale in (1e-3, 100.0, 0.0, np.inf):
            layer.weight.data, layer.weight.grad = np.ones((1, 1), "f4"), tg.zeros(1, 1)
            layer(tg.tensor(np.array([[-scale], [scale], [1.0]], "f4")))
            optimizer.step()
    part = monitor.record.activations[""]
    assert part.edges[0] == -128 and part.edges[-1] == 128
    for row, xs in zip(part.histogram, ([-1e-3, 1e-3, 1], [-100, 100, 1], [0, 0, 1], [1])):
        assert row.tolist() == np.histogram(xs, part.edges)[0].tolist()


def test_gradients_and_ratios_are_those_that_numpy_finds():
    model, lr = network(), 0.25
    before = {name: p.numpy().copy() for name, p in model.named_parameters()}
    tg.cross_entropy(model(tg.tensor(X)), tg.tensor(Y)).backward()
    slopes = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    record = monitored(model=model, steps=1, lr=lr).record
    for name, g in slopes.items():
        part = record.gradients[name]
        np.testing.assert_allclose(part.norm, np.linalg.norm(g), rtol=1e-5)
        np.testing.assert_allclose(record.ratios[name], lr * np.linalg.norm(g) / np.linalg.norm(before[name]),
                                   rtol=1e-4)
        assert part.histogram[0].tolist() == np.histogram(abs(g[g != 0]), part.edges)[0].tolist()
        assert part.zeros[0] == (g == 0).mean()
    np.testing.assert_allclose(record.norms, np.linalg.norm(np.concatenate([g.ravel() for g in slopes.values()])),
                               rtol=1e-5)
    assert record.lr.tolist() == [lr] and record.steps.tolist() == [0]


def test_gradients_are_those_that_backward_gave_however_small():
    w = tg.nn.Linear(2, 1, bias=False)
    optimizer = tg.optim.SGD(w.parameters(), lr=1.0, grad_transforms=[tg.optim.ClipNorm(0.5)])
    with Monitor(w, optimizer, 1) as monitor:
        for g in ([[3.0, 4.0]], [[3e-30, 4e-30]], [[0.0, np.nan]]):
            w.weight.grad = tg.tensor(g)
            with np.errstate(invalid="ignore"):
                optimizer.step() if np.isfinite(g).all() else None
    np.testing.assert_allclose(monitor.record.gradients["weight"].norm, [5, 5e-30], rtol=1e-5)
    assert monitor.record.gradients["weight"].histogram[1, 0] == 2              # beyond the edges


def test_the_loss_may_be_told_before_a_step_after_it_or_by_a_closure():
    def run(how):
        model = network()
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        with Monitor(model, optimizer, every=2) as monitor:
            for _ in range(5):
                def closure():
                    optimizer.zero_grad()
                    loss = tg.cross_entropy(model(tg.tensor(X)), tg.tensor(Y))
                    loss.backward()
                    return loss
                if how == "closure":
                    optimizer.step(closure)
                else:
                    loss = closure()
                    if how == "before":
                        assert monitor.loss(loss) is loss
                    optimizer.step()
                    if how == "after":
                        monitor.loss(loss.item())
        return monitor.record.loss.tolist()
    losses = run("before")
    assert len(losses) == 3 and losses[0] > losses[1] > losses[2]
    assert run("after") == losses == run("closure") and np.isnan(run("never")).all()


def test_what_is_no_training_is_not_looked_at():
    model = network()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, 1) as monitor:
        with tg.no_grad():
            model(tg.zeros(4, 6))
        model.eval()(tg.zeros(4, 6))
        model.train()
        train(model, optimizer, 1)
    assert monitor.record.activations["2"].histogram.sum() == 32 * 3


def test_sharpness_is_the_largest_eigenvalue():
    model = tg.nn.Sequential(tg.nn.Linear(6, 3), tg.nn.Tanh(), tg.nn.Dropout(0.5), tg.nn.Linear(3, 3))
    model[2].eval()
    problem = tg.autograd.Problem.of_model(model, tg.cross_entropy, X, tg.tensor(Y))
    true = np.linalg.eigvalsh(tg.autograd.hessian_operator(problem).dense().numpy())[-1]
    record = monitored(model=model, sharpness=(tg.cross_entropy, X, tg.tensor(Y)), sharpness_every=2, lr=0.5).record
    np.testing.assert_allclose(record.sharpness[0], true, rtol=1e-3)
    assert np.isnan(record.sharpness).tolist() == [False, True, False, True, False] and record.limit.tolist() == [4] * 5
    assert [module.training for module in model] == [True, True, False, True]


def test_sources_say_what_moved():
    model = network()
    before = model[2].bias.numpy().copy()
    moved = monitored(steps=1, model=model, sources=True).record.sources["2.bias"]
    np.testing.assert_allclose(moved["gradient"], abs(model[2].bias.numpy() - before).sum(), rtol=1e-5)
    assert not moved["memory"].any()
    optimizer = tg.optim.LBFGS(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = tg.cross_entropy(model(tg.tensor(X)), tg.tensor(Y))
        loss.backward()
        return loss
    before = model[2].bias.numpy().copy()
    with Monitor(model, optimizer, 1, sources=True) as monitor:
        optimizer.step(closure)
    moved = monitor.record.sources["2.bias"]
    assert set(moved) == {"rule"} and moved["rule"][0] == pytest.approx(abs(model[2].bias.numpy() - before).sum())


@pytest.mark.parametrize("make", [
    lambda model: tg.optim.SAM(model.parameters(), tg.optim.SGD, lr=0.1),
    lambda model: tg.optim.MultiOptimizer(model, [
        (lambda name, p: p.ndim == 1, lambda named: tg.optim.SGD(named, lr=0.1)), tg.optim.Adam])])
def test_wrapped_optimizers_are_measured_once_a_step(make):
    model = network()
    optimizer = make(model)
    with Monitor(model, optimizer, 1, sources=True) as monitor:
        for _ in range(3):
            def closure():
                optimizer.zero_grad()
                loss = monitor.loss(tg.cross_entropy(model(tg.tensor(X)), tg.tensor(Y)))
                loss.backward()
                return loss
            optimizer.step(closure)
    record = monitor.record
    assert record.steps.tolist() == [0, 1, 2] and (np.diff(record.loss) < 0).all()
    assert all((ratio > 0).all() for ratio in record.ratios.values()) and (record.norms > 0).all()


# ---- words, files, pictures -----------------------------------------------------------------------------------


def test_the_table_says_what_is_off():
    assert monitored().record.findings() == {}
    dying = network()
    dying[0].bias.data = np.full(16, -20, "f4")
    found = monitored(model=dying).record.findings()
    assert found["1"] == ["100% of the units are dead"] and found["0"] == ["the gradient is zero"]
    assert "moves fast" in monitored(lr=30.0, steps=1).record.findings()["2"][0]
    assert "hardly moves" in monitored(lr=1e-6, steps=1).table()
    tg.manual_seed(0)
    deep = tg.nn.Sequential(*[layer for _ in range(6) for layer in (tg.nn.Linear(6, 6), tg.nn.Tanh())][:-1])
    for p in deep.parameters():
        p.data = p.numpy() * np.float32(0.1 if p.ndim == 2 else 1)
    found = monitored(model=deep, steps=1).record.findings()
    assert "the gradient vanishes" in found["0"][0] and "than that of 10.weight" in found["0"][0]
    assert not any("vanishes" in word for word in found["10"])
    steep = network()
    steep[2].weight.data = steep[2].weight.numpy() * np.float32(1e5)
    assert "the gradient explodes" in monitored(model=steep, steps=1, lr=0.0).record.findings()["0"][0]


def test_the_table_has_a_line_a_layer():
    lines = str(monitored()).splitlines()
    assert lines[0].startswith("Sequential under SGD, step 4: loss ") and len(lines) == 5
    assert [line.split()[:2] for line in lines[2:]] == [["0", "Linear"], ["1", "ReLU"], ["2", "Linear"]]
    assert monitored().table(1).startswith("Sequential under SGD, step 1: ")
    with pytest.raises(IndexError, match="one of the 5 measured steps, from 0, or from -1 backwards; got 5"):
        monitored().table(5)
    assert monitored(steps=0).table() == "Sequential under SGD: no step was measured yet"


def test_a_record_goes_out_and_back_whole(tmp_path):
    record = monitored(sources=True).record
    again = TrainingRecord.load(record.save(tmp_path / "record.npz"))
    assert repr(again) == repr(record) and str(again) == str(record)
    assert again.activations["1"].histogram.tobytes() == record.activations["1"].histogram.tobytes()
    told = json.loads(record.to_json(tmp_path / "record.json"))
    assert told["ratios"]["0.weight"] == record.ratios["0.weight"].tolist() and told["sharpness"] == [None] * 5
    tg.save({"loss": 1.0}, tmp_path / "other.npz")
    with pytest.raises(ValueError, match="not the record of a monitor"):
        TrainingRecord.load(tmp_path / "other.npz")


def test_a_writer_is_told_every_number():
    class Writer:
        told = []

        def add_scalar(self, tag, value, step):
            self.told.append((tag, value, step))
    record = monitored(steps=3, every=2, writer=Writer()).record
    told = {(tag, step): value for tag, value, step in Writer.told}
    assert len(told) == len(Writer.told) and {step for _, step in told} == {0, 2}
    assert told["loss", 2] == record.loss[1] and told["activation_std/1", 0] == record.activations["1"].std[0]
    assert told["gradient_norm", 0] == record.norms[0]
    assert told["update_to_weight/0.bias", 2] == record.ratios["0.bias"][1]


def test_pictures_of_any_record_can_be_drawn():
    good = monitored(steps=20, sources=True, sharpness=(tg.cross_entropy, X, tg.tensor(Y)))
    figure = good.draw()
    titles = [axes.get_title("left") for axes in figure.axes if axes.axison]
    assert titles == ["0 Linear", "1 ReLU", "2 Linear", "0.weight", "2.weight", "loss", "norms of gradients",
                      "mean of outputs", "std of outputs", "dead units", "log10 of update : weight", "sharpness",
                      "what moved the parameters"]
    figure.canvas.draw()
    lines = draw_training(good.record, "ratios").axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), np.log10(good.record.ratios["0.weight"]))
    assert set(lines[-1].get_ydata()) == {-3}
    dying = network()
    dying[0].bias.data = np.full(16, -20, "f4")
    monitored(model=dying, steps=1, lr=0.0).draw().canvas.draw()
    with pytest.raises(ValueError, match="no panel named 'ratio'; the nearest are ratios"):
        good.draw("ratio")
    with pytest.raises(ValueError, match="nothing to draw"):
        monitored(steps=0).draw()


def test_wrong_arguments_are_named():
    model = network()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    for error, match, options in [
            (TypeError, "model must be a Module, got list", dict(model=[])),
            (TypeError, "optimizer must be an Optimizer, got NoneType", dict(optimizer=None)),
            (ValueError, "every must be a whole number of at least 1, got 0", dict(every=0)),
            (ValueError, "sharpness_every", dict(sharpness_every=1.5)),
            (ValueError, "no module of the model named 'relu'", dict(layers=["relu"])),
            (ValueError, "layers must be names of modules", dict(layers="0")),
            (ValueError, "layers must be names of modules", dict(layers=0)),
            (TypeError, r"sharpness must be \(loss, x, y\)", dict(sharpness=True)),
            (TypeError, "writer must have a method add_scalar", dict(writer=print)),
            (ValueError, "the SGD holds no parameter of the Linear", dict(model=tg.nn.Linear(1, 1)))]:
        with pytest.raises(error, match=match):
            Monitor(**{"model": model, "optimizer": optimizer, **options})
    assert list(Monitor(model, optimizer, layers=["1"]).record.layers) == ["1"]


def test_a_frozen_layer_has_no_gradient_and_nothing_that_is_not_finite():
    model = network()
    model[0].weight.requires_grad_(False)
    record = monitored(2, model=model).record
    assert record.findings()["0"] == ["has no gradient"] and "nan" not in record.table()


def test_pictures_that_cannot_be_drawn_say_why():
    class Square(tg.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = tg.nn.Parameter(tg.tensor(2.0))

        def forward(self):
            return self.w ** 2
    monitor = monitored(1)
    for panel in ("sources", "sharpness"):
        with pytest.raises(ValueError, match=f"{panel} was not measured; Monitor"):
            monitor.draw(panel)
    with pytest.raises(TypeError, match="record must be a Monitor or its record, got int"):
        draw_training(3)
    model = Square()
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1) as one:
        model().backward()
        optimizer.step()
    assert [axes.get_title("left") for axes in draw_training(one).axes] == ["norms of gradients"]


@pytest.mark.filterwarnings("ignore:SGD. parameter")
def test_a_run_that_ends_in_nan_is_measured_to_its_end():
    x, y = tg.ones(4, 2), tg.zeros(4, 1)
    model = tg.nn.Linear(2, 1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, optimizer, every=1, sharpness=(tg.mse_loss, x, y)) as monitor, np.errstate(all="ignore"):
        for scale in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            (tg.mse_loss(model(x), y) * scale).backward()
            optimizer.step()
    assert np.isfinite(monitor.record.sharpness[0]) and np.isnan(monitor.record.sharpness[-1])
