"""Attribution: which part of a step came from the gradient, from memory, from decay, from clipping, from the schedule.

The lines of a rule are walked once more, on values that know what they are made of. A sum keeps the parts of both
terms, a factor scales them, and what a rule adds at the end falls apart into sources that add up to the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..backend import to_numpy
from ..tensor import Tensor
from .plan import MatrixRun, Run
from .replay import ON_ARRAYS, Replay, _lines, stepping
from .schedule import Schedule

SOURCES = ("gradient", "memory", "decay", "clipping", "schedule")
ITSELF = "rule"                         # what a rule adds of its own accord; all of it where it works on matrices


def attribute(optimizer: Any, p: Tensor) -> dict[str, numpy.ndarray]:
    """Split the last step of a parameter into sources that add up to it.

    Parameters
    ----------
    optimizer : Optimizer
        After a step that it has remembered, as it does for groups of at most 256 numbers.
    p : Tensor
        One of its parameters.

    Returns
    -------
    dict of str to array
        Of the parameter's shape, in float64. Their sum is the step, but for the rounding of the parameter's dtype:

        - `gradient`: this step's gradient as it came from backward.
        - `memory`: what the optimizer kept of earlier steps, such as momentum.
        - `decay`: what is proportional to the parameter itself, be it in the gradient (L2) or beside it (decoupled).
          What a penalty has put into momentum earlier is memory.
        - `clipping`: what `grad_transforms` changed in the gradient.
        - `schedule`: the step as it was, less the step that the base rate would have made of the same gradient and
          state; the other sources are those of the step at the base rate. The base is the group's `initial_lr`, which
          schedulers write, else the peak of a `Schedule` given as lr, or the first value of another function. Where
          there is none of these, the rate is its own base. ASGD's rate acts a step later.
        - `rule`: only where something is left, such as a constant that a rule adds. A rule of matrices mixes
          everything: all its step is here.

    Raises
    ------
    ValueError, RuntimeError
        When the parameter is not the optimizer's, had no gradient, or the step was not remembered.

    Notes
    -----
    A denominator, such as the root of a mean square, sets a size and has no share; so does a norm. Where two values
    that have parts are multiplied, the one that holds this step's gradient keeps them. A bend, such as a clip, scales
    all parts alike. `sign` is a vote: those parts that voted for its outcome share it, in proportion, and a gradient
    with what clipping took from it has one voice. A state that began as the parameter itself, such as the start of
    MADGRAD or z of a schedule-free method, is a place: memory is how far it lies from the parameter.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.attribution import attribute
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     w.grad = tg.tensor([1.0])
    ...     optimizer.step()
    >>> {source: part.item() for source, part in attribute(optimizer, w).items() if part.any()}
    {'gradient': -0.5, 'memory': -0.25}
    """
    return _split(*last_step(optimizer, p))


def attributions(optimizer: Any) -> Iterator[tuple[Tensor, dict[str, numpy.ndarray]]]:
    """Yield each parameter that an elementwise rule moved in the last step, with its sources."""
    for inner in stepping(optimizer):
        for group, plan in inner._plans.items():
            for run in plan.runs:
                if run.before is not None and not run.rule.matrix:
                    yield from ((p, _split(inner, group, run, k)) for k, p in enumerate(run.params) if p._data.size)


def last_step(optimizer: Any, p: Tensor) -> tuple[Any, int, Run | MatrixRun, int]:
    """Return the optimizer that moved a parameter last, the number of its group, the run, and its place in that.

    Raises
    ------
    ValueError, RuntimeError
        When there is no such step, or it was not remembered; the next ones are then.
    """
    held = [(inner, k) for inner in stepping(optimizer) for k, group in enumerate(inner.param_groups)
            if any(p is other for other in group["params"])]
    if not held:
        raise ValueError(f"{type(optimizer).__name__} has no such parameter, shape {p.shape}; pass one that it was "
                         "made of, its name or its number")
    (inner, group), = held
    owner = type(inner).__name__
    plan = inner._plans.get(group)
    if plan is None:
        if hasattr(inner, "report") and inner.step_count:
            raise RuntimeError(f"{owner} has no rule to go through line by line; what its last step did is in "
                               "optimizer.report")
        raise RuntimeError(f"{owner} has not taken a step since it was made, loaded or given a group, so there is "
                           "nothing to explain; call backward() and step() first")
    if not p._data.size:
        raise ValueError(f"the parameter of shape {p.shape} has no numbers, so nothing moved")
    found = next(((run, k) for run in plan.runs for k, other in enumerate(run.params) if other is p), None)
    if found is None:
        raise RuntimeError(f"the parameter of shape {p.shape} had no gradient in the last step of {owner}, so it was "
                           "skipped; does the loss depend on it?")
    if found[0].before is None:
        inner._remembers = True
        raise RuntimeError(f"{owner} did not remember its last step: its group is large, and copies would cost memory "
                           "and time. It remembers from now on; ask again after the next step")
    return inner, group, *found


def base_rate(optimizer: Any, group: dict[str, Any]) -> float | None:
    """Return the learning rate that a group's schedule starts from or rises to; None where there is no schedule."""
    if "initial_lr" in group:
        return group["initial_lr"]
    scheduled = [option for option in optimizer._schedules if option.group is group and option.key == "lr"]
    return scheduled[0].factor * _peak(scheduled[0].function) if scheduled else None


@lru_cache(64)
def _peak(function: Any) -> float:
    """Return the largest value of a schedule, or the first of another function of the step."""
    last = function._last(None) if isinstance(function, Schedule) else 0
    return max(function(t) for t in range(int(min(last, 100_000)) + 1))


class Parts(NDArrayOperatorsMixin):
    """An array that knows what it is made of.

    Parameters
    ----------
    value : array
        In the dtype of the rule, computed as the kernels do.
    parts : dict of str to array
        By their source, in float64; they add up to the value, but for the rounding of its dtype.
    """

    def __init__(self, value: Any, parts: dict[str, Any]) -> None:
        self.value, self.parts = value, parts

    def __array_ufunc__(self, ufunc: Any, method: str, *terms: Any, **options: Any) -> Any:
        value = ufunc(*map(_value, terms))
        if value.dtype == bool:
            return value
        carriers = [k for k, term in enumerate(terms) if isinstance(term, Parts)]
        if ufunc in (numpy.add, numpy.subtract):
            return Parts(value, _merged(ufunc, *terms))
        if ufunc in (numpy.maximum, numpy.minimum) and len(carriers) == 2:
            return _where(value == terms[0].value, *terms)
        if ufunc is numpy.divide and carriers == [1]:
            return value                            # one over something has a size, but no parts
        carrier = carriers[0]
        if ufunc is numpy.multiply and "gradient" not in terms[carrier].parts:
            carrier = carriers[-1]
        parts = terms[carrier].parts
        if ufunc in (numpy.multiply, numpy.divide, numpy.negative):
            factor = ufunc(*(numpy.float64(1) if k == carrier else _value(term) for k, term in enumerate(terms)))
            return Parts(value, {source: part * factor for source, part in parts.items()})
        return Parts(value, _in_proportion(value, _winners(value, parts) if ufunc is numpy.sign else parts))


def _value(term: Any) -> Any:
    return term.value if isinstance(term, Parts) else term


def _parts(term: Any) -> dict[str, Any]:
    """Return the parts of a term; what has none is the rule's own."""
    if isinstance(term, Parts):
        return term.parts
    return {ITSELF: numpy.float64(term)} if numpy.any(term) else {}


def _merged(function: Any, a: Any, b: Any) -> dict[str, Any]:
    """Return what a function of two terms, linear in both, makes of their parts."""
    a, b = _parts(a), _parts(b)
    return {source: function(a.get(source, 0.0), b.get(source, 0.0)) for source in a | b}


def _where(condition: Any, a: Any, b: Any) -> Any:
    """Choose as `numpy.where`, with all parts."""
    value = numpy.where(condition, _value(a), _value(b))
    if not (isinstance(a, Parts) or isinstance(b, Parts)):
        return value
    return Parts(value, _merged(lambda x, y: numpy.where(condition, x, y), a, b))


def _winners(sign: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that have the sign of their sum; a gradient and what clipping took from it are one voice."""
    clipped = parts.get("gradient", 0.0) + parts.get("clipping", 0.0)
    voices = parts | {source: clipped for source in ("gradient", "clipping") if source in parts}
    return {source: numpy.where(numpy.sign(voices[source]) == sign, part, 0.0) for source, part in parts.items()}


def _in_proportion(value: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Return parts scaled alike to a new sum; where they add up to 0, the sum is the rule's own."""
    total = sum(parts.values())
    scaled = {source: part * numpy.divide(value, total, out=numpy.zeros(value.shape), where=total != 0)
              for source, part in parts.items()}
    left = numpy.where(total == 0, value, 0.0)
    return scaled | {ITSELF: scaled.get(ITSELF, 0.0) + left} if left.any() else scaled


def _cbrt(x: Any) -> Any:
    value = ON_ARRAYS["cbrt"](_value(x))
    return Parts(value, _in_proportion(value, x.parts)) if isinstance(x, Parts) else value


FUNCTIONS = ON_ARRAYS | {"where": _where, "cbrt": _cbrt}         # which are no functions of NumPy's protocol


def _split(optimizer: Any, group: int, run: Run | MatrixRun, k: int) -> dict[str, numpy.ndarray]:
    """Return the sources of what the last step of a run did to its parameter k."""
    p, options = run.params[k], optimizer.param_groups[group]
    if run.rule.matrix:
        replay = Replay(run, k)
        return {ITSELF: numpy.float64(replay.after["p"]) - numpy.float64(replay.before["p"])}
    values = {name: to_numpy(value).reshape(-1) if name in run.rule.arrays else value
              for name, value in run.remembered(k).items()}
    raw = optimizer._raw.get(p) if optimizer.grad_transforms else None
    given = {"p": Parts(values["p"], {"decay": numpy.float64(values["p"])}),
             "g": _gradient(values["g"], None if raw is None else to_numpy(raw).reshape(-1))}
    for name in run.rule.states:
        kept, place = numpy.float64(values[name]), optimizer.initial(name, options, p) is p
        parts = {"decay": given["p"].parts["decay"], "memory": kept - given["p"].value} if place else {"memory": kept}
        given[name] = Parts(values[name], parts)
    parts = _walk(run.rule, values | given)
    base, now = base_rate(optimizer, options), values.get("lr")
    if base is not None and now is not None and numpy.any(now != base):
        real = sum(parts.values())
        parts = _walk(run.rule, values | given | {"lr": numpy.full(numpy.shape(now), base)[()]})
        parts["schedule"] = real - sum(parts.values())
    nothing = numpy.zeros(len(values["p"]))
    left = {ITSELF: parts[ITSELF]} if numpy.any(parts.get(ITSELF, 0)) else {}
    return {source: (nothing + part).reshape(p.shape)
            for source, part in ({source: parts.get(source, 0.0) for source in SOURCES} | left).items()}


def _gradient(g: Any, raw: Any) -> Parts:
    """Return a gradient as what backward gave and what became of it; what was not finite was replaced altogether."""
    if raw is None:
        return Parts(g, {"gradient": numpy.float64(g)})
    came = numpy.where(numpy.isfinite(raw), raw, 0).astype(float)
    return Parts(g, {"gradient": came, "clipping": g - came})


def _walk(rule: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return what the lines of a rule add to the parameter, by source."""
    before, cast = values["p"].value, values["p"].value.dtype.type
    with numpy.errstate(all="ignore"):
        for line, formula in _lines(rule):
            if formula:                             # a sum has been found by the step itself
                values[line.target] = line(values, FUNCTIONS, cast)
        parts = dict(_parts(values["p"]))
        decay = parts.get("decay", 0.0) - numpy.float64(before)
        # So little is what 0.9 * p + (1 - 0.9) * p leaves: in single precision less than a unit in the last place.
        rounding = numpy.maximum(numpy.spacing(abs(before)), 4 * numpy.spacing(numpy.float64(abs(before))))
        parts["decay"] = numpy.where(abs(decay) < rounding, 0, decay)
    return parts
