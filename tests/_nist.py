"""The nonlinear regressions of NIST's Statistical Reference Datasets, read from the files as NIST publishes them.

27 problems, work of the United States government in the public domain: https://www.itl.nist.gov/div898/strd/. A model
is a function of the parameters b1, b2, ... (an iterable, Tensors or NumPy arrays) and of the columns of predictors.
"""

import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ARCHIVE = Path(__file__).parent / "data" / "nist_strd.zip"


def lanczos(b, x):
    b1, b2, b3, b4, b5, b6 = b
    return b1 * np.exp(-b2 * x) + b3 * np.exp(-b4 * x) + b5 * np.exp(-b6 * x)


def peaks(b, x):
    b1, b2, b3, b4, b5, b6, b7, b8 = b
    return b1 * np.exp(-b2 * x) + b3 * np.exp(-((x - b4) / b5) ** 2) + b6 * np.exp(-((x - b7) / b8) ** 2)


def chwirut(b, x):
    b1, b2, b3 = b
    return np.exp(-b1 * x) / (b2 + b3 * x)


def saturation(b, x):
    b1, b2 = b
    return b1 * (1 - np.exp(-b2 * x))


def cubics(b, x):
    b1, b2, b3, b4, b5, b6, b7 = b
    return (b1 + b2 * x + b3 * x ** 2 + b4 * x ** 3) / (1 + b5 * x + b6 * x ** 2 + b7 * x ** 3)


def bennett(b, x):
    b1, b2, b3 = b
    return b1 * (b2 + x) ** (-1 / b3)


def danwood(b, x):
    b1, b2 = b
    return b1 * x ** b2


def eckerle(b, x):
    b1, b2, b3 = b
    return b1 / b2 * np.exp(-0.5 * ((x - b3) / b2) ** 2)


def enso(b, x):
    b1, b2, b3, b4, b5, b6, b7, b8, b9 = b
    turn = 2 * np.pi * x
    return (b1 + b2 * np.cos(turn / 12) + b3 * np.sin(turn / 12) + b5 * np.cos(turn / b4) + b6 * np.sin(turn / b4)
            + b8 * np.cos(turn / b7) + b9 * np.sin(turn / b7))


def kirby(b, x):
    b1, b2, b3, b4, b5 = b
    return (b1 + b2 * x + b3 * x ** 2) / (1 + b4 * x + b5 * x ** 2)


def mgh09(b, x):
    b1, b2, b3, b4 = b
    return b1 * (x ** 2 + x * b2) / (x ** 2 + x * b3 + b4)


def mgh10(b, x):
    b1, b2, b3 = b
    return b1 * np.exp(b2 / (x + b3))


def mgh17(b, x):
    b1, b2, b3, b4, b5 = b
    return b1 + b2 * np.exp(-x * b4) + b3 * np.exp(-x * b5)


def misra_b(b, x):
    b1, b2 = b
    return b1 * (1 - (1 + b2 * x / 2) ** -2)


def misra_c(b, x):
    b1, b2 = b
    return b1 * (1 - (1 + 2 * b2 * x) ** -0.5)


def misra_d(b, x):
    b1, b2 = b
    return b1 * b2 * x / (1 + b2 * x)


def nelson(b, x1, x2):
    b1, b2, b3 = b
    return b1 - b2 * x1 * np.exp(-b3 * x2)


def rat42(b, x):
    b1, b2, b3 = b
    return b1 / (1 + np.exp(b2 - b3 * x))


def rat43(b, x):
    b1, b2, b3, b4 = b
    return b1 / (1 + np.exp(b2 - b3 * x)) ** (1 / b4)


def roszman(b, x):
    b1, b2, b3, b4 = b
    return b1 - b2 * x - np.arctan(b3 / (x - b4)) / np.pi


MODELS = {
    "Bennett5": bennett, "BoxBOD": saturation, "Chwirut1": chwirut, "Chwirut2": chwirut, "DanWood": danwood,
    "ENSO": enso, "Eckerle4": eckerle, "Gauss1": peaks, "Gauss2": peaks, "Gauss3": peaks, "Hahn1": cubics,
    "Kirby2": kirby, "Lanczos1": lanczos, "Lanczos2": lanczos, "Lanczos3": lanczos, "MGH09": mgh09, "MGH10": mgh10,
    "MGH17": mgh17, "Misra1a": saturation, "Misra1b": misra_b, "Misra1c": misra_c, "Misra1d": misra_d,
    "Nelson": nelson, "Rat42": rat42, "Rat43": rat43, "Roszman1": roszman, "Thurber": cubics}


class Problem(NamedTuple):
    """A regression: y against model(b, *x); `starts` holds both starts, `b` the certified parameters."""

    name: str
    y: Any
    x: list[Any]
    starts: np.ndarray
    b: np.ndarray
    squares: float

    def residuals(self, b):
        """Return what the model at b misses of the response."""
        return MODELS[self.name](b, *self.x) - self.y

    def digits(self, b):
        """Return to how many digits the worst of the parameters agrees with the certified value, 11 at most."""
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = np.log10(np.abs(np.asarray(b, "f8") - self.b) / np.abs(self.b)).max()
        return float(np.clip(-lost, 0, 11)) if not np.isnan(lost) else 0.0


def read(name, array=np.asarray):
    """Return the problem of that name, its data as `array` makes them."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        lines = archive.read(f"{name}.dat").decode("ascii").splitlines()
    rows = [line.split("=")[1].split() for line in lines if re.match(r"\s*b\d+ =", line)]
    values = np.array(rows, "f8")
    squares = next(float(line.split(":")[1]) for line in lines if line.startswith("Residual Sum of Squares"))
    first = max(k for k, line in enumerate(lines) if line.startswith("Data:")) + 1
    data = np.array([line.split() for line in lines[first:] if line.strip()], "f8")
    y = np.log(data[:, 0]) if name == "Nelson" else data[:, 0]
    return Problem(name, array(y), [array(x) for x in data[:, 1:].T], values[:, :2].T, values[:, 2], squares)
