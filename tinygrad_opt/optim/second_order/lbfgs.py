"""L-BFGS: the inverse Hessian from the last steps and the changes of the gradient along them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from ...backend import xp
from ...tensor import Tensor, enable_grad
from ..ranges import NONNEGATIVE, Whole, check
from ..state import COUNT, fitted
from .base import SecondOrder, Slope
from .line_search import Trial, strong_wolfe

Array = Any
CURVED = 1e-10                      # torch's bound, absolute, on what enters the memory
SPOILT = "the loss is not finite; the memory is forgotten. Lower lr, or take line_search_fn='strong_wolfe'"
UP = "no point along the direction lowers the loss"
SPENT = "max_eval evaluations are made"
COUNTS, NUMBERS, VECTORS = ("func_evals", "n_iter"), ("t", "H_diag", "prev_loss"), ("d", "prev_flat_grad", "prev_point")
LISTS = ("old_dirs", "old_stps", "ro", "al")


class LBFGS(SecondOrder):
    """L-BFGS (Liu & Nocedal, Mathematical Programming 45, 1989), as in torch; for smooth losses of all the data.

    Parameters
    ----------
    params : iterable
        Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors; groups may differ in lr.
    lr : float, default 1
        The step along the direction, at least 0: the first that the line search tries, the only one without.
    max_iter : int, default 20
        Iterations a step.
    max_eval : int, optional
        Evaluations a step. If given, no line search goes beyond; else none begins after 1.25 max_iter.
    tolerance_grad : float, default 1e-7
        Stop where no entry of the gradient is larger.
    tolerance_change : float, default 1e-9
        Stop where no entry of the parameters, or not the loss, changes by more.
    history_size : int, default 100
        How many steps are remembered, at least 1.
    line_search_fn : {None, "strong_wolfe"}
        How the step along the direction is found; None takes lr.
    maximize : bool, default False
        Ascend.

    Notes
    -----
    Use: small and middling problems whose loss is smooth and is computed on all the data, with
    line_search_fn="strong_wolfe", without which it may diverge. Small batches spoil it: the change of the gradient
    must come from the step, not from other data.

    Elsewhere: torch leaves the parameters NaN where the loss becomes so; here they return to the best point of this
    step, and the memory is forgotten, as it is where a line search finds nothing lower. Torch has one group and no
    maximize; its line search goes one beyond max_eval, and the default of that cuts it short: with max_iter=1 it
    may stand still for ever. It never remembers a step along which the curvature is below 1e-10; after a line search
    that holds here in proportion only. Here the gradients are cleared before the closure is called.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([-1.2, 1.0], requires_grad=True, dtype=tg.float64)
    >>> optimizer = tg.optim.LBFGS([w], max_iter=100, tolerance_change=1e-12, line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = 100 * (w[1] - w[0] ** 2) ** 2 + (1 - w[0]) ** 2
    ...     loss.backward()
    ...     return loss
    >>> round(optimizer.step(closure).item(), 6)
    24.2
    >>> w.numpy().round(6).tolist(), optimizer.report.accepted
    ([1.0, 1.0], True)
    """

    ranges = {"max_iter": Whole("[0, inf)"), "tolerance_grad": NONNEGATIVE, "tolerance_change": NONNEGATIVE,
              "history_size": Whole("[1, inf)")}

    def __init__(self, params: Any, lr: float = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: str | None = None, *, maximize: bool = False) -> None:
        super().__init__(params, dict(
            lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change, history_size=history_size, line_search_fn=line_search_fn,
            maximize=maximize))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group["max_eval"] is not None:
            check("LBFGS", "max_eval", group["max_eval"], Whole("[1, inf)"))
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ValueError(f"LBFGS: line_search_fn must be None or 'strong_wolfe', got {group['line_search_fn']!r}")

    # ---- the step -----------------------------------------------------------------------------------------

    @property
    def _memory(self) -> dict[str, Any]:
        """What is kept between steps: with the first parameter, as torch has it."""
        return self.state[self.param_groups[0]["params"][0]]

    def _forget(self) -> None:
        memory = self._memory
        evaluations = memory["func_evals"]
        memory.clear()
        memory["func_evals"] = evaluations

    def _minimize(self, closure: Callable[[], Any]) -> Any:
        self._shared("lr")
        x, memory, report = self._point(), self._memory, self.report
        loss, here = self._evaluate(closure, x)
        if here.finite:
            end, report.reason = self._iterate(closure, x, here)
        elif "prev_point" in memory:
            end, report.reason = memory["prev_point"]._data, f"where the last step went {SPOILT}"
            self._forget()
        else:
            self._refuse_bad_start(here.value, here.gradient)
        report.accepted = here.finite and bool((end != x).any())
        self._move_to(end)
        return loss

    def _evaluate(self, closure: Callable[[], Any], x: Array) -> tuple[Tensor, Slope]:
        """Let the closure compute the loss and the gradients at x; return its loss, and both as numbers to lower."""
        self._move_to(x)
        self.report.functions += 1
        self.report.gradients += 1
        self._memory["func_evals"] = self._memory.get("func_evals", 0) + 1
        for p in self._learned:
            p._grad = None
        with enable_grad():
            loss = closure()
        if not isinstance(loss, Tensor) or loss._data.size != 1:
            what = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"LBFGS: the closure must return the loss, a Tensor of one number; it returned {what}")
        slopes = [p._grad for p in self._learned]
        if all(slope is None for slope in slopes):
            raise RuntimeError("LBFGS: the closure left no gradients; it clears them, computes the loss, calls its "
                               "backward and returns it")
        sign = -1.0 if self._maximizing else 1.0
        g = self._join([None if slope is None else sign * slope._data for slope in slopes])
        return loss, Slope(self._signed(loss.item()), g)

    def _iterate(self, closure: Callable[[], Any], x: Array, here: Slope) -> tuple[Array, str]:
        """Iterate from x until something says stop; return where, and why."""
        left, best = self.param_groups[0]["max_iter"], (x, here)
        reason = self._flat(here) or ("" if left else "max_iter is 0")
        while not reason:
            left -= 1
            x, here, reason = self._go(closure, x, here, last=left == 0)
            if not here.finite:
                self._forget()
                return best[0], f"back at the best point: {SPOILT}"
            best = min((x, here), best, key=lambda pair: pair[1].value)
        return x, reason

    def _go(self, closure: Callable[[], Any], x: Array, here: Slope, last: bool) -> tuple[Array, Slope, str]:
        """Iterate once; return the new point, loss and gradient there, and why to stop, if so."""
        options, memory, g = self.param_groups[0], self._memory, here.gradient
        searching = options["line_search_fn"] is not None
        if (searching or not last) and self._left() < 1:
            return x, here, SPENT
        self._remember(here)
        d, t = self._direction(g), self._first_step(g)
        start = Trial(0.0, here.value, float(g @ d), here)
        memory.update(d=Tensor._wrap(d), t=0.0, prev_flat_grad=Tensor._wrap(g), prev_loss=here.value,
                      prev_point=Tensor._wrap(x))
        if start.slope > 0:                         # only rates that differ between groups turn a direction uphill
            self._forget()
            return x, here, UP if last else ""
        if start.slope > -options["tolerance_change"] or not t:
            return x, here, "the slope along the direction is within tolerance_change" if t else "lr is 0"
        if searching:
            found = self._search(closure, x, start, d, t)
            if found is start:                      # the memory may be to blame; the gradient is not
                again = bool(memory["ro"]) and not last
                self._forget()
                return x, here, SPENT if self._left() < 1 else "" if again else UP
            t, new = found.t, found.at
        memory["t"], x = t, x + t * d
        if not searching:
            new = here if last else self._evaluate(closure, x)[1]
        self._note(new, d)
        return x, new, "max_iter iterations are made" if last else self._done(here, new, d)

    def _left(self) -> float:
        """Return how many evaluations max_eval allows yet."""
        most = self.param_groups[0]["max_eval"]
        return math.inf if most is None else most - self.report.functions

    def _flat(self, here: Slope) -> str:
        within = float(abs(here.gradient).max()) <= self.param_groups[0]["tolerance_grad"]
        return "the gradient is within tolerance_grad" if within else ""

    def _done(self, before: Slope, here: Slope, d: Array) -> str:
        """Return why to stop after an iteration, or nothing; the tests and their order are torch's."""
        options, most = self.param_groups[0], self.param_groups[0]["max_eval"]
        if self.report.functions >= (options["max_iter"] * 5 // 4 if most is None else most):
            return SPENT
        if self._flat(here):
            return self._flat(here)
        if float(abs(self._memory["t"] * d).max()) <= options["tolerance_change"]:
            return "the step is within tolerance_change"
        if abs(here.value - before.value) < options["tolerance_change"]:
            return "the change of the loss is within tolerance_change"
        return ""

    def _note(self, here: Slope, d: Array) -> None:
        """Write an iteration into the report."""
        t, report = self._memory["t"], self.report
        report.numbers = {"t": t, "pairs": len(self._memory["ro"]), "gradient": float(abs(here.gradient).max())}
        report.log.append(f"loss {self._signed(here.value):.6g}, t {t:.3g}, evaluations {report.functions}")

    # ---- direction and length -----------------------------------------------------------------------------

    def _remember(self, here: Slope) -> None:
        """Take the last step and the change of the gradient along it into the memory."""
        memory = self._memory
        memory["n_iter"] = memory.get("n_iter", 0) + 1
        if memory["n_iter"] == 1:
            memory.update(old_dirs=[], old_stps=[], ro=[], al=[], H_diag=1.0)
            return
        y, s = here.gradient - memory["prev_flat_grad"]._data, memory["t"] * memory["d"]._data
        curvature, least = float(y @ s), CURVED
        if self.param_groups[0]["line_search_fn"]:  # after which it is positive, so that only rounding counts
            least = float(xp.finfo(y.dtype).eps) * abs(float(memory["prev_flat_grad"]._data @ s))
        if curvature > least:
            for name, new in (("old_dirs", Tensor._wrap(y)), ("old_stps", Tensor._wrap(s)), ("ro", 1 / curvature)):
                memory[name] = [*memory[name], new][-self.param_groups[0]["history_size"]:]
            memory["H_diag"] = curvature / float(y @ y)

    def _direction(self, g: Array) -> Array:
        """Return minus the inverse Hessian times the gradient (Nocedal & Wright 2006, algorithm 7.4)."""
        memory = self._memory
        pairs = [(y._data, s._data, ro) for y, s, ro in zip(memory["old_dirs"], memory["old_stps"], memory["ro"])]
        q, al = -g, []
        for y, s, ro in reversed(pairs):
            al.append(ro * float(s @ q))
            q = q - al[-1] * y
        memory["al"] = al[::-1]
        q = memory["H_diag"] * q
        for (y, s, ro), a in zip(pairs, memory["al"]):
            q = q + (a - ro * float(y @ q)) * s
        rates = {group["lr"] for group in self.param_groups}
        if len(rates) == 1:
            return q
        return self._join([xp.full(p.shape, group["lr"] / max(rates), p.dtype)
                           for group in self.param_groups for p in group["params"] if p.requires_grad]) * q

    def _first_step(self, g: Array) -> float:
        """Return what to multiply the direction by at first: lr, less where nothing but the gradient is known."""
        lr = float(max(group["lr"] for group in self.param_groups))
        return lr * min(1.0, 1 / float(abs(g).sum())) if self._memory["n_iter"] == 1 else lr

    def _search(self, closure: Callable[[], Any], x: Array, start: Trial, d: Array, t: float) -> Trial:
        def evaluate(t: float) -> Trial:
            here = self._evaluate(closure, x + t * d)[1]
            return Trial(t, here.value, float(here.gradient @ d), here)
        return strong_wolfe(evaluate, start, t, least=self.param_groups[0]["tolerance_change"] / float(abs(d).max()),
                            most=min(26, self._left()))

    # ---- saving -------------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` returned, here or of torch's LBFGS; see `Optimizer.load_state_dict`."""
        state, groups = ((state_dict.get(part) for part in ("state", "param_groups")) if isinstance(state_dict, dict)
                         else (None, None))
        if not (state and isinstance(state, dict) and isinstance(groups, list)
                and all(isinstance(group, dict) for group in groups)):
            return super().load_state_dict(state_dict, strict)          # nothing remembered, or no saved state at all
        memory = {}
        try:
            memory = self._fitted(state_dict)
        except ValueError as misfit:
            if strict:
                raise ValueError(f"LBFGS: {misfit}; pass strict=False to begin with an empty memory") from None
            warnings.warn(f"LBFGS: the memory was left out: {misfit}", stacklevel=2)
        super().load_state_dict({**state_dict, "state": {}}, strict)
        self._memory.update(memory)

    def _fitted(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of a saved memory if it is one of these parameters, in this order."""
        here, there = ([name for group in groups for name in group.get("param_names", ())]
                       for groups in (self.param_groups, saved["param_groups"]))
        if here and there and here != there:
            raise ValueError(f"the saved parameters are {', '.join(there)}, in this order; here {', '.join(here)}")
        entry, *others = saved["state"].values()
        if others or not isinstance(entry, dict) or entry.keys() - {*COUNTS, *NUMBERS, *VECTORS, *LISTS}:
            raise ValueError("the saved state is not that of LBFGS, which keeps it all with the first parameter")
        vector = Tensor._wrap(self._point())
        like = {**dict.fromkeys(COUNTS, COUNT), **dict.fromkeys(NUMBERS, 0.0), **dict.fromkeys(VECTORS, vector)}
        pairs = len(entry.get("ro", ()))
        like |= {"old_dirs": [vector] * pairs, "old_stps": [vector] * pairs, "ro": [0.0] * pairs, "al": [0.0] * pairs}
        needed = {"func_evals"} if not entry.get("n_iter") else like.keys() - {"prev_point", "al"}
        if needed - entry.keys():
            raise ValueError(f"of the saved memory, {', '.join(sorted(needed - entry.keys()))} is missing")
        return {key: fitted(f"the saved {key}", like[key], value) for key, value in entry.items() if key != "al"}
