"""Schedules: pure functions of the step t = 0, 1, 2, ..., and their algebra.

Every formula stands here once; `lr_scheduler` puts them to work on an optimizer.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from .ranges import NONNEGATIVE, POSITIVE, Range, check

CLOSED_UNIT = Range("[0, 1]")


class Table(list):
    """Rows of a step and its values; a list that prints aligned.

    Parameters
    ----------
    rows : iterable of tuples of numbers
        (t, value, ...)
    heads : tuple of str
        What the columns are called.
    """

    def __init__(self, rows: Iterable[tuple[float, ...]], heads: tuple[str, ...] = ("t", "value")) -> None:
        super().__init__(rows)
        self.heads = heads

    def __repr__(self) -> str:
        cells = [self.heads, *([f"{number:.6g}" for number in row] for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells)]
        return "\n".join("  ".join([row[0].rjust(widths[0]), *map(str.ljust, row[1:], widths[1:])]).rstrip()
                         for row in cells)

    def plot(self, ax: Any = None) -> Any:
        """Draw each column over the first.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw; otherwise a new figure, `.figure` of what is returned.

        Returns
        -------
        The axes.
        """
        if ax is None:
            from matplotlib.figure import Figure  # and not pyplot, which would choose a window system
            ax = Figure(figsize=(6.4, 3.2), layout="constrained").add_subplot()
        steps, *columns = zip(*self)
        for name, column in zip(self.heads[1:], columns):
            ax.plot(steps, column, label=name)
        ax.set_xlabel("step")
        ax.set_ylabel(self.heads[1].partition(" ")[0])
        if len(columns) > 1:
            ax.legend(frameon=False)
        return ax


class Schedule:
    """A pure function of the step, which composes.

    `a >> b` is a until its end, then b from its own step 0; `a * b`, `0.1 * a` are products. Functions and
    numbers may stand for the second operand. The functions of this module make schedules whose values are
    factors: 1 is the peak.

    Parameters
    ----------
    function : callable
        `t -> value`, for t = 0, 1, 2, ...
    length : float, default inf
        The step at which it ends; what is after that is for the function to say.

    Attributes
    ----------
    length : float
        That of a sum is the sum; that of a product the longest that is finite, if one is.

    Examples
    --------
    >>> from tinygrad_opt.optim.schedule import cosine, hold, warmup
    >>> lr = 0.1 * (warmup(2) >> hold(2) >> cosine(4))
    >>> lr
    0.1 * (warmup(2) >> hold(2) >> cosine(4))
    >>> lr.table(4)
    t  value
    0  0
    1  0.05
    2  0.1
    3  0.1
    >>> print(lr.sparkline(width=9))
    ▁▅███▇▅▂▁
    """

    def __init__(self, function: Callable[[float], float], length: float = math.inf) -> None:
        check("Schedule", "length", length, Range("[0, inf]"))
        self.function, self.length = function, length
        self.recipe: tuple[Callable, tuple, dict] = Schedule, (function, length), {}

    def __call__(self, t: float) -> float:
        if not t >= 0:
            raise ValueError(f"{self}: steps are counted from 0, got t = {t}")
        return float(self.function(t))

    def table(self, n: int) -> Table:
        """Return (t, value) for the first n steps; it prints as a table."""
        return Table((t, self(t)) for t in range(n))

    def plot(self, n: int | None = None, ax: Any = None) -> Any:
        """Draw the first n steps with matplotlib, all there are unless told, 100 if it has no end; return the axes."""
        return self.table(math.floor(self._last(n)) + 1).plot(ax)

    def _last(self, n: int | None) -> float:
        return n - 1 if n is not None else self.length if self.length < math.inf else 99

    def sparkline(self, n: int | None = None, width: int = 60) -> str:
        """Return the first n steps as one line of bars, for a terminal.

        Parameters
        ----------
        n : int, optional
            As long as the schedule is; 100 if it has no end.
        width : int, default 60
            How many bars, at least 2.
        """
        check("sparkline", "width", width, Range("[2, inf)"))
        last = self._last(n)
        values = [self(last * k / (width - 1)) for k in range(width)]
        top = max(values)
        return "".join("▁▂▃▄▅▆▇█"[round(7 * max(value, 0) / top) if top > 0 else 0] for value in values)

    def __rshift__(self, other: Any) -> Schedule:
        if self.length == math.inf:
            raise ValueError(f"{self} has no end, so that nothing can begin after it; give it one with a product: "
                             f"hold(100) * {_operand(self)} >> ...")
        second, start = as_schedule(other), self.length
        return _made(lambda t: self(t) if t < start else second(t - start), start + second.length,
                     (operator.rshift, (self, other), {}))

    def __mul__(self, other: Any) -> Schedule:
        return _product(self, other)

    def __rmul__(self, other: Any) -> Schedule:
        return _product(other, self)

    def __repr__(self) -> str:
        maker, args, options = self.recipe
        if maker is Schedule:
            return _text(self.function)
        if maker is operator.rshift:
            return " >> ".join(map(_text, args))
        if maker is _product:
            return " * ".join(map(_operand, args))
        return f"{maker.__name__}({', '.join([*map(_text, args), *(f'{k}={_text(v)}' for k, v in options.items())])})"

    def __reduce__(self) -> tuple:          # what it is made of can be pickled where its function cannot
        return _call, self.recipe


def as_schedule(value: Any) -> Schedule:
    """Return a schedule: itself, one of a plain function of the step, or a number that stays."""
    if isinstance(value, Schedule):
        return value
    if callable(value):
        return Schedule(value)
    try:
        return hold(value=float(value))
    except (TypeError, ValueError):
        raise TypeError(f"a schedule is a function of the step or a number, got {type(value).__name__}") from None


def _product(a: Any, b: Any) -> Schedule:
    first, second = as_schedule(a), as_schedule(b)
    finite = [s.length for s in (first, second) if s.length < math.inf]
    return _made(lambda t: first(t) * second(t), max(finite, default=math.inf), (_product, (a, b), {}))


def _made(function: Callable[[float], float], length: float, recipe: tuple[Callable, tuple, dict]) -> Schedule:
    schedule = Schedule(function, length)
    schedule.recipe = recipe
    return schedule


def _call(maker: Callable, args: tuple, options: dict) -> Schedule:
    return maker(*args, **options)


def _text(value: Any) -> str:
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)


def _operand(value: Any) -> str:
    sequence = isinstance(value, Schedule) and value.recipe[0] is operator.rshift
    return f"({value!r})" if sequence else _text(value)


def block(build: Callable[..., Schedule]) -> Callable[..., Schedule]:
    """Let a function that makes a schedule name it as it was called."""
    @wraps(build)
    def maker(*args: Any, **options: Any) -> Schedule:
        schedule = build(*args, **options)
        return _made(schedule.function, schedule.length, (maker, args, options))
    return maker


# ---- shapes: how to fall from 1 at x = 0 to 0 at x = 1 ----------------------------------------------------

FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
    "1-square": lambda x: 1 - x * x,
    "constant": lambda x: 1.0,
}


def _fall_of(owner: str, shape: str, allowed: tuple[str, ...]) -> Callable[[float], float]:
    if shape not in allowed:
        raise ValueError(f"{owner}: shape must be one of {', '.join(allowed)}; got {shape!r}")
    return FALLS[shape]


def _falling(fall: Callable[[float], float], n: float, start: float, end: float) -> Schedule:
    """Return what goes from start to end in n steps, along a shape, and stays there."""
    return Schedule(lambda t: end + (start - end) * fall(t / n) if t < n else end, n)


# ---- building blocks --------------------------------------------------------------------------------------


@block
def hold(n: float = math.inf, value: float = 1.0) -> Schedule:
    """Return `value` for n steps, or for ever."""
    check("hold", "n", n, Range("[0, inf]"))
    return Schedule(lambda t: value, n)


@block
def warmup(n: float, start: float = 0.0, mode: str = "linear") -> Schedule:
    """Rise from `start` to 1 in n steps (Goyal et al., arXiv 1706.02677).

    Parameters
    ----------
    n : int
        Steps; 0 for no warm-up.
    start : float, default 0
        The first factor; above 0 for "exp".
    mode : {"linear", "exp", "constant"}
        By equal differences, by equal ratios, or `start` for n steps and then 1.

    Examples
    --------
    >>> from tinygrad_opt.optim.schedule import warmup
    >>> [round(warmup(2, start=0.01, mode="exp")(t), 4) for t in range(4)]
    [0.01, 0.1, 1.0, 1.0]
    """
    modes = {"linear": lambda t: start + (1 - start) * (t / n), "exp": lambda t: start ** (1 - t / n),
             "constant": lambda t: start}
    if mode not in modes:
        raise ValueError(f"warmup: mode must be one of {', '.join(modes)}; got {mode!r}")
    check("warmup", "n", n, NONNEGATIVE)
    check("warmup", "start", start, POSITIVE if mode == "exp" else NONNEGATIVE)
    return Schedule(lambda t: modes[mode](t) if t < n else 1.0, n)


@block
def linear(n: float, end: float = 0.0, start: float = 1.0) -> Schedule:
    """Go from `start` to `end` in n steps by equal differences, and stay."""
    check("linear", "n", n, NONNEGATIVE)
    return _falling(FALLS["linear"], n, start, end)


@block
def linear_to_zero(n: float) -> Schedule:
    """Fall from 1 to 0 in n steps by equal differences: the baseline for a fixed budget."""
    return linear(n)


@block
def cosine(n: float, end: float = 0.0, cycles: float = 0.5) -> Schedule:
    """Fall from 1 to `end` in n steps along a cosine, and stay (Loshchilov & Hutter, arXiv 1608.03983).

    Parameters
    ----------
    n : int
        Steps.
    end : float, default 0
        The lowest factor.
    cycles : float, default 0.5
        How many whole waves in n steps; more than a half goes up again.
    """
    check("cosine", "n", n, NONNEGATIVE)
    last = end + (1 - end) * FALLS["cosine"](2 * cycles)
    return Schedule(lambda t: end + (1 - end) * FALLS["cosine"](2 * cycles * (t / n)) if t < n else last, n)


@block
def cosine_wave(n: float) -> Schedule:
    """Swing between 1 and 0 along a cosine, n steps down and n up, without end."""
    check("cosine_wave", "n", n, POSITIVE)
    return Schedule(lambda t: FALLS["cosine"](t / n))


@block
def restarts(n: float, growth: float = 1.0, decay: float = 1.0, end: float = 0.0) -> Schedule:
    """Fall along a cosine again and again (SGDR, Loshchilov & Hutter, arXiv 1608.03983).

    Parameters
    ----------
    n : int
        Steps of the first cycle.
    growth : float, default 1
        How many times longer each cycle is than the one before; at least 1.
    decay : float, default 1
        How many times higher its peak is.
    end : float, default 0
        The lowest factor.

    Examples
    --------
    >>> from tinygrad_opt.optim.schedule import restarts
    >>> [restarts(2, growth=2, decay=0.5)(t) for t in (0, 1, 2, 4, 6)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    check("restarts", "n", n, POSITIVE)
    check("restarts", "growth", growth, Range("[1, inf)"))

    def value(t: float) -> float:
        if growth == 1:
            cycle, x = t // n, t % n / n
        else:
            cycle, size = 0, n
            while t >= size:                    # a logarithm would miss the first step of a cycle now and then
                t, cycle, size = t - size, cycle + 1, size * growth
            x = t / size
        return end + (1 - end) * decay ** cycle * FALLS["cosine"](x)
    return Schedule(value)


@block
def polynomial(n: float, power: float = 1.0, end: float = 0.0, cycle: bool = False) -> Schedule:
    """Fall from 1 to `end` in n steps as (1 - t/n) ** power, and stay.

    Parameters
    ----------
    n : int
        Steps.
    power : float, default 1
        1 is linear, 2 falls fast first.
    end : float, default 0
        The lowest factor.
    cycle : bool, default False
        Stretch n to 2 n, 3 n, ... each time that it is passed, instead of staying.
    """
    check("polynomial", "n", n, POSITIVE if cycle else NONNEGATIVE)
    check("polynomial", "power", power, NONNEGATIVE)
    if cycle:
        return Schedule(lambda t: end + (1 - end) * (1 - t / (n * max(1, math.ceil(t / n)))) ** power)
    return _falling(lambda x: (1 - x) ** power, n, 1.0, end)


@block
def exponential(gamma: float) -> Schedule:
    """Multiply by `gamma` each step."""
    check("exponential", "gamma", gamma, NONNEGATIVE)
    return Schedule(lambda t: gamma ** t)


@block
def step(size: float, gamma: float = 0.1) -> Schedule:
    """Multiply by `gamma` every `size` steps."""
    check("step", "size", size, POSITIVE)
    check("step", "gamma", gamma, NONNEGATIVE)
    return Schedule(lambda t: gamma ** (t // size))


@block
def multistep(milestones: Iterable[float], gamma: float = 0.1) -> Schedule:
    """Multiply by `gamma` at each milestone; one that is given twice counts twice."""
    check("multistep", "gamma", gamma, NONNEGATIVE)
    ordered = sorted(milestones)
    return Schedule(lambda t: gamma ** bisect_right(ordered, t))


@block
def piecewise(points: Mapping[float, float], shape: str = "constant") -> Schedule:
    """Pass through given factors at given steps.

    Parameters
    ----------
    points : mapping
        Step -> factor. It is 1 at step 0 unless they say otherwise, and stays at the last. (In optax the
        factors of such a mapping multiply up; here each is a factor of the peak.)
    shape : {"constant", "linear", "cosine"}
        Jump at each point, or go to the next along a line or half a wave.

    Examples
    --------
    >>> from tinygrad_opt.optim.schedule import piecewise
    >>> [piecewise({10: 0.5, 20: 0.25}, "linear")(t) for t in (0, 5, 10, 15, 20, 99)]
    [1.0, 0.75, 0.5, 0.375, 0.25, 0.25]
    """
    fall = _fall_of("piecewise", shape, ("constant", "linear", "cosine"))
    times, values = zip(*sorted({0: 1.0, **points}.items()))
    if not times[0] >= 0:
        raise ValueError(f"piecewise: steps are counted from 0, got a point at {times[0]}")

    def value(t: float) -> float:
        k = bisect_right(times, t) - 1
        if k == len(times) - 1:
            return values[k]
        x = (t - times[k]) / (times[k + 1] - times[k])
        return values[k + 1] + (values[k] - values[k + 1]) * fall(x)
    return Schedule(value, math.inf if shape == "constant" else times[-1])


@block
def inverse_sqrt(warmup_steps: float, timescale: float | None = None) -> Schedule:
    """Rise from 0 to 1, then fall as one over the root of the step.

    Parameters
    ----------
    warmup_steps : int
        Steps of the rise.
    timescale : float, optional
        Steps after which the root counts as 1; as many as the rise has, or 10,000 without one.
    """
    check("inverse_sqrt", "warmup_steps", warmup_steps, NONNEGATIVE)
    scale = timescale if timescale is not None else warmup_steps or 10_000
    check("inverse_sqrt", "timescale", scale, POSITIVE)
    return warmup(warmup_steps) >> Schedule(lambda t: 1 / math.sqrt((t + scale) / scale))


@block
def noam(model_dim: float, warmup_steps: float = 4000, scale: float = 1.0) -> Schedule:
    """Return scale / sqrt(model_dim) * min(1 / sqrt(t), t / warmup_steps ** 1.5) (Vaswani et al., arXiv 1706.03762).

    Its t counts from 1, so that step 0 has the value of step 1. It is a learning rate, not a factor.
    """
    check("noam", "model_dim", model_dim, POSITIVE)
    check("noam", "warmup_steps", warmup_steps, POSITIVE)
    return Schedule(lambda t: scale * model_dim ** -0.5 * min(max(t, 1) ** -0.5, max(t, 1) * warmup_steps ** -1.5))


@block
def inverse_time(decay_steps: float, decay_rate: float, staircase: bool = False) -> Schedule:
    """Fall as 1 / (1 + decay_rate * t / decay_steps); `staircase` takes whole quotients only."""
    check("inverse_time", "decay_steps", decay_steps, POSITIVE)
    check("inverse_time", "decay_rate", decay_rate, NONNEGATIVE)
    return Schedule(lambda t: 1 / (1 + decay_rate * (t // decay_steps if staircase else t / decay_steps)))


@block
def wsd(warmup_steps: float, stable_steps: float, decay_steps: float, end: float = 0.0,
        shape: str = "1-sqrt") -> Schedule:
    """Warm up, stay, decay to `end` (Hu et al., MiniCPM, arXiv 2404.06395).

    Parameters
    ----------
    warmup_steps, stable_steps, decay_steps : int
        Steps of each part.
    end : float, default 0
        The last factor; every shape arrives there without a jump.
    shape : {"1-sqrt", "linear", "cosine", "1-square"}
        Of the decay, in the share of it that is done.
    """
    fall = _fall_of("wsd", shape, ("1-sqrt", "linear", "cosine", "1-square"))
    check("wsd", "decay_steps", decay_steps, NONNEGATIVE)
    return warmup(warmup_steps) >> hold(stable_steps) >> _falling(fall, decay_steps, 1.0, end)


@block
def rex(n: float, end: float = 0.0) -> Schedule:
    """Fall slowly first, fast at last: (1 - x) / (1 - x/2) of x = t/n (REX, Chen et al., arXiv 2107.04197)."""
    check("rex", "n", n, NONNEGATIVE)
    return _falling(lambda x: (1 - x) / (1 - x / 2), n, 1.0, end)


@block
def warmup_cosine(warmup_steps: float, total_steps: float, end: float = 0.0, cycles: float = 0.5) -> Schedule:
    """Rise from 0 to 1, then fall along a cosine to `end` at `total_steps`; `cycles` as in `cosine`."""
    check("warmup_cosine", "total_steps", total_steps, Range(f"[{warmup_steps}, inf)"))
    return warmup(warmup_steps) >> cosine(total_steps - warmup_steps, end, cycles)


@block
def cyclic(up: float, down: float | None = None, mode: str = "triangular", gamma: float = 1.0,
           scale_fn: Callable[[float], float] | None = None, scale_mode: str = "cycle") -> Schedule:
    """Rise from 0 to 1 and fall back, without end (Smith, arXiv 1506.01186).

    Parameters
    ----------
    up, down : float
        Steps of the rise and of the fall; `down` is as long as `up` unless given.
    mode : {"triangular", "triangular2", "exp_range"}
        The same each time, half as high each time, or gamma ** t times as high.
    gamma : float, default 1
        Of "exp_range".
    scale_fn : callable, optional
        Used in place of a mode: the height as a function of the number of the cycle (from 1), or of the step.
    scale_mode : {"cycle", "iterations"}
        Which of the two.
    """
    scales = {"triangular": (lambda cycle: 1.0, "cycle"), "triangular2": (lambda cycle: 2.0 ** (1 - cycle), "cycle"),
              "exp_range": (lambda t: gamma ** t, "iterations")}
    if scale_fn is None and mode not in scales:
        raise ValueError(f"cyclic: mode must be one of {', '.join(scales)}, or scale_fn given; got {mode!r}")
    down = up if down is None else down
    check("cyclic", "up", up, POSITIVE)
    check("cyclic", "down", down, NONNEGATIVE)
    scale, of = (scale_fn, scale_mode) if scale_fn is not None else scales[mode]
    size, ratio = float(up + down), float(up) / (up + down)

    def value(t: float) -> float:
        cycle = math.floor(1 + t / size)
        x = 1.0 + t / size - cycle
        height = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
        return height * scale(cycle if of == "cycle" else t)
    return Schedule(value)


@block
def one_cycle(total_steps: int, pct_start: float = 0.3, shape: str = "cosine", start: float = 1 / 25,
              peak: float = 1.0, end: float = 1 / 25e4, three_phase: bool = False) -> Schedule:
    """Go from `start` to `peak` to `end`, or back to `start` first (Smith & Topin, arXiv 1708.07120).

    Parameters
    ----------
    total_steps : int
        Steps; the last of them, total_steps - 1, has `end`.
    pct_start : float, default 0.3
        The share of them that leads to the peak, in [0, 1].
    shape : {"cosine", "linear"}
        Of every phase.
    start, peak, end : float
        Factors.
    three_phase : bool, default False
        Come down to `start` as fast as it went up, and then go to `end`.
    """
    fall = _fall_of("one_cycle", shape, ("cosine", "linear"))
    check("one_cycle", "total_steps", total_steps, POSITIVE)
    check("one_cycle", "pct_start", pct_start, CLOSED_UNIT)
    rise = pct_start * total_steps
    phases = [(rise - 1, start, peak), *([(2 * rise - 2, peak, start)] if three_phase else []),
              (total_steps - 1, start if three_phase else peak, end)]

    def value(t: float) -> float:
        k = next((k for k, (stop, _, _) in enumerate(phases[:-1]) if t <= stop), len(phases) - 1)
        begin, (stop, first, last) = phases[k - 1][0] if k else 0.0, phases[k]
        x = (t - begin) / (stop - begin) if stop != begin else 1.0      # a phase of no length is at its end
        return last + (first - last) * fall(x)
    return Schedule(value, total_steps)


@block
def cumulative(function: Callable[[int], float]) -> Schedule:
    """Multiply by function(1), function(2), ...: the product up to function(t), 1 at step 0."""
    at, product = 0, 1.0                    # how far it has come: a step forward is one multiplication

    def value(t: float) -> float:
        nonlocal at, product
        if t < at:
            at, product = 0, 1.0
        while at + 1 <= t:
            at, product = at + 1, product * function(at + 1)
        return product
    return Schedule(value)


__all__ = ["Schedule", "Table", "as_schedule", "cosine", "cosine_wave", "cumulative", "cyclic", "exponential", "hold",
           "inverse_sqrt", "inverse_time", "linear", "linear_to_zero", "multistep", "noam", "one_cycle", "piecewise",
           "polynomial", "restarts", "rex", "step", "warmup", "warmup_cosine", "wsd"]
