"""Does an optimizer go where its reference implementation went? The recorded runs come with the package.

They were made by PyTorch, optax or the authors' own code (each record says which, and its version) on four small
problems in double precision; `examples/pack_oracles.py` describes the file. Gradients come from the closed formulas
below, so what is compared is the optimizer and nothing else.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import xp
from ..tensor import Tensor
from .optimizer import Optimizer
from .registry import find, list_optimizers, optimizer_class

ORACLES = Path(__file__).with_name("oracles.zip")
RELATIVE = 1e-9                     # what a recorded value allows besides its absolute tolerance


# ---- the problems: loss and gradients in closed form ----------------------------------------------------------


def tanh_layer(d, W, b):
    Z = xp.tanh(d["X"] @ W + b)
    E = Z - d["Y"]
    D = 2 / E.size * E * (1 - Z ** 2)
    return (E ** 2).mean(), (d["X"].T @ D, D.sum(axis=0))


def quadratic(d, x):
    g = d["A"] @ (x - d["c"])
    return (x - d["c"]) @ g / 2, (g,)


def quartic(d, x):
    e = x - d["c"]
    return (d["a"] * e ** 2 / 2 + e ** 4 / 4).sum(), (d["a"] * e + e ** 3,)


def matrix(d, M):
    E = d["L"] @ M @ d["R"] - d["C"]
    return (E ** 2).mean(), (2 / E.size * d["L"].T @ E @ d["R"].T,)


PROBLEMS = {"P1": tanh_layer, "P2": quadratic, "P3": quartic, "P4": matrix}


# ---- the records ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One run of a reference implementation.

    Attributes
    ----------
    id, problem, reference, note : str
        Its name, the problem's, what was run with its version, and what is special.
    settings : dict
        The options that differ from the defaults.
    data, start : dict of str to ndarray
        The constants of the problem, and its parameters before the first step.
    steps : list of int
        After these steps the points were recorded, counted from 1.
    curves : dict
        "params" and, of schedule-free optimizers, "x" and "z": parameter name -> its values at these steps.
    tolerance : float
        How far a value may lie from the recorded one, besides 1e-9 of its size: rounding, nothing else.
    """

    id: str
    problem: str
    reference: str
    note: str
    settings: dict[str, Any]
    data: dict[str, np.ndarray]
    start: dict[str, np.ndarray]
    steps: list[int]
    curves: dict[str, dict[str, np.ndarray]]
    tolerance: float


@cache
def recorded() -> tuple[str, ...]:
    """Return the names of the optimizers of which there are recorded runs."""
    with zipfile.ZipFile(ORACLES) as file:
        return tuple(name[:-3] for name in file.namelist() if name.endswith(".f8"))


def records(name: str) -> list[Record]:
    """Return the recorded runs of an optimizer.

    Examples
    --------
    >>> from tinygrad_opt.optim.verify import records
    >>> first = records("Adan")[0]
    >>> first.id, first.reference, first.curves["params"]["W"].shape
    ('Adan-P1-0', 'sail-sg/Adan commit 2c65beaf', (8, 3, 2))
    """
    with zipfile.ZipFile(ORACLES) as file:
        problems, heads = (json.loads(file.read(f"{member}.json")) for member in ("problems", name))
        numbers = np.frombuffer(file.read(f"{name}.f8"), "<f8")
    result, place = [], 0
    for head in heads:
        problem = {key: {k: np.array(v) for k, v in part.items()} for key, part in problems[head["problem"]].items()}
        curves = {curve: {} for curve in head["curves"]}
        for curve, names in head["curves"].items():
            for key in names:
                shape = (len(head["steps"]), *problem["start"][key].shape)
                curves[curve][key] = numbers[place:(place := place + np.prod(shape))].reshape(shape)
        settings = {key: tuple(value) if isinstance(value, list) else value for key, value in head["kwargs"].items()}
        result.append(Record(head["id"], head["problem"], head["reference"], head.get("note", ""),
                             settings, **problem, steps=head["steps"], curves=curves, tolerance=head["tolerance"]))
    return result


# ---- how an optimizer is driven: (class, params, settings, gradients) -> the optimizer, and step(t) -----------
# `gradients()` sets the gradients at the point where the parameters stand, and returns the loss there.


def _plainly(cls, params, settings, gradients):
    optimizer = cls(params, **settings)

    def step(t):
        gradients()
        optimizer.step()
    return optimizer, step


def _by_closure(cls, params, settings, gradients):
    optimizer = cls(params, **settings)
    return optimizer, lambda t: optimizer.step(gradients)


def _sam(cls, params, settings, gradients):
    base = optimizer_class(settings["base_optimizer"])
    optimizer = cls(params, base, **{key: value for key, value in settings.items() if key != "base_optimizer"})

    def step(t):
        gradients()
        optimizer.first_step()
        gradients()
        optimizer.second_step()
    return optimizer, step


def _lookahead(cls, params, settings, gradients):
    own = {key: settings[key] for key in ("k", "alpha") if key in settings}
    base = {key: value for key, value in settings.items() if key not in ("base_optimizer", *own)}
    return _plainly(cls, optimizer_class(settings["base_optimizer"])(params, **base), own, gradients)


def _sophia(cls, params, settings, gradients):
    settings = dict(settings)
    bs, every = settings.pop("bs", 5120), settings.pop("update_every", 10)
    optimizer = cls(params, **settings)

    def step(t):
        if t % every == 1 % every:                  # the recorded runs were given this for an estimated Hessian
            for j, p in enumerate(params):
                i = xp.arange(p.data.size)
                estimate = (0.02 + 0.01 * ((7 * i + 3 * j + t) % 5)) * (1 - 2 * ((i + t) % 2))
                p.grad = Tensor(estimate.reshape(p.shape).astype(p.dtype))
            optimizer.update_hessian()
        gradients()
        optimizer.step(bs=bs)
    return optimizer, step


def _schedule_free(cls, params, settings, gradients):
    optimizer, step = _plainly(cls, params, settings, gradients)
    optimizer.train()
    return optimizer, step


DRIVERS = {**dict.fromkeys(("PolyakSGD", "LBFGS", "AdaHessian"), _by_closure), "SAM": _sam, "Lookahead": _lookahead,
           "SophiaG": _sophia, "ScheduleFreeSGD": _schedule_free, "ScheduleFreeAdamW": _schedule_free}


def driver(name: str) -> Callable:
    """Return how the optimizer of a name is stepped: gradients and `step()` unless it asks for more."""
    return DRIVERS.get(name, _plainly)


# ---- the comparison -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A record, the largest difference of a value from it, and whether all lie within its tolerance."""

    record: Record
    largest: float
    ok: bool


class Verification(list[Result]):
    """The results of an optimizer, one for each record; printed as a table."""

    def __init__(self, name: str, results: list[Result]) -> None:
        super().__init__(results)
        self.name = name

    @property
    def largest(self) -> float:
        """The largest difference of all."""
        return float(np.max([result.largest for result in self]))            # NaN, where one is

    @property
    def ok(self) -> bool:
        """Whether every value lies within the tolerance of its record."""
        return all(result.ok for result in self)

    def __str__(self) -> str:
        rows = [("record", "problem", "steps", "largest difference", "tolerance", "ok", "settings")]
        for result in self:
            record = result.record
            problem = PROBLEMS[record.problem].__name__.replace("_", " ")
            settings = ", ".join(f"{key}={value!r}" for key, value in record.settings.items())
            rows.append((record.id, problem, str(record.steps[-1]), f"{result.largest:.1e}",
                         f"{record.tolerance:.1e}", "yes" if result.ok else "NO", settings or "the defaults"))
        widths = [max(map(len, column)) for column in zip(*rows)]
        adjust = [str.ljust, str.ljust, str.rjust, str.rjust, str.rjust, str.ljust, str.ljust]
        title, *rows = ["  ".join(put(cell, width) for put, cell, width in zip(adjust, row, widths)).rstrip()
                        for row in rows]
        lines = [title]
        for reference, runs in groupby(zip(self, rows), key=lambda run: run[0].record.reference):
            lines += [f"by {reference}:", *(row for _, row in runs)]
        verdict = "all within tolerance" if self.ok else "NOT within tolerance"
        return "\n".join([*lines, f"{self.name}: largest difference {self.largest:.1e} in {len(self)} runs, {verdict}"])

    def __repr__(self) -> str:
        return f"<Verification of {self.name}: {len(self)} runs, largest {self.largest:.1e}, ok={self.ok}>"


def closed_form(record: Record, params: dict[str, Tensor]) -> Tensor:
    """Set the gradients of a record's problem by its closed formula and return its loss."""
    data = {key: xp.asarray(value) for key, value in record.data.items()}
    loss, gradients = PROBLEMS[record.problem](data, **{key: p.data for key, p in params.items()})
    for p, g in zip(params.values(), gradients):
        p.grad = Tensor(g)
    return Tensor(loss)


def with_graph(record: Record, params: dict[str, Tensor]) -> Tensor:
    """Return the loss of a record's problem with its graph, for methods that differentiate it themselves."""
    return PROBLEMS[record.problem]({key: Tensor(value) for key, value in record.data.items()}, **params)[0]


EVALUATE = {"AdaHessian": with_graph}


def replay(cls: type[Optimizer], name: str, record: Record, evaluate: Callable | None = None) -> Result:
    """Repeat a recorded run with an optimizer.

    Parameters
    ----------
    cls : type
        The optimizer.
    name : str
        Of the optimizer whose run it is: it is stepped in that one's way.
    record : Record
        The run.
    evaluate : callable, optional
        `evaluate(record, params)` sets the gradients of the parameters, by name, and returns the loss; by their closed
        formulas, unless the method differentiates the loss itself.
    """
    evaluate = evaluate or EVALUATE.get(name, closed_form)
    params = {key: Tensor(value, requires_grad=True) for key, value in record.start.items()}
    trained = [params[key] for key in record.curves["params"]]
    optimizer, step = driver(name)(cls, trained, record.settings, lambda: evaluate(record, params))
    largest, ok = 0.0, True
    for t in range(1, record.steps[-1] + 1):
        step(t)
        if t in record.steps:
            for curve, values in record.curves.items():
                points = _points(optimizer, trained, curve)
                for point, wanted in zip(points, (value[record.steps.index(t)] for value in values.values())):
                    difference = np.abs(point - wanted)
                    largest = float(np.maximum(largest, difference.max()))             # NaN stays
                    ok &= bool((difference <= record.tolerance + RELATIVE * np.abs(wanted)).all())
    return Result(record, largest, ok)


def _points(optimizer: Optimizer, params: list[Tensor], curve: str) -> list[np.ndarray]:
    """Return where a curve stands: the parameters, z, or x, which they are while evaluating."""
    if curve == "z":
        params = [optimizer.state[p]["z"] for p in params]
    if curve == "x":
        optimizer.eval()
    points = [p.numpy().copy() for p in params]
    if curve == "x":
        optimizer.train()
    return points


def verify(optimizer: str | type[Optimizer], against: str | None = None) -> Verification:
    """Repeat the recorded runs of the reference implementation and print how far from them an optimizer ends.

    Parameters
    ----------
    optimizer : str or type
        The name of an optimizer of the suite, in any spelling, or a class of your own that takes the same options.
    against : str, optional
        Whose runs; the optimizer's own by default. `verify(MyAdam, "Adam")` holds yours to Adam's.

    Returns
    -------
    Verification
        A list with a result for each run, and `.largest` and `.ok` of all.

    Raises
    ------
    ValueError
        When there is no such optimizer, or no run of it, naming the nearest.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> result = tg.optim.verify("Lion")  # doctest: +ELLIPSIS
    record     problem     steps  largest difference  tolerance  ok   settings
    by optax 0.2.8 optax.lion:
    Lion-P1-0  tanh layer     60             ...    1.0e-09  yes  the defaults
    Lion-P2-0  quadratic      60             ...    1.0e-09  yes  the defaults
    Lion-P1-1  tanh layer     60             ...    1.0e-09  yes  betas=(0.8, 0.95), weight_decay=0.1, lr=0.01
    Lion-P2-1  quadratic      60             ...    1.0e-09  yes  betas=(0.8, 0.95), weight_decay=0.1, lr=0.02
    Lion: largest difference ... in 4 runs, all within tolerance
    >>> result.ok, result.largest < 1e-12
    (True, True)
    """
    from .. import optim
    known = [*dict.fromkeys([*list_optimizers(), *recorded()])]                 # wrappers too, where they have runs
    cls = getattr(optim, find(optimizer, known)) if isinstance(optimizer, str) else optimizer
    name = find(against or cls.__name__, recorded(), "optimizer with recorded runs")
    with np.errstate(all="ignore"):                 # a wrong optimizer may diverge, and the table says so
        result = Verification(cls.__name__, [replay(cls, name, record) for record in records(name)])
    print(result)
    return result
