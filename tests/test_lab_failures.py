"""The gallery: every failure still fails, every cure still cures, and a page that claims too much raises."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab.school.gallery import PAGES, Story


@pytest.fixture(scope="module")
def told():
    return {name: tg.lab.failure(name) for name in tg.lab.failures()}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fails_cures_and_tells_its_story(told, name):
    found = told[name]
    assert found.happens and found.cured and found.panels and found.title == tg.lab.failures()[name]
    assert found.question.endswith("?") and str(found).startswith(f"{found.title} ({name})")
    assert all(line.split()[0] in str(found) for line in (*found.happens, *found.cured))
    assert found.title.split()[0] in found._repr_html_() and "<li>" in found._repr_html_()
    assert all(len(curve) and curve.ndim == 1 for curve in found.arrays.values())


@pytest.mark.parametrize("name", ["reddi", "float16"])
def test_the_picture_shows_the_curves(told, name):
    axes, = told[name].draw().axes
    curves, = told[name].panels
    for line, (label, curve) in zip(axes.lines, curves.curves.items()):
        assert line.get_label() == label and np.array_equal(line.get_ydata(), curve, equal_nan=True)


def test_famous_numbers(told):
    assert told["reddi"].arrays["x: Adam, beta2 = 0.1"][-60:].mean() > 0.98
    leap = told["rmsprop_start"].arrays["length of the step, in lr: RMSprop"]
    np.testing.assert_allclose(leap, 1 / np.sqrt(1 - 0.99 ** np.arange(1, 201)), rtol=1e-5)
    swing = told["zero_grad"].arrays["w: without zero_grad"]
    angle = np.arccos(1 - 0.1 / 2)                          # of a step of the pendulum, from its recursion
    np.testing.assert_allclose(swing, np.cos((np.arange(201) + 0.5) * angle) / np.cos(angle / 2), atol=1e-9)
    assert np.isnan(told["float16"].panels[0].curves["float16, eps 1e-8"][0])


def test_a_claim_that_does_not_hold_raises():
    story = Story()
    story.happens(1 > 0, "one is more than nothing")
    with pytest.raises(AssertionError, match="does not hold: nothing is more"):
        story.cured(0 > 1, "nothing is more than one")
    assert story.happened == ["one is more than nothing"] and story.were_cured == []


def test_names():
    assert len(tg.lab.failures()) == 12 and tg.lab.failure("Float-16").name == "float16"
    with pytest.raises(ValueError, match="nearest are reddi"):
        tg.lab.failure("redi")
