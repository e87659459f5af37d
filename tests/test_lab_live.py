"""Live curves, loggers and decision regions: what they keep, and what they show where."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import JsonLines, LiveCurve, decision_region, draw_decision


def test_a_curve_keeps_what_it_is_told():
    curve = LiveCurve(("loss", "accuracy"))
    curve.add(0, loss=tg.tensor(2.0))
    curve.add(0, accuracy=0.5)
    curve.add_scalar("loss", 1.0, 5)
    curve.add_scalar("lr", 0.1, 5)
    assert curve.steps.tolist() == [0, 5] and curve.values["loss"].tolist() == [2, 1]
    np.testing.assert_array_equal(curve.values["accuracy"], [0.5, np.nan])
    assert str(curve) == "step 5  loss 1  accuracy 0.5"
    assert [axes.get_title("left") for axes in curve.draw().axes] == ["loss  1", "accuracy  0.5"]
    assert LiveCurve("loss").draw().axes[0].get_title("left") == "loss"


def test_a_curve_says_what_is_wrong():
    with pytest.raises(ValueError, match="no curve named 'los'; the nearest are loss"):
        LiveCurve(("loss", "accuracy")).add(0, los=1.0)
    with pytest.raises(TypeError, match="keys must be names"):
        LiveCurve(())
    with pytest.raises(ValueError, match=r"every must lie in \[0, inf\), got -1"):
        LiveCurve(every=-1)


def test_in_a_notebook_one_picture_is_drawn_anew(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda data, raw: shown.append(data))

    def display(data, raw, display_id):
        shown.append(data)
        return handle
    notebook = SimpleNamespace(version_info=(9, 0), get_ipython=lambda: SimpleNamespace(kernel=object()),
                               display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    with LiveCurve(every=1000) as curve:
        for step in range(50):
            curve.add(step, loss=1 / (1 + step))
    assert [data["text/plain"] for data in shown] == ["step 0  loss 1", "step 49  loss 0.02"]      # and no more
    assert shown[0]["image/png"].startswith(b"\x89PNG")
    with LiveCurve(every=0) as curve:
        curve.add(0, loss=1)
        curve.close()
        curve.close()
    assert len(shown) == 3


def test_in_a_terminal_one_line_is_written_over(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with LiveCurve(every=0) as curve:
        curve.add(10, loss=0.125)
        curve._next = 0
        curve.add(11, loss=1)
    assert capsys.readouterr().err == "\rstep 10  loss 0.125\rstep 11  loss 1    \n"


def test_elsewhere_nothing_is_shown(capsys):
    with LiveCurve(every=0) as curve:
        curve.add(0, loss=1.0)
    assert capsys.readouterr() == ("", "")


def test_a_monitor_feeds_curves_and_files(tmp_path):
    model = tg.nn.Linear(2, 2)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    x, y = tg.data.moons(20, generator=0)
    curve = LiveCurve(("loss", "gradient_norm"))
    for writer in (curve, JsonLines(tmp_path / "run.jsonl")):
        with tg.lab.Monitor(model, optimizer, every=1, writer=writer) as monitor:
            optimizer.zero_grad()
            monitor.loss(tg.cross_entropy(model(x), y)).backward()
            optimizer.step()
    writer.add_scalar("odd", np.inf, 3)
    writer.close()
    assert curve.values["gradient_norm"].tolist()[0] > 0 and curve.steps.tolist() == [0]
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert {"tag": "loss", "value": monitor.record.loss[0], "step": 1} in lines
    assert lines[-1] == {"tag": "odd", "value": None, "step": 3}


# ---- decision regions -----------------------------------------------------------------------------------------

X, Y = np.array([[0, 0], [4, 0], [0, 4], [4, 4.0]], "f4"), np.array([0, 1, 0, 1])


def classifier(outputs):
    """A layer that says 1 where the first coordinate is over 2."""
    layer = tg.nn.Linear(2, outputs)
    layer.load_state_dict({"weight": np.array([[-3, 0], [3, 0]], "f4")[-outputs:],
                           "bias": np.array([6, -6], "f4")[-outputs:]})
    return tg.nn.Sequential(tg.nn.Dropout(0.5), layer)


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_region_is_what_the_model_says(outputs):
    model = classifier(outputs)
    region = decision_region(model, X, points=9)
    assert region.horizontal[0] == pytest.approx(-0.6) and region.vertical[-1] == pytest.approx(4.6)
    assert (region.chosen[:, :4] == 0).all() and (region.chosen[:, 5:] == 1).all() and model.training
    score = 3 * outputs * (region.horizontal - 2)
    np.testing.assert_allclose(region.shares[3, :, 1], 1 / (1 + np.exp(-score)), rtol=1e-4, atol=1e-7)
    assert draw_decision(model, X, Y, 20).axes[0].get_title("left") == "100.0% of the samples on their side"
    assert draw_decision(model, tg.tensor(X), 1 - Y, 20).axes[0].get_title("left").startswith("0.0%")


class Mean(tg.nn.Module):
    def forward(self, x):
        return x.mean()


def test_a_region_says_what_is_wrong():
    with pytest.raises(TypeError, match="model must be a Module, got function"):
        decision_region(lambda x: x, X)
    with pytest.raises(ValueError, match=r"of shape \(n, 2\); got shape \(4, 1\)"):
        decision_region(classifier(1), X[:, :1])
    with pytest.raises(ValueError, match="x holds numbers that are not finite"):
        decision_region(classifier(1), X * np.nan)
    with pytest.raises(ValueError, match="points must be a whole number of at least 2, got 1"):
        decision_region(classifier(1), X, 1)
    with pytest.raises(ValueError, match="a class for each of the 4 samples"):
        draw_decision(classifier(1), X, Y[:2])
    with pytest.raises(ValueError, match="y holds class 5, the model tells 2 classes apart"):
        draw_decision(classifier(2), X, Y + 4)
    with pytest.raises(ValueError, match=r"scores of shape \(\) for 100 points"):
        decision_region(Mean(), X, 10)


def test_numbers_of_numpy_are_written_and_others_refused(tmp_path):
    with JsonLines(tmp_path / "run.jsonl") as writer:
        writer.add_scalar("loss", np.float32(0.5), np.int64(3))
    assert json.loads((tmp_path / "run.jsonl").read_text()) == {"tag": "loss", "value": 0.5, "step": 3}
    with pytest.raises(TypeError, match="keys must be names"):
        LiveCurve(3)
    with pytest.raises(TypeError, match="every must be a number"):
        LiveCurve(every="often")
    with pytest.raises(ValueError, match="step must be a whole number"):
        LiveCurve().add("first", loss=1.0)
