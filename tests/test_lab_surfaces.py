"""Surfaces: heights and gradients at known points, minima that are minima, names that are found."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import SURFACES, list_surfaces, surface

each = pytest.mark.parametrize("name", SURFACES)
PLANE = [name for name in SURFACES if surface(name).dimensions == 2]


def gradient(f, point):
    w = tg.tensor(np.array(point, float), requires_grad=True)
    f(w).backward()
    return w.grad.numpy()


# Worked out by hand, or of the sources (Moré, Garbow & Hillstrom 1981; Jamil & Yang 2013).
KNOWN = [
    ("rosenbrock", (-1.2, 1.0), 24.2, (-215.6, -88.0)), ("beale", (1, 1), 14.203125, (0, 27.75)),
    ("himmelblau", (0, 0), 170, (-14, -22)), ("rastrigin", (0.25, 0), 10.0625, (0.5 + 20 * np.pi, 0)),
    ("saddle", (1, 2), 1, (2, 4)), ("monkey_saddle", (1, 1), -2, (0, -6)), ("booth", (0, 0), 74, (-34, -38)),
    ("mccormick", (0, 0), 1, (-0.5, 3.5)), ("styblinski_tang", (1, -1), -15, (-11.5, 16.5)),
    ("three_hump_camel", (1, 1), 2 - 1.05 + 1 / 6 + 2, (4 - 4.2 + 1 + 1, 3)), ("goldstein_price", (0, -1), 3, (0, 0)),
    ("goldstein_price", (0, 0), 600, (720, 720)), ("easom", (np.pi, 0), np.exp(-np.pi ** 2), (0, 2 * np.pi * np.exp(
        -np.pi ** 2))), ("ravine", (1, 2), 200.5, (1, 200)), ("reddi", (0.5,), 1 / 6, (1 / 3,)),
]


@pytest.mark.parametrize("name, point, height, slope", KNOWN)
def test_heights_and_gradients_are_the_known_ones(name, point, height, slope):
    f = surface(name)
    assert float(f(np.array(point, float))) == pytest.approx(height, rel=1e-12)
    np.testing.assert_allclose(gradient(f, point), slope, rtol=1e-10, atol=1e-9)


@each
def test_minima_are_lowest(name):
    f = surface(name)
    heights = [float(f(m)) for m in f.minima]
    np.testing.assert_allclose(heights, f.lowest, rtol=1e-9, atol=1e-9)
    if name not in ("ackley", "reddi"):                              # a kink, and an edge
        assert all(np.abs(gradient(f, m)).max() < 1e-6 for m in f.minima)
    if f.dimensions == 2:
        assert f.grid(41)[2].min() >= f.lowest - 1e-9
    assert np.isfinite(float(f(f.start))) and len(f.box) == f.dimensions == len(f.start)


@each
def test_tensors_and_arrays_agree(name):
    f = surface(name)
    assert f(tg.tensor(f.start)).item() == pytest.approx(float(f(f.start)), rel=1e-14)
    if f.dimensions == 2:
        x, y, z = f.grid(5)
        assert z.shape == (5, 5) and z[1, 3] == pytest.approx(float(f(np.array([x[3], y[1]]))), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in SURFACES if surface(name).sample])
def test_samples_have_the_mean_of_the_whole(name):
    f, random = surface(name), np.random.default_rng(0)
    w = f.start + 0.1
    slopes = np.array([gradient(f.sample(t, random), w) for t in range(3000)])
    error = slopes.std(axis=0) / len(slopes) ** 0.5
    assert (np.abs(slopes.mean(axis=0) - gradient(f, w)) <= 5 * error + 1e-12).all() and slopes.std() > 0.1


def test_an_ackley_kink_has_no_gradient():
    with np.errstate(all="ignore"):
        assert np.isnan(gradient(surface("ackley"), (0, 0))).all()


def test_numbers_are_chosen():
    assert surface("ravine", kappa=7)(np.array([0.0, 1.0])) == 3.5
    assert surface("chain", n=5).dimensions == 5
    step = gradient(surface("chain", n=5), np.zeros(5))
    assert step.tolist() == [-1, 0, 0, 0, 0], "a light cone"


@pytest.mark.parametrize("call, words", [
    (lambda: surface("himelblau"), "nearest are himmelblau"),
    (lambda: surface("ravine", kappa=0.5), r"kappa must lie in \[1, inf\), got 0.5"),
    (lambda: surface("ravine", kappa="much"), "kappa must be a number"),
    (lambda: surface("chain", n=1), "n must be a whole number of at least 2"),
    (lambda: surface("chain").grid(), "20 coordinates"), (lambda: surface("booth").grid(1), "at least 2"),
    (lambda: surface("reddi", C=1), r"\(2, inf\), got 1"),
    (lambda: surface("noisy_ravine", batch=0), "batch must be a whole number of at least 1"),
    (lambda: surface("noisy_moons", samples=-1), "samples must be"),
    (lambda: surface("booth", row=1), "booth has no option 'row'; it takes none"),
    (lambda: surface("ravine", kapa=3), "no option 'kapa'; it takes kappa"),
    (lambda: surface(surface("ravine"), kappa=3), "made already"),
    (lambda: surface("booth")([1.0, 2.0, 3.0]), r"2 coordinates.*got shape \(3,\)"),
    (lambda: surface("chain")(np.zeros(2)), "20 coordinates"), (lambda: surface("booth")(3.0), r"shape \(\)")])
def test_bad_input(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_a_point_may_be_a_list():
    assert surface("styblinski_tang")([1.0, 2.0]) == surface("styblinski_tang")(np.array([1.0, 2.0]))
    x, y = (tg.tensor(value, requires_grad=True) for value in (1.0, 2.0))
    surface("booth")([x, y]).backward()
    assert (x.grad.item(), y.grad.item()) == tuple(gradient(surface("booth"), (1, 2)))


def test_names():
    assert list_surfaces() == list(SURFACES) and surface("Three-Hump Camel").name == "three_hump_camel"
    f = surface("booth")
    assert surface(f) is f and "easy control" in repr(f)
