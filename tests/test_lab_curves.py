"""Named curves: what is drawn is what was given."""

import numpy as np
import pytest

from tinygrad_opt.lab import draw_curves


def test_lines_hold_what_was_given():
    curves = {"a": [3.0, 2.0], "b": ([0.1, 1.0, 10.0], [1, 2, 3])}
    figure = draw_curves(curves, "t", first=1, xscale="log", ylabel="loss")
    (a, b), axes = figure.axes[0].lines, figure.axes[0]
    assert a.get_xdata().tolist() == [1, 2] and a.get_ydata().tolist() == [3, 2]
    assert b.get_xdata().tolist() == [0.1, 1, 10] and axes.get_xscale() == "log" and axes.get_title("left") == "t"
    assert (a.get_color(), a.get_linestyle(), a.get_marker()) != (b.get_color(), b.get_linestyle(), b.get_marker())


def test_gaps_stay_gaps():
    line, = draw_curves({"a": [1.0, np.nan, 2.0]}).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [1, np.nan, 2])


def test_ticks_are_steps_and_many_names_stand_side_by_side():
    figure = draw_curves({str(k): [k, k + 1, k] for k in range(20)})
    figure.canvas.draw()
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks()) and figure.legends[0]._ncols == 2
    assert draw_curves({"a": [1, 2]}).legends[0]._ncols == 1


@pytest.mark.parametrize("call, words", [
    (lambda: draw_curves({}), "map names"), (lambda: draw_curves([1, 2]), "map names"),
    (lambda: draw_curves({"a": [[1, 2]]}), "row of numbers"), (lambda: draw_curves({"a": []}), "row of numbers"),
    (lambda: draw_curves({"a": ([1, 2, 3], [1, 2])}), "as many places"),
    (lambda: draw_curves({"a": "high"}), "row of numbers, got 'high'"),
    (lambda: draw_curves({"a": [[1, 2], [3]]}), "row of numbers"),
    (lambda: draw_curves({"a": [1]}, ylim=3), "ylim must be"), (lambda: draw_curves({"a": [1]}, ylim=(1, 0)), "ylim"),
    (lambda: draw_curves({"a": [-1, 0]}, yscale="log"), "yscale='log' shows numbers above 0"),
    (lambda: draw_curves({"a": [1]}, yscale="logarithmic"), "yscale must be")])
def test_bad_input(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
