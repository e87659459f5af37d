"""Problems of Moré, Garbow & Hillstrom, ACM Trans. Math. Softw. 7 (1981): residuals, standard starts, known minima.

The loss is the sum of squares of the residuals. Minima are those of the paper, to more digits where it gives six;
with local ones, and infima that are approached at infinity. Each is numbered as there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import tinygrad_opt as tg

NEAR = 1e-6                         # solved: this near to a minimum, relative above 1 and absolute below


@dataclass(frozen=True)
class Problem:
    """A function from n parameters to residuals, both Tensors; a start; and the values of known minima."""

    name: str
    residuals: Callable
    start: np.ndarray
    minima: tuple[float, ...]

    def loss(self, x):
        return (self.residuals(x) ** 2).sum()

    def solved(self, value):
        return any(abs(value - least) <= NEAR * max(1.0, abs(least)) for least in self.minima)


PROBLEMS = {}


def problem(name, start, *minima):
    def add(residuals):
        PROBLEMS[name] = Problem(name, residuals, np.array(start, float), minima)
        return residuals
    return add


def count(m):
    """Return 1, 2, ..., m."""
    return np.arange(1.0, m + 1)


@problem("Rosenbrock", [-1.2, 1], 0.0)
def p1(x):
    return tg.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


@problem("Freudenstein and Roth", [0.5, -2], 0.0, 48.98425367924)
def p2(x):
    return tg.stack([-13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1], -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1]])


@problem("Powell badly scaled", [0, 1], 0.0)
def p3(x):
    return tg.stack([1e4 * x[0] * x[1] - 1, tg.exp(-x[0]) + tg.exp(-x[1]) - 1.0001])


@problem("Brown badly scaled", [1, 1], 0.0)
def p4(x):
    return tg.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


@problem("Beale", [1, 1], 0.0)
def p5(x):
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** count(3))


@problem("Jennrich and Sampson", [0.3, 0.4], 124.3621823556)
def p6(x):
    i = count(10)
    return 2 + 2 * i - (tg.exp(i * x[0]) + tg.exp(i * x[1]))


@problem("helical valley", [-1, 0, 0], 0.0)
def p7(x):
    turn = tg.atan(x[1] / x[0]) / (2 * math.pi) + (0.5 if x[0].item() < 0 else 0.0)
    return tg.stack([10 * (x[2] - 10 * turn), 10 * (tg.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


@problem("Bard", [1, 1, 1], 8.214877306578e-3, 17.4286933)
def p8(x):
    y = np.array([0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39])
    u = count(15)
    v = 16 - u
    return y - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2]))


@problem("Gaussian", [0.4, 1, 0], 1.12793e-8)
def p9(x):
    half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
    y, t = np.array([*half, 0.3989, *half[::-1]]), (8 - count(15)) / 2
    return x[0] * tg.exp(-x[1] * (t - x[2]) ** 2 / 2) - y


@problem("Meyer", [0.02, 4000, 250], 87.9458551705)
def p10(x):
    y = np.array([34780.0, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307,
                  2872])
    return x[0] * tg.exp(x[1] / (45 + 5 * count(16) + x[2])) - y


@problem("Gulf research and development", [5, 2.5, 0.15], 0.0)
def p11(x):
    t = count(99) / 100
    return tg.exp(-tg.abs(25 + (-50 * np.log(t)) ** (2 / 3) - x[1]) ** x[2] / x[0]) - t


@problem("Box three-dimensional", [0, 10, 20], 0.0)
def p12(x):
    t = count(10) / 10
    return tg.exp(-t * x[0]) - tg.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x):
    a, b, c, d = (x[k::4] for k in range(4))
    return tg.concatenate([a + 10 * b, 5 ** 0.5 * (c - d), (b - 2 * c) ** 2, 10 ** 0.5 * (a - d) ** 2])


problem("Powell singular", [3, -1, 0, 1], 0.0)(powell_singular)
problem("extended Powell singular", [3, -1, 0, 1] * 5, 0.0)(powell_singular)


@problem("Wood", [-3, -1, -3, -1], 0.0)
def p14(x):
    return tg.stack([10 * (x[1] - x[0] ** 2), 1 - x[0], 90 ** 0.5 * (x[3] - x[2] ** 2), 1 - x[2],
                     10 ** 0.5 * (x[1] + x[3] - 2), 10 ** -0.5 * (x[1] - x[3])])


@problem("Kowalik and Osborne", [0.25, 0.39, 0.415, 0.39], 3.075056038e-4, 1.02734e-3)
def p15(x):
    y = np.array([0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246])
    u = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
    return y - x[0] * (u ** 2 + u * x[1]) / (u ** 2 + u * x[2] + x[3])


@problem("Brown and Dennis", [25, 5, -5, -1], 85822.20162635)
def p16(x):
    t = count(20) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + x[3] * np.sin(t) - np.cos(t)) ** 2


@problem("Osborne 1", [0.5, 1.5, -1, 0.01, 0.02], 5.46489e-5)
def p17(x):
    y = np.array([844, 908, 932, 936, 925, 908, 881, 850, 818, 784, 751, 718, 685, 658, 628, 603, 580, 558, 538, 522,
                  506, 490, 478, 467, 457, 448, 438, 431, 424, 420, 414, 411, 406]) / 1000
    t = 10 * (count(33) - 1)
    return y - (x[0] + x[1] * tg.exp(-t * x[3]) + x[2] * tg.exp(-t * x[4]))


@problem("Biggs EXP6", [1, 2, 1, 1, 1, 1], 0.0, 5.65565e-3)
def p18(x):
    t = count(13) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * tg.exp(-t * x[0]) - x[3] * tg.exp(-t * x[1]) + x[5] * tg.exp(-t * x[4]) - y


@problem("Osborne 2", [1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5], 4.01377e-2)
def p19(x):
    y = np.array([1366, 1191, 1112, 1013, 991, 885, 831, 847, 786, 725, 746, 679, 608, 655, 616, 606, 602, 626, 651,
                  724, 649, 649, 694, 644, 624, 661, 612, 558, 533, 495, 500, 423, 395, 375, 372, 391, 396, 405, 428,
                  429, 523, 562, 607, 653, 672, 708, 633, 668, 645, 632, 591, 559, 597, 625, 739, 710, 729, 720, 636,
                  581, 428, 292, 162, 98, 54]) / 1000
    t = (count(65) - 1) / 10
    peaks = sum(x[k] * tg.exp(-(t - x[k + 7]) ** 2 * x[k + 4]) for k in (1, 2, 3))
    return y - (x[0] * tg.exp(-t * x[4]) + peaks)


def watson(x):
    powers = (count(29)[:, None] / 29) ** np.arange(x.shape[0])
    slopes = np.arange(1, x.shape[0]) * powers[:, :-1]
    rows = slopes @ x[1:] - (powers @ x) ** 2 - 1
    return tg.concatenate([rows, tg.stack([x[0], x[1] - x[0] ** 2 - 1])])


problem("Watson 6", [0] * 6, 2.28767e-3)(watson)
problem("Watson 9", [0] * 9, 1.39976e-6)(watson)


@problem("extended Rosenbrock", [-1.2, 1] * 10, 0.0)
def p21(x):
    return tg.concatenate([10 * (x[1::2] - x[::2] ** 2), 1 - x[::2]])


def penalty_1(x):
    return tg.concatenate([1e-5 ** 0.5 * (x - 1), tg.stack([(x ** 2).sum() - 0.25])])


problem("penalty I 4", count(4), 2.24997e-5)(penalty_1)
problem("penalty I 10", count(10), 7.08765e-5)(penalty_1)


def penalty_2(x):
    n = x.shape[0]
    i, e = np.arange(2.0, n + 1), tg.exp(x / 10)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    return tg.concatenate([x[:1] - 0.2, 1e-5 ** 0.5 * (e[1:] + e[:-1] - y), 1e-5 ** 0.5 * (e[1:] - np.exp(-0.1)),
                           tg.stack([(np.arange(n, 0, -1) * x ** 2).sum() - 1])])


problem("penalty II 4", [0.5] * 4, 9.37629e-6)(penalty_2)
problem("penalty II 10", [0.5] * 10, 2.93660e-4)(penalty_2)


@problem("variably dimensioned", 1 - count(10) / 10, 0.0)
def p25(x):
    moment = (count(10) * (x - 1)).sum()
    return tg.concatenate([x - 1, tg.stack([moment, moment ** 2])])


@problem("trigonometric", [0.1] * 10, 0.0, 2.79506e-5)
def p26(x):
    return 10 - tg.cos(x).sum() + count(10) * (1 - tg.cos(x)) - tg.sin(x)


@problem("Brown almost-linear", [0.5] * 10, 0.0, 1.0)
def p27(x):
    return tg.concatenate([x[:-1] + x.sum() - 11, tg.stack([tg.prod(x) - 1])])


def padded(x):
    """Return the neighbours before and after each entry, with 0 beyond the ends."""
    zero = np.zeros(1)
    return tg.concatenate([zero, x[:-1]]), tg.concatenate([x[1:], zero])


@problem("discrete boundary value", count(10) / 11 * (count(10) / 11 - 1), 0.0)
def p28(x):
    before, after = padded(x)
    t = count(10) / 11
    return 2 * x - before - after + (x + t + 1) ** 3 / (2 * 11 ** 2)


@problem("discrete integral equation", count(10) / 11 * (count(10) / 11 - 1), 0.0)
def p29(x):
    t = count(10) / 11
    kernel = np.minimum.outer(t, t) * (1 - np.maximum.outer(t, t))
    return x + kernel @ (x + t + 1) ** 3 / (2 * 11)


@problem("Broyden tridiagonal", [-1] * 10, 0.0)
def p30(x):
    before, after = padded(x)
    return (3 - 2 * x) * x - before - 2 * after + 1


@problem("Broyden banded", [-1] * 10, 0.0)
def p31(x):
    i = np.arange(10)
    apart = i[:, None] - i
    band = ((apart <= 5) & (apart >= -1) & (apart != 0)).astype(float)
    return x * (2 + 5 * x ** 2) + 1 - band @ (x * (1 + x))


def chebyquad(x):
    n = x.shape[0]
    before, now, rows = 1, 2 * x - 1, []
    for i in range(1, n + 1):
        rows.append(now.mean() + (1 / (i ** 2 - 1) if i % 2 == 0 else 0))
        before, now = now, 2 * (2 * x - 1) * now - before
    return tg.stack(rows)


problem("Chebyquad 6", count(6) / 7, 0.0)(chebyquad)
problem("Chebyquad 8", count(8) / 9, 3.51687e-3)(chebyquad)
