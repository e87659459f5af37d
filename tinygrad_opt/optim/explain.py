"""Explain: the last step of one number, line by line, with what each line computed and what moved it."""

from __future__ import annotations

import html
import math
import operator
import textwrap
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from ..backend import to_numpy
from ..language import letter
from ..tensor import Tensor
from .attribution import _split, base_rate, last_step
from .registry import find
from .replay import Moment, Replay

if TYPE_CHECKING:
    from .optimizer import Optimizer

WIDTH = 100                             # columns of a terminal
FIRM = "\u00a0"                         # a space where no line ends
ALONG, AGAINST = "#56B4E9", "#E69F00"   # of bars, seen on white and on black


@dataclass(frozen=True, repr=False)
class Explanation:
    """The step of one number of a parameter; it prints as text, and shows itself as a table in a notebook.

    Attributes
    ----------
    optimizer, parameter : str
        Who moved what.
    shape, index : tuple of int
        Of the parameter, and of the number in it.
    step : int
        Which step of the parameter it was, from 1 as the rule's t; in a record from 0, as there.
    before, after : float
        The number, and what the rule made of it.
    now : float
        What it is: something else than `after` where a wrapper, or somebody, has moved it since.
    raw, gradient : float or None
        As it came from backward, and as the rule was given it; None where a record does not tell.
    transforms : str
        What was done to the gradient in between.
    state : dict of str to number or str
        What the optimizer had kept, before the step. An array of another shape is a word on its shape and norm.
    options : dict of str to number
        What the rule was told.
    lines : list of Moment
        Target, formula and value of each line of the rule; None where a record keeps only a later value.
    shares : dict of str to float
        What each source added to the step, as `attribute` splits it.
    base_lr : float or None
        What the learning rate starts from or rises to; None where there is no schedule.
    """

    optimizer: str
    parameter: str
    shape: tuple[int, ...]
    index: tuple[int, ...]
    step: int
    before: float
    after: float
    now: float
    raw: float | None
    gradient: float | None
    transforms: str
    state: dict[str, Any]
    options: dict[str, Any]
    lines: list[Moment]
    shares: dict[str, float]
    base_lr: float | None = None

    @property
    def change(self) -> float:
        """How far the rule moved the number."""
        return self.after - self.before

    @property
    def percent(self) -> dict[str, float]:
        """Each share of the change in percent; negative where it pulled the other way, NaN where nothing moved."""
        return {source: 100 * part / self.change if self.change else float("nan")
                for source, part in self.shares.items()}

    @property
    def clipping(self) -> float:
        """The factor by which `grad_transforms` changed the gradient; NaN where a record does not tell."""
        if self.raw is None or self.gradient is None:
            return float("nan")
        return self.gradient / self.raw if self.raw else 1.0 if self.gradient == self.raw else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers."""
        plain = {key: value for key, value in vars(self).items() if key not in ("lines", "index", "shape")}
        return plain | {"index": list(self.index), "shape": list(self.shape), "change": self.change,
                        "percent": self.percent, "clipping": self.clipping,
                        "lines": [line._asdict() for line in self.lines]}

    def __str__(self) -> str:
        head, *sections = self._sections()
        text = [*head, *(row for title, rows in sections for row in ("", title, *_rows(rows))), *self._since()]
        return "\n".join(text).replace(FIRM, " ")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        (title, moved), *sections = self._sections()
        body = "".join(_html_section(*section) for section in sections)
        since = "".join(f"<p style='margin:4px 0'>{html.escape(line)}</p>" for line in self._since() if line)
        return (f"<div style='color:inherit;font-size:13px;line-height:1.45;overflow-x:auto'>"
                f"<div><b>{html.escape(title)}</b></div><div>{html.escape(moved)}</div>"
                "<table style='border-collapse:collapse;margin:4px 0;border:none;color:inherit;font-size:inherit'>"
                f"{body}</table>{since}</div>")

    def _sections(self) -> list[Any]:
        """Return two lines of a head, then titles with rows of (label, value, note)."""
        place = f"element [{', '.join(map(str, self.index))}] of " if self.index else ""
        small = abs(self.before / self.change) if self.change and numpy.isfinite(self.change) else 1.0
        digits = max(6, min(17, 3 + math.ceil(math.log10(small + 1))))              # so many that the move is seen
        head = (f"{self.optimizer}, step {self.step}: {place}{self.parameter}, shape {self.shape}",
                f"{self.before:.{digits}g} → {self.after:.{digits}g}, moved {_number(self.change)}")
        given: list[tuple[str, Any, str]] = [("p", self.before, "")]
        if self.raw is not None:
            given.append(("g", self.raw, "from backward"))
        if self.gradient is not None and self.gradient != self.raw and not math.isnan(self.gradient):
            factor = "" if numpy.isnan(self.clipping) else f"× {_number(self.clipping)} by "
            given.append(("g", self.gradient, f"{factor}{self.transforms}"))
        given += [(name, value, "kept") for name, value in self.state.items()]
        base = "" if self.base_lr is None else f" (base {_number(self.base_lr)})"
        told = ", ".join(f"{letter(name)} = {_number(value)}{base if name == 'lr' else ''}".replace(" ", FIRM)
                         for name, value in self.options.items())
        given += [(told, None, "")] if told else []
        return [head, ("given", given), ("line by line", [(line.formula, line.value, "") for line in self.lines]),
                ("what moved it", self._sources())]

    def _sources(self) -> list[tuple[str, float, str]]:
        """Return a row for each source that moved something, with percent and a bar, and the whole."""
        shares = {source: part for source, part in self.shares.items() if part or source == "gradient"}
        rounding = self.change - sum(shares.values())
        if shares and abs(rounding) > 5e-4 * max(map(abs, shares.values())):
            shares["rounding"] = rounding
        longest = max(map(abs, shares.values()), default=0)
        rows = []
        for source, part in shares.items():
            percent = f"{100 * part / self.change:7.1f} %" if self.change else "      – %"
            bar = round(24 * abs(part) / longest) if longest > 0 else 0
            rows.append((source, part, f"{percent}  {('█' if part * self.change >= 0 else '▒') * bar}".rstrip()))
        return [*rows, ("together", self.change, f"{100:7.1f} %" if self.change else "")]

    def _since(self) -> list[str]:
        if self.now == self.after or numpy.isnan(self.now) and numpy.isnan(self.after):
            return []
        return ["", f"Since then something else than the rule has moved it to {_number(self.now)}."]


def explain(optimizer: Optimizer, param: Tensor | str | int, index: int | tuple[int, ...] | None = None) -> Explanation:
    """Explain the last step of one number of a parameter; see `Optimizer.explain`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([("w", w)], lr=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (w ** 2).sum().backward()
    ...     optimizer.step()
    >>> print(optimizer.explain("w", 0))
    SGD, step 2: element [0] of w, shape (2,)
    0.8 → 0.54, moved -0.26
    <BLANKLINE>
    given
      p                    0.8
      g                    1.6  from backward
      b (momentum_buffer)  2    kept
      t = 2, lr = 0.1, momentum = 0.5, dampening = 0, weight_decay = 0
    <BLANKLINE>
    line by line
      g ← g + weight_decay·p                              1.6
      b ← momentum·b + (1 − dampening if t > 1 else 1)·g  2.6
      p ← p − lr·b                                        0.54
    <BLANKLINE>
    what moved it
      gradient  -0.16     61.5 %  ████████████████████████
      memory    -0.1      38.5 %  ███████████████
      together  -0.26    100.0 %
    """
    name, p = _parameter(optimizer, param)
    inner, group, run, k = last_step(optimizer, p)
    replay, parts = Replay(run, k), _split(inner, group, run, k)
    before, after, rule = replay.before, replay.after, replay.rule
    place = element(index, name, after["p"] - before["p"])
    raw = inner._raw.get(p) if inner.grad_transforms else None
    names = {name: inner.state_names.get(name, name) for name in (*rule.states, *rule.memory)}
    label = {name: letter(name) if own == name else f"{letter(name)} ({own})" for name, own in names.items()}
    # A half is the rounded copy of its master, and no other number.
    kept = after["p"][place].astype(p.dtype) == p.numpy()[place]
    number = float(after["p"][place])
    owner = type(inner).__name__ if inner is optimizer else f"{type(inner).__name__} in {type(optimizer).__name__}"
    return Explanation(
        owner, name, tuple(p.shape), place, inner.state[p]["step"], float(before["p"][place]), number,
        number if kept else float(p.numpy()[place]),
        float((before["g"] if raw is None else to_numpy(raw))[place]), float(before["g"][place]),
        ", ".join(map(repr, inner.grad_transforms)),
        {label[name]: shown(before[name], place, p.shape) for name in names},
        {option: before[option] for option in rule.options},
        [Moment(line.target, line.formula, shown(line.value, place, p.shape)) for line in replay.moments],
        {source: float(part[place]) for source, part in parts.items()}, base_rate(inner, inner.param_groups[group]))


def _parameter(optimizer: Any, param: Any) -> tuple[str, Tensor]:
    """Return name and Tensor of what was asked for."""
    named, owner = optimizer._named(), type(optimizer).__name__
    own = any("param_names" in group for group in optimizer.param_groups)
    shown = [name if own else f"parameter {name}" for name, _ in named]
    if isinstance(param, Tensor):
        found = next((k for k, (_, p) in enumerate(named) if p is param), None)
        if found is None:
            raise ValueError(f"{owner} has no such parameter, of shape {param.shape}; it has {', '.join(shown[:8])}")
    elif isinstance(param, str):
        if not own:
            raise ValueError(f"the parameters of this {owner} have no names; pass the Tensor or its number, or make "
                             "the optimizer of model.named_parameters()")
        names = [name for name, _ in named]
        found = names.index(param if param in names else find(
            param, names, "parameter", "optimizer.param_groups[k]['param_names']"))
    else:
        try:
            found = operator.index(param)
        except TypeError:
            raise TypeError("param must be a Tensor, its name or its number, got "
                            f"{type(param).__name__}") from None
        if not -len(named) <= found < len(named):
            raise IndexError(f"{owner} has {len(named)} parameters, numbered from 0 to {len(named) - 1}; got {found}")
    return shown[found], named[found][1]


def element(index: Any, name: str, change: numpy.ndarray) -> tuple[int, ...]:
    """Return the place of an element of a parameter, by default of the one that moved most.

    Raises
    ------
    TypeError, ValueError, IndexError
        When it is no place, or lies outside, or there is none.
    """
    shape = change.shape
    if not change.size:
        raise ValueError(f"{name} of shape {shape} has no numbers, so nothing moved")
    if index is None:
        return tuple(map(int, numpy.unravel_index(numpy.argmax(numpy.abs(change)), shape)))
    try:
        place = tuple(map(operator.index, index)) if isinstance(index, (tuple, list)) else operator.index(index)
    except TypeError:
        raise TypeError(f"index must be a whole number or a tuple of them, got {index!r}") from None
    sizes = shape if isinstance(place, tuple) else (change.size,)
    places = place if isinstance(place, tuple) else (place,)
    if len(places) != len(sizes) or not all(-size <= k < size for k, size in zip(places, sizes)):
        raise IndexError(f"{name} has the shape {shape}: index is a tuple of {len(shape)} numbers inside of that, or "
                         f"one below {change.size} that counts all elements; got {index!r}")
    places = tuple(k % size for k, size in zip(places, sizes))
    return places if isinstance(place, tuple) else tuple(map(int, numpy.unravel_index(places[0], shape)))


def shown(value: Any, place: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    """Return a number, the element of an array that has the parameter's shape, or a word on another array."""
    if isinstance(value, (list, tuple)):
        return "; ".join(_described(part) for part in value)
    if numpy.ndim(value) and numpy.shape(value) != tuple(shape):
        return _described(value)
    return float(numpy.asarray(value)[place]) if numpy.ndim(value) else value


def _described(value: Any) -> str:
    """Return shape and norm of an array."""
    return f"{numpy.shape(value)} of norm {_number(numpy.linalg.norm(value))}" if numpy.ndim(value) else str(value)


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float, numpy.number)) else str(value)


def aligned(values: Iterable[Any]) -> list[str]:
    """Return numbers as text with their decimal points under each other; words stand where numbers begin."""
    texts = ["" if value is None else _number(value) for value in values]
    numeric = [not isinstance(value, str) and value is not None for value in values]
    heads = [min((text + ".").index("."), (text + "e").index("e") if text[-1:].isdigit() else len(text))
             for text in texts]
    most = max((head for head, number in zip(heads, numeric) if number), default=0)
    return [" " * (most - head) * number + text for text, head, number in zip(texts, heads, numeric)]


def _width(text: str) -> int:
    """Return how many columns a text takes: the hat of m̂ stands on its letter."""
    return sum(not unicodedata.combining(letter) for letter in text)


def _rows(rows: list[tuple[str, Any, str]]) -> list[str]:
    """Return rows as aligned lines; long labels and notes go on below."""
    values = aligned([value for _, value, _ in rows])
    wide = max(map(len, values), default=0)
    labels = [textwrap.wrap(label, max(30, WIDTH - 4 - wide) if value else WIDTH - 4, subsequent_indent="    ")
              for (label, _, _), value in zip(rows, values)]
    first = max((_width(line) for label, value in zip(labels, values) if value for line in label), default=0)
    lines = []
    for label, value, (*_, note) in zip(labels, values, rows):
        notes = textwrap.wrap(note, max(20, WIDTH - 6 - first - wide), drop_whitespace=False) or [""]
        for k in range(max(len(label), len(notes))):
            cells = (label[k] if k < len(label) else "", value if k == len(label) - 1 else "",
                     notes[k] if k < len(notes) else "")
            lines.append(f"  {cells[0]}{' ' * (first - _width(cells[0]))}  {cells[1]:<{wide}}  {cells[2]}".rstrip())
    return lines


def _html_section(title: str, rows: list[tuple[str, Any, str]]) -> str:
    """Return rows of a table with a heading; a bar of a note becomes one of the page."""
    cell = "padding:1px 14px 1px 0;border:none;background:transparent;color:inherit;"
    mono = "font-family:ui-monospace,Menlo,Consolas,monospace;white-space:pre"
    lines = [f"<tr style='background:transparent'><td colspan='3' style='{cell}text-align:left;padding-top:8px;"
             f"opacity:0.7;border-bottom:1px solid rgba(128,128,128,0.45)'>{title}</td></tr>"]
    for (label, _, note), value in zip(rows, aligned([value for _, value, _ in rows])):
        text = note.rstrip("█▒ ")
        length = len(note) - len(text) - 2 if note != text else 0
        bar = (f"<span style='display:inline-block;height:9px;width:{4 * length}px;margin-left:8px;"
               f"background:{AGAINST if '▒' in note else ALONG}'></span>" if length > 0 else "")
        cells = [(label, "white-space:nowrap" if len(label) < 60 else "", ""), (value, mono, ""),
                 (text, mono if "%" in note else "opacity:0.7", bar)]
        if not value and not note:                  # a sentence
            cells = [(label, "white-space:normal' colspan='3", "")]
        lines.append("<tr style='background:transparent'>" + "".join(
            f"<td style='{cell}text-align:left;{style}'>{html.escape(words)}{more}</td>"
            for words, style, more in cells) + "</tr>")
    return "".join(lines)
