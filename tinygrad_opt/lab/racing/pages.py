"""Pages: a race, or a single run, as one HTML file that asks nobody for anything.

The file holds the recorded numbers, and, where surface and rules can be printed as JavaScript, the means to run them
again from wherever one clicks. `race.html` and `race.js` beside this file are what it looks like and what it does.
"""

from __future__ import annotations

import base64
import html
import json
import re
from importlib.resources import files
from typing import Any

import numpy as np

from ...language import RuleError, letter
from ..style import Look
from ..surfaces import Surface
from ..traces import Trace
from . import javascript
from .contours import Scene, by_label

# matplotlib's lines, in pixels for a line two wide.
DASHES: dict[Any, list[float]] = {"-": [], "--": [7.4, 3.2], "-.": [12.8, 3.2, 2, 3.2], ":": [2, 3.3]}


def html_page(traces: Any, surface: Surface | str, title: str | None = None, *, box: Any = None) -> str:
    """Return a page on which recorded runs over a surface can be played, scrubbed and read step by step.

    The page is one file of HTML without a request to anywhere. Where the surface is a formula, a click starts the
    elementwise optimizers anew from there, with the same options; the page says who cannot be run again, and why.

    Parameters
    ----------
    traces : mapping of str to Trace, Trace or sequence of Trace
        The runs, by label.
    surface : Surface, str or callable
        What they ran on, two coordinates.
    title : str, optional
        By default the name of the surface and the labels.
    box : two intervals, optional
        What part of the plane to show; needed for a function that is no Surface.

    Returns
    -------
    str
        The text of the file.

    Raises
    ------
    TypeError, ValueError
        When a trace is none, or the surface or a run has not two coordinates.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> trace = tg.lab.record("adam", "rosenbrock", 100, lr=0.1)
    >>> page = tg.lab.html_page({"Adam": trace}, "rosenbrock")
    >>> page[:15], page.count("://"), page.count("http://www.w3.org/2000/svg"), len(page) < 100_000
    ('<!doctype html>', 1, 1, True)
    """
    traces = by_label(traces)
    if not traces:
        raise ValueError("traces is empty; give the record of a run, from tg.lab.record(...)")
    scene = Scene(surface, traces, box, 121)
    program, reason = _surface(scene.function)
    runs = {label: _run(trace) if program else (None, reason) for label, trace in traces.items()}
    absent = {label: why for label, (run, why) in runs.items() if run is None}
    return _fill({
        "title": html.escape(title or f"{scene.name}: {', '.join(traces)}"),
        "data": _json(_data(scene, traces, reason, absent)),
        "runtime": javascript.runtime(), "surface": program or "null",
        "rules": "[\n" + ",\n".join(run or "null" for run, _ in runs.values()) + "\n]", "page": _read("race.js"),
    })


def _surface(function: Any) -> tuple[str | None, str]:
    """Return a surface as JavaScript, or why nothing can be started anew on it."""
    if not isinstance(function, Surface):
        return None, "it is no Surface, whose formula takes any number of points"
    if function.sample is not None:
        return None, "its steps see samples"
    if function.walled:
        return None, "it has walls"
    try:
        return javascript.surface_program(function, 2), ""
    except RuleError as error:
        return None, str(error)


def _run(trace: Trace) -> tuple[str | None, str]:
    try:
        return javascript.run_program(trace), ""
    except RuleError as error:
        return None, str(error)


def _data(scene: Scene, traces: dict[str, Trace], reason: str, absent: dict[str, str]) -> dict[str, Any]:
    """Return what the page reads of the runs and of what they ran on."""
    sampled = getattr(scene.function, "sample", None) is not None   # what a step sees can be lower than the lowest
    why = "; ".join(f"{label}: {cause}" for label, cause in absent.items())
    return {
        "box": scene.box, "lowest": scene.lowest, "minimum": scene.zero == "minimum" and not sampled,
        "minima": getattr(scene.function, "minima", np.empty((0, 2))).tolist(),
        "teaches": getattr(scene.function, "teaches", ""),
        "heights": _levels(scene) if reason else None,
        "absent": f"Not run again: {why}." if absent else "",
        "notes": f"A new start cannot be clicked on {scene.name}: {reason}." if reason
        else f"From a new start these are not run again: {why}." if absent else "",
        "paths": [_path(label, trace, scene.looks[label]) for label, trace in traces.items()],
    }


def _path(label: str, trace: Trace, look: Look) -> dict[str, Any]:
    """Return the record of a run as the page reads it: a list for each coordinate, six digits."""
    n, lr = len(trace), trace.options.get("lr")
    lines, values, told = _rule(trace)
    return {
        "label": label if "lr" in label or not isinstance(lr, (int, float)) else f"{label}, lr {lr:.2g}", "steps": n,
        "color": look.color, "dash": DASHES.get(look.linestyle) or [2 * part for part in look.linestyle[1]]
        if look.linestyle != "-" else [], "marker": look.marker,
        "points": _columns(trace.path), "heights": _columns(trace.loss)[0], "spent": [0, *trace.evaluations.tolist()],
        "slopes": _columns(_side_by_side(trace.gradients.values(), n)),
        "moves": _columns(np.diff(trace.path, axis=0)), "lines": lines, "values": values, "told": told,
    }


def _rule(trace: Trace) -> tuple[list[dict], dict[str, list], dict[str, Any]]:
    """Return the lines of a rule, the values of the names that they assign, and the numbers that it was told.

    A name that is assigned twice has the value of its last line, which is what was recorded; some, such as a list of
    matrices, have none.
    """
    n, parts = len(trace), list(trace.quantities.values())
    first = parts[0] if parts else {}
    named = {letter(name): name for name in first}
    texts = trace.formula.splitlines() if first else []
    targets = [named.get(text.partition(" ← ")[0]) for text in texts]
    shown = [None if target in targets[k + 1:] else target for k, target in enumerate(targets)]
    lines = [{"text": text, "name": name, "number": name is not None and first[name].ndim == 1}
             for text, name in zip(texts, shown)]
    values = {}
    for name in filter(None, shown):
        found = first[name] if first[name].ndim == 1 else _side_by_side((part[name] for part in parts), n)
        if name != "p" or not np.array_equal(found, trace.path[1:], equal_nan=True):
            values[name] = _columns(found)
    options = {name: found for name, found in first.items() if found.ndim == 1 and name not in {"t", *targets}}
    told = {letter(name): column[0] if len(set(column)) == 1 else column
            for name, found in options.items() for column in _columns(found)}
    return lines, values, told


def _side_by_side(arrays: Any, n: int) -> np.ndarray:
    """Return what several parameters have, a line a step."""
    return np.concatenate([np.asarray(a, dtype="float64").reshape(n, -1) for a in arrays], axis=1)


def _columns(values: np.ndarray) -> list[list[float | None]]:
    """Return a list for each column, with six digits; None for what JSON has no number for."""
    return [[float(f"{x:.6g}") if np.isfinite(x) else None for x in column]
            for column in np.asarray(values, dtype="float64").reshape(len(values), -1).T.tolist()]


def _levels(scene: Scene) -> dict[str, Any]:
    """Return the heights of a grid, as they are drawn, in 65536 levels."""
    raised = np.nan_to_num(scene.raised(scene.heights), nan=float(np.nanmax(scene.raised(scene.heights))))
    unit = float(raised.max()) / 65535 or 1.0
    levels = np.round(raised / unit).astype("<u2")
    rows, columns = levels.shape
    return {"rows": rows, "columns": columns, "unit": unit, "levels": base64.b64encode(levels.tobytes()).decode()}


def _json(data: dict[str, Any]) -> str:
    """Return JSON that no word in it can end: inside of a script, `<` would."""
    return json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _fill(parts: dict[str, str]) -> str:
    """Return the template with its parts, at once, so that a part is never looked into."""
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _read("race.html"))


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
