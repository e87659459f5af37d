"""Contours and animations: what is drawn are the numbers of the record, where they belong."""

from dataclasses import replace

import numpy as np
import pytest

from tinygrad_opt import lab, optim
from tinygrad_opt.lab.racing.animations import draw_frames, moments
from tinygrad_opt.lab.racing.contours import Scene, by_label, heights_at

TRACE = lab.record("adam", "himmelblau", 30, lr=0.2)
BOX = ((-1.0, 1.0), (-2.0, 2.0))


def parabola(w):
    return (w ** 2).sum()


def texts(fig):
    return [text.get_text() for legend in fig.legends for text in legend.get_texts()]


# ---- the scene ----------------------------------------------------------------------------------------------------


def test_heights_are_those_of_the_function():
    scene = Scene("himmelblau", TRACE, None, 21)
    surface = lab.surface("himmelblau")
    assert scene.box == surface.box and scene.heights.shape == (21, 21)
    assert scene.heights[3, 8] == surface([scene.x[8], scene.y[3]])
    assert scene.raised(scene.lowest) == 0 and scene.raised(scene.lowest + np.e - 1) == pytest.approx(1)
    points = np.random.default_rng(0).standard_normal((2, 3, 4))
    one_by_one = heights_at(lambda w: surface(w), points)
    np.testing.assert_allclose(one_by_one, surface(points), rtol=1e-14)
    assert not np.allclose(one_by_one, surface(points + 1))


def test_a_box_is_widened_for_its_paths_and_half_its_width_at_most():
    def path(*points):
        trace = lab.record("sgd", "booth", len(points) - 1)
        trace.parameters = {"w": np.array(points, dtype=float)}
        return trace

    near, far = path((0, 0), (14, 0), (0, 0)), path((0, 0), (0, -14), (0, 1e300))
    scene = Scene("booth", {"near": near}, None, 5)
    assert scene.outside == [] and scene.box[0][0] == -10 and 14 <= scene.box[0][1] < 16 and scene.box[1] == (-10, 10)
    scene = Scene("booth", {"near": near, "far": far}, None, 5)
    assert scene.outside == ["far"] and scene.box[1] == (-14, 10) and np.isfinite(scene.paths["far"]).all()
    assert Scene("booth", {"near": near}, ((-3, 3), (-3, 3)), 5).box == ((-3, 3), (-3, 3))
    start = Scene("booth", path((40, 0), (39, 0)), None, 5)
    assert start.box[0][1] > 40 and start.outside == []


def test_ticks_are_heights_on_the_scale():
    places, labels = Scene("rosenbrock", (), None, 51).ticks()
    assert labels[0] == "0" and len(labels) <= 8 and (np.diff(places) > 0).all()
    np.testing.assert_allclose(places, np.log1p([float(label) for label in labels]))


def test_labels():
    sgd = lab.record("sgd", "beale", 2)
    assert list(by_label([TRACE, TRACE, sgd])) == ["Adam, lr 0.2", "Adam, lr 0.2 (2)", "SGD, lr 0.001"]
    assert list(by_label({"mine": TRACE})) == ["mine"] and list(by_label(())) == []


# ---- the pictures -------------------------------------------------------------------------------------------------


def test_contour_shows_the_path_of_the_record():
    fig = lab.draw_contour("himmelblau", {"Adam": TRACE})
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    assert np.array_equal(lines["Adam"].get_xydata(), TRACE.path)
    assert np.array_equal(lines["minimum"].get_xydata(), lab.surface("himmelblau").minima)
    assert lines["start"].get_xydata().tolist() == [[0, 0]]
    assert texts(fig) == ["Adam", "start", "minimum"] and fig.axes[1].get_ylabel() == "height above the minimum"
    fig = lab.draw_contour(parabola, box=BOX, points=9)
    assert texts(fig) == [] and fig.axes[1].get_ylabel() == "height above the lowest point shown"


def test_contour_says_who_leaves():
    trace = lab.record("sgd", "himmelblau", 4, lr=0.03)
    fig = lab.draw_contour("himmelblau", trace, box=((-1, 1), (-1, 1)))
    assert fig.axes[0].texts[0].get_text() == "leaves the picture: SGD, lr 0.03"


def test_paths_lie_on_the_surface_in_space():
    line = lab.draw_surface_3d("himmelblau", TRACE).axes[0].lines[0]
    x, y, z = line.get_data_3d()
    np.testing.assert_allclose(z, np.log1p(lab.surface("himmelblau")(np.stack([x, y]))))
    assert np.array_equal(np.stack([x, y])[:, ::12], TRACE.path.T)


def test_descent_shows_steps_and_slopes():
    runs = {lr: lab.record("sgd", parabola, 6, start=[2.0], lr=lr) for lr in (0.1, 1.1)}
    slow, wild = lab.draw_descent(parabola, {f"lr {lr}": run for lr, run in runs.items()}).axes
    curve, *tangents, points = slow.lines
    w = runs[0.1].path[:, 0]
    np.testing.assert_allclose(points.get_xydata(), np.stack([w, w ** 2], axis=1), rtol=1e-6)
    (x1, y1), (x2, y2) = tangents[0].get_xydata()
    assert (y2 - y1) / (x2 - x1) == pytest.approx(2 * 2.0) and (x1 + x2) / 2 == pytest.approx(2.0)
    assert [text.get_text() for text in wild.texts][-1] == "step 3 leaves the picture"
    assert len(wild.lines[-1].get_xdata()) == 3 and slow.get_xlim() == wild.get_xlim()
    assert lab.draw_descent("reddi", lab.record("adam", "reddi", 5)).axes[0].get_xlim() == (-1, 1)


# ---- moving -------------------------------------------------------------------------------------------------------


def test_runs_move_at_the_pace_of_their_gradients():
    sam = lab.record(lambda params: optim.SAM(params, optim.SGD, lr=0.01), "himmelblau", 10)
    shown = moments({"SAM": sam, "Adam": TRACE}, 31)
    assert shown["Adam"].tolist() == list(range(31))
    assert shown["SAM"].tolist() == [min(k // 2, 10) for k in range(31)]


def test_frames_begin_at_the_start_and_end_with_the_paths():
    pictures = draw_frames({"Adam": TRACE}, "himmelblau", 4)
    first, *_, last = [np.asarray(picture).astype(int) for picture in pictures]
    blue = np.array([0x00, 0x72, 0xB2])
    pixels = [int((abs(picture - blue).sum(axis=2) < 30).sum()) for picture in (first, last)]
    assert first.shape == (320, 400, 3) and 0 < pixels[0] < pixels[1] / 2


def test_gif(tmp_path):
    from PIL import Image
    path = lab.to_gif({"Adam": TRACE, "SGD": lab.record("sgd", "himmelblau", 30, lr=0.01)}, "himmelblau",
                      tmp_path / "race.gif", fps=10, frames=12)
    with Image.open(path) as image:
        lasts = [image.seek(k) or image.info["duration"] for k in range(image.n_frames)]
        assert image.size == (400, 320) and sum(lasts) == 11 * 100 + 1500
    assert path.stat().st_size < 150_000


# ---- bad arguments ------------------------------------------------------------------------------------------------

CHAIN = lab.record("sgd", "chain", 2)
TWO = lab.record("sgd", lambda a, b: (a * b).sum(), 2, {"a": 1.0, "b": 2.0})
NOWHERE = replace(lab.record("sgd", parabola, 1, [1.0]), parameters={"w": np.full((2, 1), np.nan)})
BAD = [
    (lab.draw_contour, ("chain",), {}, "chain has 20"), (lab.draw_contour, (parabola,), {}, "give box="),
    (lab.draw_contour, ("beal",), {}, "nearest are beale"), (lab.draw_contour, (7,), {}, "got int"),
    (lab.draw_contour, ("beale", CHAIN), {}, "on chain has 20"), (lab.draw_contour, ("beale", 3), {}, "got int"),
    (lab.draw_contour, ("beale", [3]), {}, "got int"), (lab.draw_contour, ("beale",), dict(points=1), "points must be"),
    (lab.draw_contour, (parabola,), dict(box=3), "two intervals"),
    (lab.draw_contour, (parabola,), dict(box=((1, 0), (0, 1))), "low < high"),
    (lab.draw_contour, (lambda w: w,), dict(box=BOX), "must return one number"),
    (lab.draw_contour, (lambda w: w.sum() * np.nan,), dict(box=BOX, points=3), "finite nowhere"),
    (lab.draw_surface_3d, ("chain",), {}, "chain has 20"), (lab.draw_descent, (parabola, ()), {}, "traces is empty"),
    (lab.draw_descent, (parabola, TRACE), {}, "one coordinate"), (lab.to_gif, ((), "beale", "x.gif"), {}, "empty"),
    (lab.to_gif, (TRACE, "beale", "x.gif"), dict(fps=0), "fps must lie"),
    (lab.to_gif, (TRACE, "beale", "x.gif"), dict(frames=1), "frames must be"),
    (lab.to_gif, (TRACE, "beale", "x.gif"), dict(fps="fast"), "fps must be a number"),
    (lab.draw_contour, (lambda w: "high",), dict(box=BOX), "must return one number, it returned 'high'"),
    (lab.draw_contour, (parabola, TWO), dict(box=BOX), "of one Tensor, and the run 'SGD, lr 0.001' has 2: a, b"),
    (lab.draw_descent, (parabola, NOWHERE), {}, "does not begin at a finite number"),
]


@pytest.mark.parametrize("function, arguments, options, message", BAD)
def test_bad_arguments_say_the_way_out(function, arguments, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        function(*arguments, **options)
