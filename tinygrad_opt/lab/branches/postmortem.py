"""Post-mortem: why did the loss become NaN? The last steps of a run, the first number that went wrong, its cause."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from ...backend import xp
from ...io import save
from ...nn import Module
from ...optim.doctor import Finding, Report
from ...optim.optimizer import Optimizer
from ...optim.replay import Moment, replays, stepping
from ...optim.schedule import Table
from ...optim.second_order.base import SecondOrder
from ...optim.sgd import SGD
from ...random import default_generator
from ...tensor import Tensor, enable_grad, float16
from ..arguments import whole
from ..snapshots import Snapshot, untouched
from .culprits import Culprit, find_in_backward, find_in_forward, is_finite, is_floating


class Step(NamedTuple):
    """What is kept of a step; NaN for what a step that went wrong did not come to."""

    step: int
    loss: float
    gradient: float                 # the norm of all gradients
    lr: float
    update: float                   # the norm of what the step added, where a rule made it
    parameters: float               # the norm of all parameters after the step


class Pass(NamedTuple):
    """A way forward: what went in, and what came out."""

    inputs: tuple
    chance: list                    # where the generators stood before
    targets: tuple
    loss: Any


class Diverged(RuntimeError):
    """Raised where a number is not finite, to leave the loop; the `with` block of a PostMortem ends with it."""


# What to do, by what went wrong.
WAYS_OUT = {
    "bad data": "Drop or mend such samples before training: tg.isfinite(x).all() finds them.",
    "lr above the stability edge": "A smaller lr, or a warm-up; tg.lab.lr_find shows where the edge is.",
    "exploding gradients": "Clip them, grad_transforms=[tg.optim.transforms.ClipNorm(1.0)]; normalisation between "
                           "layers or a smaller initial scale keeps them from growing.",
    "overflow": "Keep the argument small: subtract its maximum before an exp, compute with logarithms "
                "(tg.logsumexp, tg.cross_entropy of scores), normalise the layer before.",
    "overflow in float16": "Compute this in float32, as tg.autocast does, with a GradScaler for the gradients.",
    "undefined operation": "Keep the argument away from that value: log(x + 1e-8), a / (b + 1e-8), sqrt(x + 1e-12); of "
                           "probabilities, tg.cross_entropy takes the scores themselves.",
    "the optimizer's own line": "Options that keep the line finite: an eps above 0 that float16 does not round away, a "
                                "smaller lr.",
    "not finite from the start": "Look at how the parameters were made or loaded.",
    "exploding loss": "A smaller lr, clipped gradients; or a larger factor=, if the loss is known to come back.",
    "outside of the loss": "Let all that is added to the loss be computed in the function that PostMortem is given.",
}


class PostMortem:
    """Watch a training, stop it at the first number that is not finite, and say which, when and why.

    The run is the one that would have been, to the bit, up to there.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
    loss : callable
        From the model's outputs and targets to a scalar. Call it as `pm.loss`.
    keep : int, default 20
        How many steps to remember, at least 2.
    factor : float, default 1000
        Stop, too, when the loss is so many times the median of the first `keep`; inf to let it grow.

    Attributes
    ----------
    steps : deque of Step
        The last steps.
    kind : str
        What went wrong, one of `tinygrad_opt.lab.branches.postmortem.WAYS_OUT`; empty while nothing has.
    finding : Finding or None
        The same in words: what, where, why, and the way out.

    Raises
    ------
    TypeError, ValueError
        When an argument is none of these.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> _ = tg.manual_seed(0)
    >>> model = tg.nn.Sequential(tg.nn.Linear(2, 1, bias=False), tg.nn.ReLU())
    >>> optimizer = tg.optim.SGD(model.named_parameters(), lr=0.1)
    >>> with tg.lab.PostMortem(model, optimizer, lambda y, target: -(target * y.log()).mean()) as pm:
    ...     for x in (tg.tensor([[1.0, 0.0]]), tg.tensor([[0.0, 0.0]])):
    ...         optimizer.zero_grad()
    ...         loss = pm.loss(model(x), 1.0)
    ...         loss.backward()
    ...         optimizer.step()
    undefined operation: the loss is inf
      where    step 2, the loss function, operation log
      why      log(0) = -inf.
      way out  Keep the argument away from that value: log(x + 1e-8), a / (b + 1e-8), sqrt(x + 1e-12);
               of probabilities, tg.cross_entropy takes the scores themselves.
    """

    def __init__(self, model: Module, optimizer: Optimizer, loss: Callable, keep: int = 20,
                 factor: float = 1000.0) -> None:
        if not isinstance(model, Module) or not isinstance(optimizer, Optimizer) or not callable(loss):
            raise TypeError("PostMortem(model, optimizer, loss) takes a Module, an Optimizer, and a function of the "
                            f"model's outputs and the targets; got {type(model).__name__}, {type(optimizer).__name__}, "
                            f"{type(loss).__name__}")
        keep = whole("keep", keep, 2)
        if not isinstance(factor, (int, float)) or not factor > 1:
            raise ValueError(f"factor must be above 1 (inf to let the loss grow), got {factor!r}")
        self.model, self.optimizer, self.function, self.factor = model, optimizer, loss, factor
        self.steps: deque[Step] = deque(maxlen=keep)
        self.kind, self.finding = "", None
        self._parameters = dict(optimizer._named())
        self._passes: list[Pass] = []
        self._early: list[float] = []               # the first losses, which say what is usual
        self._handles: list[Any] = []
        self._saved: dict[str, Any] = {}
        self._script = ""

    # ---- listening ----------------------------------------------------------------------------------------------

    def __enter__(self) -> PostMortem:
        self._handles = [self.model.register_forward_pre_hook(self._forward),
                         self.optimizer.register_step_pre_hook(self._before),
                         self.optimizer.register_step_post_hook(self._after)]
        self._generators = Snapshot(data=self.model).generators
        self._start = _norm([p._data for p in self._parameters.values()])
        self._quiet = np.errstate(all="ignore")     # who looks at every number needs no warning of one
        self._quiet.__enter__()
        self._before_us = [(inner, inner._remembers, inner._warned) for inner in stepping(self.optimizer)]
        for inner, *_ in self._before_us:
            inner._remembers = inner._warned = True
        return self

    def __exit__(self, kind: Any, error: Any, where: Any) -> bool:
        self._quiet.__exit__(kind, error, where)
        for handle in self._handles:
            handle.remove()
        for inner, remembers, warned in self._before_us:
            inner._remembers, inner._warned = remembers, warned
        self._handles, self._passes = [], []
        if isinstance(error, Diverged):
            print(self.report())
            return True
        return False

    def loss(self, outputs: Any, *targets: Any) -> Tensor:
        """Return the loss of the model's outputs, and note it."""
        value = self.function(outputs, *targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            what = f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"the loss must be a Tensor of one number, the function returned {what}")
        if self._handles:
            self._passes.append(Pass(*self._began, targets, value._data))
        return value

    def _forward(self, model: Module, inputs: tuple) -> None:
        self._began = inputs, [generator.get_state() for generator in self._generators]

    def _before(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> Any:
        closure = args[0] if args else kwargs.get("closure")
        if closure is None:
            self._look()
            return None
        if isinstance(optimizer, SecondOrder):      # it may try points where the loss is not finite, and go back
            return None

        def looked_at() -> Any:
            loss = closure()
            self._look()
            return loss
        return (looked_at,), {}

    def _look(self) -> None:
        """See a loss and its gradients before the step that they lead to."""
        if not self._passes:
            raise RuntimeError("PostMortem has seen no loss since the last step; inside `with`, compute it by "
                               "pm.loss(model(x), y)")
        losses = [float(one.loss) for one in self._passes]
        gradients = [p._grad._data for p in self._parameters.values() if p._grad is not None]
        norm = _norm(gradients)
        loss = sum(losses) / len(losses)
        self._note(loss, norm)
        if not math.isfinite(loss):
            self._stop(*self._of_the_loss(next(one for one in self._passes if not math.isfinite(float(one.loss)))))
        if not math.isfinite(norm):
            self._stop(*self._of_the_gradient())
        if self._early and loss > self.factor * statistics.median(self._early):
            self._stop(*self._of_the_size(loss))
        if len(self._early) < self.steps.maxlen:
            self._early.append(abs(loss))

    def _after(self, optimizer: Optimizer, *hooked: Any) -> None:
        """See what a step has made of the parameters."""
        if len(self._passes) and (not self.steps or self.steps[-1].step != optimizer.step_count):
            self._note(float(self._passes[0].loss), math.nan, optimizer.step_count)     # of a method with curvature
        size = _norm([p._data for p in self._parameters.values()])
        if self.steps:
            self.steps[-1] = self.steps[-1]._replace(parameters=size, update=_moved(optimizer))
        if not math.isfinite(size):
            self._stop(*self._of_the_parameters())
        self._passes = []

    def _note(self, loss: float, norm: float, step: int | None = None) -> None:
        lr = float(self.optimizer.param_groups[0].get("lr", math.nan))
        self.steps.append(Step(step or self.optimizer.step_count + 1, loss, norm, lr, math.nan, math.nan))

    # ---- the cause: each returns the kind, where, and why -----------------------------------------------------------

    def _stop(self, kind: str, what: str, where: str, why: str) -> None:
        self.kind = kind
        self.finding = Finding(f"{kind}: {what}", f"step {self.steps[-1].step}, {where}", why, WAYS_OUT[kind])
        self._saved |= {"model": _copies(self.model.state_dict()), "optimizer": _copies(self.optimizer.state_dict()),
                        "inputs": _copies(self._began[0]), "targets": _copies(self._passes[-1].targets)}
        raise Diverged(str(self.finding))

    def _of_the_loss(self, one: Pass) -> tuple[str, str, str, str]:
        for name, value in self._batch(one).items():
            if not is_finite(value):
                bad = ~np.isfinite(value)
                self._write({"batch": {name: value}}, "", f"numbers = [saved['batch'][{name!r}]]")
                return ("bad data", "the batch holds numbers that are not finite", name, f"{bad.sum()} of {bad.size} "
                        f"numbers, the first {value[bad][0]} at {tuple(map(int, np.argwhere(bad)[0]))}.")
        spoilt = [name for name, p in self.model.named_parameters() if not is_finite(p)]
        if spoilt:
            return ("not finite from the start", "a parameter is not finite", spoilt[0],
                    "It was so before the step; nothing that is computed with it is finite.")
        layer, culprit = self._again(one, find_in_forward)
        if culprit is None:
            return ("outside of the loss", f"the loss is {float(one.loss)}", "the loss", "Computed once more by the "
                    "model and the loss function it cannot be led back to one of their operations.")
        return self._of(culprit, f"the loss is {float(one.loss)}", layer or "the loss function", "overflow")

    def _of_the_gradient(self) -> tuple[str, str, str, str]:
        names = [name for name, p in self._parameters.items() if p._grad is not None and not is_finite(p._grad)]
        what = f"the gradient of {names[0]} is not finite" + f", and {len(names) - 1} more" * (len(names) > 1)
        culprit = None
        for one in self._passes:
            culprit = culprit or self._again(one, lambda loss: find_in_backward(loss, [
                p for p in self._parameters.values() if p.requires_grad]))[1]
        if culprit is None:
            return ("outside of the loss", what, names[0], "The loss that pm.loss returned has finite gradients: they "
                    "came from something that was added to it, or were written by hand.")
        return self._of(culprit, what, "on the way back", "exploding gradients")

    def _of_the_parameters(self) -> tuple[str, str, str, str]:
        names = {p: name for name, p in self._parameters.items()}
        for p, replay in replays(self.optimizer):
            bad = [moment for moment in replay.moments if not is_finite(moment.value)]
            if bad and not is_finite(p):
                self._write_rule(replay)
                kind, more = self._trend("the optimizer's own line")
                return kind, f"{names[p]} is not finite after the step", names[p], f"{_line(bad[0])} {more}".strip()
        name = next(name for name, p in self._parameters.items() if not is_finite(p))
        return "the optimizer's own line", f"{name} is not finite after the step", name, "Its gradient was finite."

    def _of_the_size(self, loss: float) -> tuple[str, str, str, str]:
        kind, why = self._trend("exploding loss")
        return kind, f"the loss is {loss:.3g}, it began at {self._early[0]:.3g}", "the loss", why or (
            f"All is finite, but the loss is more than {self.factor:g} times what it was at the beginning.")

    def _of(self, culprit: Culprit, what: str, where: str, kind: str) -> tuple[str, str, str, str]:
        """Say what an operation did, and whether it or the run before it is to blame."""
        self._write_operation(culprit)
        dtypes = {str(a.dtype) for a in culprit.arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"}
        where = f"{where}, operation {culprit.name}"
        if not culprit.overflows:
            return "undefined operation", what, where, f"{culprit}."
        fitting, more = self._trend("overflow in float16" if dtypes == {"float16"} else kind)
        return fitting, what, where, f"{culprit}, which {' and '.join(sorted(dtypes))} cannot hold. {more}".strip()

    def _trend(self, otherwise: str) -> tuple[str, str]:
        """Return the kind of what the last steps show, and what that is in words."""
        losses = [abs(one.loss) for one in self.steps if math.isfinite(one.loss)]
        rises = 0
        while rises + 1 < len(losses) and losses[-rises - 1] > losses[-rises - 2] > 0:
            rises += 1
        growth = (losses[-1] / losses[-rises - 1]) ** (1 / rises) if rises else 1.0
        if rises >= 4 and growth > 1.1:
            return "lr above the stability edge", (
                f"The loss has grown {growth:.3g} times a step for {rises} steps, as it does beyond the edge."
                + self._edge(growth))
        norms = [one.gradient for one in self.steps]
        before = self._start if self.steps[0].step == 1 else math.nan
        for k, one in enumerate(self.steps):
            usual = statistics.median(norms[:k]) if k else math.inf
            if math.isfinite(one.gradient) and one.gradient > 100 * usual:
                return "exploding gradients", (f"The norm of the gradients was {one.gradient:.3g} in step {one.step}, "
                                               f"{one.gradient / usual:.3g} times what it was in the steps before.")
            if one.update > before / 2 > 0:
                return "lr above the stability edge", (f"Step {one.step} moved the parameters by {one.update:.3g}, and "
                                                       f"their norm was {before:.3g}: no slope holds so far.")
            before = one.parameters
        return otherwise, ""

    def _edge(self, growth: float) -> str:
        """Of gradient descent the growth tells the curvature: on a bowl the loss grows by (lr h - 1)^2."""
        group, lr = self.optimizer.param_groups[0], self.steps[-1].lr
        if not isinstance(self.optimizer, SGD) or group["momentum"]:
            return ""
        edge = 2 * lr / (1 + math.sqrt(growth))
        return f" Of plain gradient descent that makes the edge about {edge:.2g}; lr is {lr:g}."

    def _batch(self, one: Pass) -> dict[str, np.ndarray]:
        named = [*((f"input {k} of the model", x) for k, x in enumerate(one.inputs)),
                 *((f"target {k} of the loss", x) for k, x in enumerate(one.targets))]
        return {name: x.numpy() if isinstance(x, Tensor) else np.asarray(x) for name, x in named
                if isinstance(x, (Tensor, np.ndarray, float))}

    def _again(self, one: Pass, find: Callable[[Tensor], Culprit | None]) -> tuple[str, Culprit | None]:
        """Compute a loss once more; return the first layer that turned bad, and what `find` finds in its graph."""
        layers: list[str] = []

        def note(name: str) -> Callable:
            def hook(module: Module, given: tuple, result: Any) -> None:
                if is_finite(given) and not is_finite(result):
                    layers.append(f"layer {name} ({type(module).__name__})")
            return hook
        with untouched(self.model), np.errstate(all="ignore"), enable_grad():
            for generator, state in zip(self._generators, one.chance):
                generator.set_state(state)
            self._saved["generator"] = default_generator().get_state()
            handles = [module.register_forward_hook(note(name)) for name, module in self.model.named_modules() if name]
            try:
                culprit = find(self.function(self.model(*one.inputs), *one.targets))
            finally:
                for handle in handles:
                    handle.remove()
        return layers[0] if layers else "", culprit

    # ---- reading ----------------------------------------------------------------------------------------------------

    def table(self) -> Table:
        """Return the last steps; it prints as a table."""
        return Table(self.steps, ("step", "loss", "|gradient|", "lr", "|update|", "|parameters|"))

    def report(self) -> Report:
        """Return what was found as a list of one Finding, which prints in words; empty while all is finite."""
        return Report([self.finding] if self.finding else [])

    def reproduction(self, path: str | PathLike) -> str:
        """Return a Python script that makes the number once more that is not finite, in one step; save what it needs.

        Parameters
        ----------
        path : str or path
            Of the file of numbers, in which the script looks; it ends in .npz. It also holds the model's and the
            optimizer's state where the run stopped, and the last batch.

        Raises
        ------
        ValueError
            When nothing has gone wrong, or it was no single operation, or one that cannot be imported.
        """
        if not self._script:
            reason = self.finding.what if self.finding else "all was finite so far"
            raise ValueError(f"there is no operation to repeat ({reason}); an operation or a rule of your own must "
                             "stand in a file that can be imported, and factor=math.inf waits for the first infinite "
                             "number")
        save(self._saved, path)
        title = f'"""{self.finding.what}, at {self.finding.where}: {self.finding.why}"""\n'
        return self._script.replace("TITLE", title).replace("PATH", repr(str(path)))

    def _write_operation(self, culprit: Culprit) -> None:
        if culprit.place is None or culprit.forward.__module__ == "__main__":
            return
        needed = {"arguments": culprit.arguments, "options": culprit.options}
        imports = f"from {culprit.forward.__module__} import {culprit.place} as operation\n"
        if culprit.cotangent is None:
            self._write(needed, imports, "numbers = [operation(*saved['arguments'], **saved['options'])]")
            return
        learned = {k for k, a in enumerate(culprit.arguments) if is_floating(a)}
        self._write(needed | {"cotangent": culprit.cotangent}, imports,
                    f"learned = {learned}\n"
                    "arguments = [tg.tensor(a, requires_grad=True) if k in learned else a\n"
                    "             for k, a in enumerate(saved['arguments'])]\n"
                    "operation(*arguments, **saved['options']).backward(saved['cotangent'])\n"
                    "numbers = [arguments[k].grad for k in learned if arguments[k].grad is not None]")

    def _write_rule(self, replay: Any) -> None:
        home, name = replay.rule.function.__module__, replay.rule.function.__qualname__
        if "<locals>" in name or home == "__main__":
            return
        given = {key: value for key, value in replay.before.items() if key in replay.rule.function.__code__.co_varnames}
        self._write({"before": given}, f"from {home} import {name.partition('.')[0]}\n",
                    f"new, *state = {name}(**saved['before'])\nnumbers = [new]")

    def _write(self, needed: dict[str, Any], imports: str, body: str) -> None:
        self._saved |= needed
        others = ", ".join(key for key in ("model", "optimizer", "inputs", "targets", "generator") if key not in needed)
        self._script = (
            "TITLE\nimport numpy as np\n\nimport tinygrad_opt as tg\n" + imports + "\nsaved = tg.load(PATH)\n"
            "with np.errstate(all='ignore'):\n    " + body.replace("\n", "\n    ") + "\nprint(*numbers)\n"
            "assert not all(np.isfinite(np.asarray(x)).all() for x in numbers), 'here all numbers are finite'\n\n"
            f"# For the whole step, with your own model, optimizer and loss, saved also holds: {others}.\n"
            "# tg.default_generator().set_state(saved['generator'])\n"
            "# model.load_state_dict(saved['model']); optimizer.load_state_dict(saved['optimizer'])\n"
            "# loss(model(*saved['inputs']), *saved['targets']).backward(); optimizer.step()\n")


def _norm(arrays: list[Any]) -> float:
    """Return the norm of all numbers together, finite whenever all of them are."""
    total = sum(float(xp.vdot(a, a)) if a.dtype != float16 else math.inf for a in arrays)
    if not math.isfinite(total):                    # float16 and float32 cannot hold the square of all that they hold
        total = sum(float(xp.square(a.astype("float64")).sum()) for a in arrays)
    return math.sqrt(total)


def _moved(optimizer: Optimizer) -> float:
    """Return the norm of what the last step of the rules added to the parameters; NaN where none did."""
    runs = [run for inner in stepping(optimizer) for plan in inner._plans.values() for run in plan.runs if run.before]
    steps = [p._data - (before["p"] if isinstance(before, dict) else before[0]).reshape(p.shape)
             for run in runs for p, before in zip(run.params, run.before)]
    return _norm(steps) if steps else math.nan


def _line(moment: Moment) -> str:
    """Say which line of a rule gave which number."""
    value = np.asarray(moment.value)
    return f"The line {moment.formula} gives {value[~np.isfinite(value)].flat[0]}."


def _copies(value: Any) -> Any:
    """Return what can be saved of a value, copied."""
    if isinstance(value, dict):
        return {key: _copies(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_copies(part) for part in value])
    if isinstance(value, Tensor):
        return Tensor(value.detach())
    return value if value is None or isinstance(value, (bool, int, float, str)) else np.array(value) if isinstance(
        value, (np.ndarray, np.generic)) else repr(value)
