"""Trace: the record of a run, in plain arrays. Every picture, table and export of the laboratory reads one."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..io import load, save
from ..optim.attribution import attributions
from ..optim.optimizer import Optimizer
from ..optim.registry import optimizer_class
from ..optim.replay import Replay, replays, stepping
from ..optim.second_order.base import SecondOrder
from ..optim.second_order.lbfgs import LBFGS
from ..optim.sophia import SophiaG, SophiaH
from ..spelling import SPEED
from ..tensor import Tensor
from .arguments import refuse_unknown, whole
from .objective import Objective
from .snapshots import untouched

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class Trace:
    """What happened in a run of n steps. Step k, from 0, goes from parameters[k] to parameters[k + 1].

    Attributes
    ----------
    optimizer, function : str
        Who ran on what.
    options : dict
        Of the optimizer's first group, as they were at the beginning.
    formula : str
        The rule, a line a statement; empty for a method that has none.
    parameters : dict of (n + 1, ...) arrays
        By name, the starting point first.
    loss : (n + 1,) array
        At each point, of the batch or the samples that the step saw; the last of the whole function, NaN for a model.
    gradients : dict of (n, ...) arrays
        As they came from backward; NaN in a step that left none, of a parameter that the loss does not depend on, say.
    quantities : dict of dict of (n, ...) arrays
        Of each parameter what its rule names, `m_hat` or `lr`, with the last value that a step gave it.
    state : dict of dict of (n, ...) arrays
        Of each parameter what the optimizer keeps, after each step.
    lr : (n,) array
        The learning rate of the first group in each step; NaN where there is none.
    evaluations : (n,) array of int
        Gradients taken by the end of each step; a product with curvature counts as one.
    shares : dict of dict of (n, ...) arrays
        Of each parameter what `optim.attribution` makes of each step: `gradient`, `memory`, `decay`, `clipping`,
        `schedule`, those that ever moved something. Their sum is the step of the rule; rules of matrices have none.
    """

    optimizer: str
    function: str
    options: dict[str, Any]
    formula: str
    parameters: Arrays
    loss: np.ndarray
    gradients: Arrays
    quantities: dict[str, Arrays] = field(repr=False)
    state: dict[str, Arrays] = field(repr=False)
    lr: np.ndarray
    evaluations: np.ndarray
    shares: dict[str, Arrays] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.lr)

    @property
    def path(self) -> np.ndarray:
        """All parameters of each point as one vector, (n + 1, size)."""
        return np.concatenate([p.reshape(len(p), -1) for p in self.parameters.values()], axis=1)

    @property
    def updates(self) -> Arrays:
        """What each step added to each parameter."""
        return {name: np.diff(p, axis=0) for name, p in self.parameters.items()}

    @property
    def rates(self) -> Arrays:
        """The effective rate of each coordinate: how far it went for its gradient, -update / gradient."""
        with np.errstate(all="ignore"):
            return {name: -update / self.gradients[name] for name, update in self.updates.items()}

    def columns(self) -> dict[str, np.ndarray]:
        """Return every number of every step by a name of its own, `w[0]` or `w.m_hat[1]`: the columns of a table."""
        n, found = len(self), {}
        found["step"], found["loss"] = np.arange(n), self.loss[:n]
        found["lr"], found["evaluations"] = self.lr, self.evaluations
        for name, p in self.parameters.items():
            _spread(found, name, p[:n])
            _spread(found, f"{name}.gradient", self.gradients[name])
            _spread(found, f"{name}.update", self.updates[name])
            for quantity, values in self.quantities.get(name, {}).items():
                if quantity not in ("p", "g"):
                    _spread(found, f"{name}.{quantity}", values)
            for key, values in self.state.get(name, {}).items():
                _spread(found, f"{name}.state.{key}", values)
            for source, parts in self.shares.get(name, {}).items():
                _spread(found, f"{name}.share.{source}", parts)
        return found

    def to_csv(self, path: str | PathLike) -> Path:
        """Write `columns`, a line a step, and return the path."""
        columns = self.columns()
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(values.tolist() for values in columns.values())))
        return Path(path)

    def to_json(self, path: str | PathLike | None = None) -> str:
        """Return the record as JSON, NaN and infinities as null; write it too where a path is given."""
        text = json.dumps(_jsonable(self._tree()), allow_nan=False)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def save(self, path: str | PathLike) -> Path:
        """Write a file that `Trace.load` reads back to the bit, and return its path."""
        save(self._tree(), path)
        return Path(path)

    @classmethod
    def load(cls, path: str | PathLike) -> Trace:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            When the file is damaged, or no trace.
        """
        tree = load(path)
        if not isinstance(tree, dict) or tree.keys() != {part.name for part in fields(cls)}:
            raise ValueError(f"{path}: a checkpoint, but not the record of a run; write one with trace.save()")
        return cls(**tree)

    def _tree(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def __repr__(self) -> str:
        return (f"<trace of {self.optimizer} on {self.function}: {len(self)} steps, {self.evaluations[-1]} gradients, "
                f"loss {self.loss[0]:.4g} to {self.loss[-2 if np.isnan(self.loss[-1]) else -1]:.4g}>")


def record(optimizer: Any, function: Any, steps: int, start: Any = None, *, data: Any = None,
           loss: Callable | None = None, seed: int = 0, **options: Any) -> Trace:
    """Run an optimizer and return the record of everything that it did.

    The run is the one that would have been without a record, to the bit.

    Parameters
    ----------
    optimizer : str, subclass of Optimizer, callable or Optimizer
        A name, such as "adamw"; a class; a function from (name, Tensor) pairs to an optimizer; or an optimizer over
        the parameters of a model, which goes on from where it is.
    function : Surface, str, callable or Module
        A surface or its name; a function from Tensors to a scalar Tensor; or a model, which is trained.
    steps : int
        At least 1.
    start : array_like or mapping, optional
        Where a function begins: numbers for one Tensor, called `w`, or names and numbers for several.
    data : (x, y) or iterable of (x, y), optional
        For a model: a batch, or batches that are gone through again and again.
    loss : callable, optional
        For a model: from its outputs and y to a scalar.
    seed : int, default 0
        Of a surface whose steps see samples.
    **options
        For a name or a class: its options, such as lr.

    Returns
    -------
    Trace

    Raises
    ------
    TypeError, ValueError
        When an argument is unknown or out of range, or the function returns no scalar.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> trace = tg.lab.record("adam", "rosenbrock", 200, lr=0.1)
    >>> trace
    <trace of Adam on rosenbrock: 200 steps, 200 gradients, loss 12.5 to 1.914>
    >>> trace.quantities["w"]["m_hat"].shape, trace.path[0].tolist()
    ((200, 2), [-1.5, 2.0])
    """
    steps, objective = whole("steps", steps), Objective(function, start, data, loss, seed)
    maker = make_optimizer(optimizer, objective.parameters, options)
    return Recorder(maker, objective).run(steps)


def check_options(maker: Any, options: Iterable[str], label: str = "") -> None:
    """Raise TypeError where a class, or a function of parameters, does not take one of some options."""
    takes = inspect.signature(maker).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        return
    known = list(takes)[1:]                         # after the parameters to optimize
    if isinstance(maker, type) and issubclass(maker, Optimizer):
        spelled = {*SPEED, *(("beta1", "beta2") if "betas" in known else ())}
        known, options = [*known, "grad_transforms"], [option for option in options if option not in spelled]
    refuse_unknown(label or getattr(maker, "__name__", type(maker).__name__), options, known)


def make_optimizer(optimizer: Any, parameters: dict[str, Tensor], options: dict[str, Any]) -> Optimizer:
    """Return an optimizer over named parameters, from its name, its class, or a function that makes it."""
    if isinstance(optimizer, Optimizer):
        if options:
            raise TypeError(f"a made {type(optimizer).__name__} has its options; leave out {', '.join(options)}")
        held = {p for group in optimizer.param_groups for p in group["params"]}
        if not held <= set(parameters.values()):
            raise ValueError(f"the {type(optimizer).__name__} holds parameters that are not those of the function or "
                             "model; pass its class, or the model that it belongs to")
        return optimizer
    made = optimizer_class(optimizer) if isinstance(optimizer, str) else optimizer
    if not callable(made) or isinstance(made, type) and not issubclass(made, Optimizer):
        raise TypeError("optimizer must be a name, a class, a function that makes one, or an Optimizer; got "
                        f"{made.__name__ if isinstance(made, type) else type(optimizer).__name__}")
    check_options(made, options)
    result = made(list(parameters.items()), **options)
    if not isinstance(result, Optimizer):
        raise TypeError(f"{getattr(made, '__name__', made)!r} returned {type(result).__name__}, not an Optimizer")
    return result


class Recorder:
    """An optimizer on an objective, a step at a time, everything kept.

    Parameters
    ----------
    optimizer : Optimizer
    objective : Objective
        Over the optimizer's parameters.
    """

    def __init__(self, optimizer: Optimizer, objective: Objective) -> None:
        self.optimizer, self.objective, self.t = optimizer, objective, 0
        self.inside = stepping(optimizer)
        self.names = {p: name for name, p in objective.parameters.items()}
        self.rows: list[dict[Any, Any]] = []
        self.start = {name: p.numpy().copy() for name, p in objective.parameters.items()}
        self.options = {key: value for key, value in optimizer.param_groups[0].items()
                        if key not in ("params", "param_names") and isinstance(value, (int, float, str, tuple, bool))}
        if hasattr(optimizer, "train"):             # a schedule-free one, which takes gradients at another point
            optimizer.train()

    def run(self, steps: int) -> Trace:
        """Take steps and return the record of all steps so far."""
        before = [inner._remembers for inner in self.inside]
        try:
            for inner in self.inside:
                inner._remembers = True
            for _ in range(steps):
                self.rows.append(self.step())
        finally:
            for inner, remembers in zip(self.inside, before):
                inner._remembers = remembers
        return self.trace()

    def step(self) -> dict[Any, Any]:
        """Take a step and return what is to be kept of it, by (kind, parameter, name)."""
        optimizer, objective = self.optimizer, self.objective
        objective.begin(self.t)
        row: dict[Any, Any] = {"lr": optimizer.param_groups[0].get("lr", np.nan)}
        curved, counts = self._curved(), [inner.step_count for inner in self.inside]
        row["loss"] = float(drive(optimizer, objective, self.t))
        # A wrapper may leave a step out, and what its optimizer remembers is then of an older one.
        moved = [inner for inner, count in zip(self.inside, counts) if inner.step_count != count]
        replayed = [pair for inner in moved for pair in replays(inner)]
        slopes = curved or self._slopes(moved, replayed)
        objective.confine()
        row["evaluations"], self.t = objective.evaluations, self.t + 1
        for name, p in objective.parameters.items():
            row["parameters", name] = p.numpy().copy()
            row["gradients", name] = slopes.get(name, np.full(p.shape, np.nan, p.dtype))
            for key, value in flat(optimizer.state.get(p, {})):
                row["state", name, key] = value
        for p, replay in replayed:
            row.update((("quantities", self.names[p], key), value) for key, value in replay.after.items()
                       if isinstance(value, (float, int, np.ndarray)))
        for p, parts in (pair for inner in moved for pair in attributions(inner)):
            row.update((("shares", self.names[p], source), part) for source, part in parts.items())
        return row

    def _curved(self) -> dict[str, np.ndarray]:
        """Return the gradients where a step begins that asks for many: a way forward that leaves no trace."""
        if not isinstance(self.optimizer, SecondOrder):
            return {}
        with untouched(self.objective.function, self.optimizer):
            return self.objective.gradients()

    def _slopes(self, moved: list[Optimizer], replayed: list[tuple[Tensor, Replay]]) -> dict[str, np.ndarray]:
        """Return the gradients of the last evaluation, as they were before anything processed them."""
        found = {name: p._grad.numpy().copy() for name, p in self.objective.parameters.items() if p._grad is not None}
        found.update((self.names[p], replay.before["g"]) for p, replay in replayed)
        for inner in moved:
            found.update((self.names[p], Tensor._wrap(g).numpy()) for p, g in inner._raw.items())
        return found

    def trace(self) -> Trace:
        """Return the record so far."""
        rows, kinds = self.rows, {"gradients": {}, "quantities": {}, "state": {}, "shares": {}}
        for key in dict.fromkeys(key for row in rows for key in row if isinstance(key, tuple)):
            kind, *place = key
            if kind in kinds:
                inner = kinds[kind]
                for part in place[:-1]:
                    inner = inner.setdefault(part, {})
                values = [row.get(key) for row in rows]
                if kind != "shares":
                    inner[place[-1]] = _stacked(values)
                elif place[-1] == "gradient" or any(value is not None and value.any() for value in values):
                    inner[place[-1]] = _stacked(values, missing=0.0)
        rule = "" if isinstance(self.optimizer, SecondOrder) else self.optimizer.formula("text")
        return Trace(
            type(self.optimizer).__name__, self.objective.name, self.options, rule,
            {name: np.stack([start, *(row["parameters", name] for row in rows)]) for name, start in self.start.items()},
            np.array([*(row["loss"] for row in rows), self.objective.whole()]), kinds["gradients"],
            kinds["quantities"], kinds["state"], np.array([float(row["lr"]) for row in rows]),
            np.array([row["evaluations"] for row in rows]), kinds["shares"])


def drive(optimizer: Optimizer, objective: Objective, t: int) -> Any:
    """Take step t of an optimizer, in the way that it asks for, and return the loss where it began."""
    report = getattr(optimizer, "report", None)
    if report is None or isinstance(optimizer, LBFGS):
        for inner in stepping(optimizer):
            if isinstance(inner, (SophiaG, SophiaH)) and t % 10 == 0:   # its estimate, as often as its authors take it
                objective.backward()
                inner.update_hessian(*[objective] * isinstance(inner, SophiaH))
        return optimizer.step(objective.backward)
    loss, report = optimizer.step(objective), optimizer.report
    objective.evaluations += max(report.functions, report.gradients) + report.products
    return loss


def flat(state: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the arrays and numbers of a parameter's state on the host; parts of a list have numbers."""
    found: list[tuple[str, Any]] = []
    for key, value in state.items():
        if isinstance(value, Tensor):
            found.append((prefix + key, value.numpy().copy()))
        elif isinstance(value, (list, tuple)):
            found += flat(dict(zip(map(str, range(len(value))), value)), f"{prefix}{key}.")
        elif isinstance(value, (int, float)):
            found.append((prefix + key, value))
    return found


def _stacked(values: list[Any], missing: float = np.nan) -> np.ndarray:
    """Return the values of all steps as one array, `missing` where a step has none."""
    like = next(value for value in values if value is not None)
    blank = np.full(np.shape(like), missing)
    return np.stack([blank if value is None or np.shape(value) != np.shape(like) else value for value in values])


def _spread(columns: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    """Add a column for each element of (n, ...) values."""
    if values.ndim == 1:
        columns[name] = values
        return
    for place in np.ndindex(values.shape[1:]):
        columns[f"{name}[{','.join(map(str, place))}]"] = values[(slice(None), *place)]


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_jsonable(part) for part in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
