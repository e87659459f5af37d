"""The doctor: what is wrong with a training that runs without an error, in plain words.

`doctor` looks at an optimizer as it is now; `Watch` also at what happens from step to step.
"""

from __future__ import annotations

import inspect
import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..backend import xp
from ..gradients import get_total_norm
from ..tensor import Handle, Tensor
from .asgd import ASGD
from .plan import working_dtype
from .state import BESIDE, expected, fitted
from .transforms import ClipNorm

if TYPE_CHECKING:
    from .optimizer import Optimizer

# What an optimizer divides by the root of: with eps = 0 a gradient that was always 0 becomes 0 / 0.
ROOTS = {"exp_avg_sq", "square_avg", "exp_inf", "exp_avg_var", "sum", "grad_sum_sq"}
ENOUGH = 20                             # steps, before the doctor says always or never


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, where, why it matters, and the way out."""

    what: str
    where: str
    why: str
    way_out: str

    def __str__(self) -> str:
        rows = [("where", self.where), ("why", self.why), ("way out", self.way_out)]
        return "\n".join([self.what, *(textwrap.fill(text, 100, initial_indent=f"  {head:<9}",
                                                     subsequent_indent=" " * 11) for head, text in rows)])


class Report(list):
    """A list of findings, which prints as text."""

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing found"

    __str__ = __repr__


def doctor(optimizer: Optimizer, model: Any = None, schedulers: Any = ()) -> Report:
    """List the silent traps that an optimizer is in, as far as its present state shows them.

    Parameters
    ----------
    optimizer : Optimizer
        As it is between two steps; nothing is changed.
    model : Module, optional
        What it should train: then parameters are also looked for that only one of both has.
    schedulers : scheduler or iterable of schedulers, optional
        Those that write into it.

    Returns
    -------
    Report
        A list of `Finding`; it prints as text, "nothing found" when it is empty.

    See Also
    --------
    Watch : what shows only from step to step, such as a forgotten zero_grad.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.doctor import doctor
    >>> model = tg.nn.Linear(2, 1)
    >>> print(doctor(tg.optim.AdamW([model.weight], betas=(0.999, 0.9)), model))
    betas fall where they usually rise
      where    group 0: betas = (0.999, 0.9), the defaults are (0.9, 0.999)
      why      The mean square then follows single gradients, which makes steps uneven: perhaps they
               were swapped.
      way out  Set group['betas'] = (0.9, 0.999).
    parameters of the model are not in the optimizer
      where    bias
      why      No step of this optimizer moves them.
      way out  Pass model.parameters(), or optimizer.add_param_group({'params': ...}); freeze on purpose
               with requires_grad_(False).
    >>> print(doctor(tg.optim.AdamW(tg.optim.decay_groups(model, 0.01)), model))
    nothing found
    """
    around, plain = _unwrapped(optimizer)
    names = dict(optimizer._named())
    held = [names[name] for one in around for name in getattr(one, "frozen", ())]
    named = {p: name for name, p in names.items()}
    own = dict(model.named_parameters()) if model is not None else {}
    named |= {p: name for name, p in own.items() if p in named}
    report = Report()
    for one in plain:
        patient = _Patient(one, named, set(held))
        for check in CHECKS:
            report += check(patient)
    report += _membership(named, own) if model is not None else ()
    report += _shared(named)
    for scheduler in schedulers if isinstance(schedulers, Iterable) else [schedulers]:
        report += _scheduler(scheduler, [*around, *plain])
    return report


def _unwrapped(optimizer: Any) -> tuple[list[Any], list[Any]]:
    """Return the wrappers, and the optimizers inside that have rules of their own."""
    inside = getattr(optimizer, "optimizers", None) or [getattr(optimizer, "optimizer", None)]
    if inside == [None]:
        return [], [optimizer]
    parts = [_unwrapped(part) for part in inside]
    return [optimizer, *(one for around, _ in parts for one in around)], [one for _, plain in parts for one in plain]


@dataclass
class _Patient:
    """An optimizer with rules, and what its parameters are called."""

    optimizer: Any
    named: dict[Tensor, str]
    held: set[Tensor]                   # which a Freeze around it keeps

    @property
    def groups(self) -> list[tuple[str, dict[str, Any]]]:
        return [(f"group {k}", group) for k, group in enumerate(self.optimizer.param_groups)]

    @property
    def params(self) -> list[Tensor]:
        return [p for _, group in self.groups for p in group["params"]]

    def default(self, option: str) -> Any:
        """Return the default of the class for an option, if it has one."""
        found = inspect.signature(type(self.optimizer).__init__).parameters.get(option)
        return None if found is None or found.default is found.empty else found.default

    def text(self, params: Iterable[Tensor]) -> str:
        return some(self.named[p] for p in params)


def some(names: Iterable[str], most: int = 6) -> str:
    """Return names with commas, the first few of many."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


Findings = Iterator[Finding]


# ---- options ----------------------------------------------------------------------------------------------------


def _unknown_options(patient: _Patient) -> Findings:
    for place, group in patient.groups:
        unknown = group.keys() - patient.optimizer.defaults.keys() - {"params", "param_names", "initial_lr"}
        if unknown:
            yield Finding("a group has options that nobody reads", f"{place}: {some(sorted(unknown))}",
                          f"{type(patient.optimizer).__name__} reads {some(patient.optimizer.defaults, 99)}.",
                          "Correct the name; the option that was meant still has its old value.")


def _invalid_options(patient: _Patient) -> Findings:
    for place, group in patient.groups:
        try:
            patient.optimizer._check_options(group)
        except (TypeError, ValueError) as error:
            yield Finding("an option is out of its range", f"{place}: {error}", "The next step will refuse it.",
                          "Set it to a value in the range.")


def _no_rate(patient: _Patient) -> Findings:
    for place, group in patient.groups:
        scheduled = any(option.group is group and option.key == "lr" for option in patient.optimizer._schedules)
        if group.get("lr") == 0 and not group.get("initial_lr") and not scheduled:
            yield Finding("the learning rate is 0", place, "No parameter of this group moves.",
                          "Set group['lr'], or leave its parameters out of the optimizer.")


def _betas(patient: _Patient) -> Findings:
    usual = patient.default("betas")
    for place, group in patient.groups:
        betas = group.get("betas", ())
        if usual and len(betas) == len(usual) and [*usual] == sorted(usual) and [*betas] != sorted(betas):
            yield Finding("betas fall where they usually rise",
                          f"{place}: betas = {tuple(betas)}, the defaults are {usual}",
                          "The mean square then follows single gradients, which makes steps uneven: perhaps they were "
                          "swapped.", f"Set group['betas'] = {tuple(sorted(betas))}.")


def _eps(patient: _Patient) -> Findings:
    for place, group in patient.groups:
        eps = group.get("eps")
        if not isinstance(eps, (int, float)) or eps < 0 or "final_lr" in group:     # AdaBound limits its rate itself
            continue
        p = group["params"][0]
        tiny = float(xp.finfo(working_dtype(p)).tiny)
        start = expected(patient.optimizer, group, p)
        divides = any(not xp.any(xp.asarray(getattr(start[key], "_data", start[key]))) for key in ROOTS & start.keys())
        if 0 < eps < tiny or eps == 0 and divides:
            yield Finding("eps is too small to do anything", f"{place}: eps = {eps:g}; the smallest normal "
                          f"{working_dtype(p)} is {tiny:.3g}", "Where the gradient has been 0 from the first step on, "
                          "the quotient is 0 / 0 or near it: NaN, or steps without a limit.",
                          f"Set group['eps'], {patient.default('eps')} for example.")


def _decay(patient: _Patient) -> Findings:
    for place, group in patient.groups:
        small = [p for p in group["params"] if p.ndim < 2 and p.requires_grad]
        if small and group.get("weight_decay", 0) > 0:
            yield Finding("biases and norms decay", f"{place}, weight_decay = {group['weight_decay']:g}: "
                          f"{patient.text(small)}", "Decay is for what multiplies inputs; these it only shifts or "
                          "shrinks, at no gain.",
                          f"tg.optim.decay_groups(model, {group['weight_decay']:g}) as params.")


def _maximize(patient: _Patient) -> Findings:
    for place, group in patient.groups:
        if group["maximize"]:
            yield Finding("steps go uphill", f"{place}: maximize = True", "A loss that should fall rises.",
                          "Set group['maximize'] = False unless this is a reward.")


def _read_once(patient: _Patient) -> Findings:
    for option in patient.optimizer._schedules:
        yield from _effect(f"{option.key} = {option.function!r}", option.key, patient.optimizer)


# ---- parameters, gradients, state ---------------------------------------------------------------------------------


def _frozen(patient: _Patient) -> Findings:
    moving = [p for p in patient.params if not p.requires_grad and p._grad is not None and p not in patient.held]
    if moving:
        yield Finding("frozen parameters still move", patient.text(moving), "requires_grad is False, but an old "
                      "gradient is left, so each step applies it, with momentum and weight decay.",
                      "optimizer.zero_grad() after freezing: without a gradient a parameter is skipped.")


def _without_gradient(patient: _Patient) -> Findings:
    state, count = patient.optimizer.state, patient.optimizer.step_count
    for place, group in patient.groups:
        steps = {p: state.get(p, {}).get("step") for p in group["params"]}
        most = max((n for n in steps.values() if n is not None), default=count)
        behind = [p for p, n in steps.items() if (n or 0) < most and p._grad is None and p.requires_grad
                  and p not in patient.held]
        if behind:
            yield Finding("parameters get no gradient", f"{place}, " + some(
                f"{patient.named[p]} ({steps[p] or 0} of {most} steps)" for p in behind),
                "The loss does not depend on them, or a detach stands between; they do not learn.",
                "Use them in forward, or leave them out of the optimizer.")


def _not_finite(patient: _Patient) -> Findings:
    state = patient.optimizer.state
    kinds = {"a parameter": lambda p: {"": p}, "the state": lambda p: state.get(p, {}),
             "a gradient": lambda p: {"": p._grad}}
    for kind, values in kinds.items():
        everything = ((p, key, value) for p in patient.params for key, value in values(p).items())
        for p, key, value in everything:
            wrong = sum(int((~xp.isfinite(xp.asarray(getattr(x, "_data", x)))).sum()) for x in _leaves(value))
            if wrong:
                yield Finding(f"{kind} is not finite", f"{patient.named[p]}{key and f', {key}'}: {wrong} numbers; the "
                              "first that is", "NaN spreads to all that is computed from it, and momentum keeps it.",
                              "Go back to a checkpoint; lower lr, clip gradients, or wrap the optimizer in "
                              "ApplyIfFinite.")
                break


def _leaves(value: Any) -> list[Any]:
    """Return the arrays and numbers in a value of the state."""
    if isinstance(value, list):
        return [leaf for part in value for leaf in _leaves(part)]
    return [] if value is None else [value]


def _misshapen(patient: _Patient) -> Findings:
    for _, group in patient.groups:
        for p in group["params"]:
            own = patient.optimizer.state.get(p)
            for key, like in (expected(patient.optimizer, group, p) if own else {}).items():
                try:
                    fitted(key, like, own[key]) if key in own else None
                except ValueError as error:
                    yield Finding("the state does not fit its parameter", f"{patient.named[p]}: {error}",
                                  "The next step fails, or mixes what belongs to another parameter.",
                                  "del optimizer.state[p], and it starts anew.")


def _dead(patient: _Patient) -> Findings:
    state, known = patient.optimizer.state, set(patient.params)
    places = {"tensors that are in no group": sum(_bytes(own) for p, own in state.items() if p not in known)}
    places["frozen parameters"] = sum(_bytes(state.get(p, {})) for p in known if not p.requires_grad)
    for _, group in patient.groups:
        for p in group["params"]:
            if own := state.get(p):
                kept = expected(patient.optimizer, group, p).keys() | BESIDE
                for key in own.keys() - kept:
                    places[key] = places.get(key, 0) + _bytes({key: own[key]})
    for place, size in places.items():
        if size:
            yield Finding("state that no step reads", f"{place}: {size:,} bytes", "It takes memory, here and in each "
                          "checkpoint.", "del optimizer.state[p], or the key in it.")


def _bytes(state: dict[str, Any]) -> int:
    return sum(leaf._data.nbytes for value in state.values() for leaf in _leaves(value) if isinstance(leaf, Tensor))


CHECKS: tuple[Callable[[_Patient], Findings], ...] = (
    _unknown_options, _invalid_options, _no_rate, _betas, _eps, _decay, _maximize, _read_once, _frozen,
    _without_gradient, _not_finite, _misshapen, _dead)


# ---- the model, memory, schedulers ------------------------------------------------------------------------------


def _membership(named: dict[Tensor, str], own: dict[str, Tensor]) -> Findings:
    missing = [name for name, p in own.items() if p.requires_grad and p not in named]
    if missing:
        yield Finding("parameters of the model are not in the optimizer", some(missing),
                      "No step of this optimizer moves them.",
                      "Pass model.parameters(), or optimizer.add_param_group({'params': ...}); freeze on purpose with "
                      "requires_grad_(False).")
    strange = [name for p, name in named.items() if p not in set(own.values())]
    if strange:
        yield Finding("parameters of the optimizer are not in the model", some(strange),
                      "They may be those of an earlier model or of a copy: what is trained is not what is used.",
                      "Make the optimizer after the model, of its parameters.")


def _shared(named: dict[Tensor, str]) -> Findings:
    params = list(named)
    for k, p in enumerate(params):
        twins = [q for q in params[:k] if xp.shares_memory(p._data, q._data)]
        if twins:
            yield Finding("two parameters share memory", f"{named[twins[0]]}, {named[p]}",
                          "Each step moves these numbers twice, with two states that do not know of each other.",
                          "Use one Tensor in both places; it collects both gradients.")


def _scheduler(scheduler: Any, optimizers: list[Any]) -> Findings:
    name = type(scheduler).__name__
    if not any(scheduler.optimizer is one for one in optimizers):
        yield Finding("a scheduler writes into another optimizer", name, "This one keeps its values.",
                      f"{name}(optimizer, ...) after the last optimizer was made.")
    for one in optimizers:
        if not hasattr(one, "optimizer") and not hasattr(one, "optimizers"):
            yield from _effect(name, scheduler.key, one)
    if "nan" in getattr(scheduler, "_warned", ()):
        yield Finding("a metric was NaN", name, "It counts as an epoch without improvement, and so cuts lr.",
                      "Find where the loss or the metric stops being finite.")
    best = getattr(scheduler, "best", math.inf)
    if math.isfinite(best) and best < 0 and scheduler.threshold_mode == "rel" and scheduler.threshold > 0:
        yield Finding("a negative metric under a relative threshold", f"{name}: best = {best:g}",
                      "A share of a negative number points the wrong way: a metric that stays the same, or becomes a "
                      "little worse, counts as better.", f"{name}(..., threshold_mode='abs').")


def _effect(what: str, key: str, optimizer: Any) -> Findings:
    owner = type(optimizer).__name__
    if key in optimizer.read_once:
        yield Finding("a schedule without effect", what, f"{owner} reads {key} at the first step alone.",
                      f"Leave it out; {owner} adapts its step sizes itself.")
    if key == "lr" and isinstance(optimizer, ASGD):
        yield Finding("a schedule that comes one step late", what, f"Each step of {owner} computes the rate of the "
                      "next, as in PyTorch.", "Shift it by one step, or use SGD with an average: EMA(optimizer).")


# ---- from step to step ------------------------------------------------------------------------------------------


@dataclass
class Watch:
    """Watch an optimizer for some steps: what no single moment shows.

    A gradient that a step has used and that backward adds to, because zero_grad was forgotten; steps without a
    backward before them, or without any gradient; a ClipNorm that limits always or never, over 20 steps or more.

    Parameters
    ----------
    optimizer, model, schedulers
        As for `doctor`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.doctor import Watch
    >>> w = tg.tensor([3.0, 4.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.1)
    >>> with Watch(optimizer) as watch:
    ...     for _ in range(3):
    ...         (w ** 2).sum().backward()
    ...         optimizer.step()
    >>> print(watch.report())
    gradients add up from step to step
      where    2 of 3 steps
      why      backward adds to .grad: a step then goes along the sum of all gradients so far.
      way out  optimizer.zero_grad() before each backward.
    """

    optimizer: Any
    model: Any = None
    schedulers: Any = ()
    counts: dict[str, int] = field(init=False, default_factory=lambda: dict.fromkeys(
        ("steps", "added", "stale", "empty"), 0))

    def __enter__(self) -> Watch:
        self._params = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._left: tuple[list, Any] | None = None
        self._new: dict[Tensor, Any] = {}
        self._norms: list[tuple[ClipNorm, list[float]]] = []
        self._handles: list[Handle] = [p.register_hook(self._arrival(p)) for p in self._params if p.requires_grad]
        self._handles.append(self.optimizer.register_step_post_hook(self._after))
        watched: list[Callable] = [self._before]
        for transform in self.optimizer.grad_transforms:
            watched += [self._measure(transform), transform] if isinstance(transform, ClipNorm) else [transform]
        self._own = [one for one in watched if one not in self.optimizer.grad_transforms]
        self.optimizer.grad_transforms = watched
        return self

    def __exit__(self, *error: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self.optimizer.grad_transforms = [one for one in self.optimizer.grad_transforms if one not in self._own]

    def _arrival(self, p: Tensor) -> Callable:
        def arrived(g: Tensor) -> None:
            self._new[p] = self._new.get(p, 0) + g._data.astype("float64")
        return arrived

    def _measure(self, clip: ClipNorm) -> Callable:
        norms: list[float] = []
        self._norms.append((clip, norms))
        return lambda named, t: norms.append(get_total_norm([p._grad for _, p in named], clip.norm_type))

    def _gradients(self) -> tuple[list, Any]:
        """Return the gradients as they are held, and copied into one vector."""
        held = [p._grad for p in self._params]
        return held, self._vector({p: g._data for p, g in zip(self._params, held) if g is not None})

    def _vector(self, arrays: dict[Tensor, Any]) -> Any:
        return xp.concatenate([arrays[p].reshape(-1).astype("float64") if p in arrays else xp.zeros(p.numel())
                               for p in self._params])

    def _before(self, named: list[tuple[str, Tensor]], t: int) -> None:
        self.counts["steps"] += 1
        if not named:
            self.counts["empty"] += 1
        elif self._left is not None:
            (held, now), (old, left) = self._gradients(), self._left
            if self._new:
                self.counts["added"] += _is_sum(now, left, self._vector(self._new))
            else:
                self.counts["stale"] += all(map(lambda a, b: a is b, held, old)) and bool((now == left).all())

    def _after(self, *hooked: Any) -> None:
        self._left, self._new = self._gradients(), {}

    def report(self) -> Report:
        """Return what `doctor` finds now, and what the steps have shown."""
        steps, found = self.counts["steps"], doctor(self.optimizer, self.model, self.schedulers)
        words = {
            "added": ("gradients add up from step to step", "backward adds to .grad: a step then goes along the sum "
                      "of all gradients so far.", "optimizer.zero_grad() before each backward."),
            "stale": ("steps without a backward before them", "The gradient is that of the step before, taken where "
                      "the parameters no longer are.", "loss.backward() before each optimizer.step()."),
            "empty": ("steps without any gradient", "Nothing moves: backward did not run, or zero_grad came after it.",
                      "The order is zero_grad, backward, step."),
        }
        found += [Finding(what, f"{self.counts[key]} of {steps} steps", why, way_out)
                  for key, (what, why, way_out) in words.items() if self.counts[key]]
        for clip, norms in self._norms:
            limited = sum(norm > clip.max_norm for norm in norms)
            if len(norms) >= ENOUGH and limited in (0, len(norms)) and math.isfinite(clip.max_norm):
                found.append(_clipping(clip, norms, bool(limited)))
        return found


def _clipping(clip: ClipNorm, norms: list[float], always: bool) -> Finding:
    usual = statistics.median(norms)
    return Finding(f"gradients are {'always' if always else 'never'} clipped",
                   f"{clip!r}: the norm was {min(norms):.3g} to {max(norms):.3g}, half the time below {usual:.3g}, in "
                   f"{len(norms)} steps",
                   "All gradients then have the same length, and lr alone says how far a step goes." if always else
                   "It guards against rare large gradients only if it lies near the usual ones.",
                   f"A max_norm of a few times the usual norm, {3 * usual:.2g} for example.")


def _is_sum(now: Any, left: Any, new: Any) -> bool:
    """Whether the gradient is the old one plus what has come since, and not what has come alone; up to a factor."""
    def distance(x: Any) -> float:
        return float(xp.linalg.norm(now - x)) / (float(xp.linalg.norm(now)) or 1.0)

    def sine(x: Any) -> float:
        sizes = float(now @ now) * float(x @ x)
        return max(0.0, 1 - float(now @ x) ** 2 / sizes) ** 0.5 if sizes else 1.0

    if not (left.any() and new.any()):
        return False
    together = left + new
    return (distance(together) < 1e-3 and distance(new) > 1e-2) or (sine(together) < 1e-3 and sine(new) > 1e-2)
