"""Forks and ways back: a training copied at a step, taken back by some steps, or left as if nothing had been.

All stand on a `Snapshot`: what parameters, state, options, buffers and generators are at a moment, each kept with the
object that holds it. So it is put back in place, to the bit, and whoever refers to these objects still does.
"""

from __future__ import annotations

import copy
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...nn import Module
from ...optim.optimizer import Optimizer
from ...random import Generator, default_generator
from ...tensor import Tensor, ndarray
from ..objective import Objective
from ..style import BLUE, PURPLE, VERMILION, figure, styled
from ..traces import Recorder, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Who listens, and what is planned, belongs to the moment and not to the training.
PASSING = {"_plans", "_raw", "_hooks", "_forward_hooks", "_forward_pre_hooks"}
FOREIGN = {*sys.stdlib_module_names, "numpy", "cupy", "matplotlib"}
INSTRUMENTS = __name__.rpartition(".")[0]


class Snapshot:
    """What some objects hold now; `restore` puts it back.

    It walks through all that they hold, and through the objects whose methods are an optimizer's hooks, such as an
    average of the parameters. Instruments of the laboratory stay as they are.

    Parameters
    ----------
    *parts
        Models, optimizers, schedulers, Tensors, or lists and dicts of these.
    data : object, optional
        Where batches come from. Of it, generators and attributes are kept and no array is copied.
    """

    def __init__(self, *parts: Any, data: Any = None) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._walk([*parts, default_generator()], whole=True)
        self._walk([data], whole=False)

    def _walk(self, waiting: list[Any], whole: bool) -> None:
        while waiting:
            value = waiting.pop()
            if id(value) in self._kept or not (whole or _is_object(value) or hasattr(value, "bit_generator")):
                continue
            content, inside = _read(value)
            if content is not None:
                self._kept[id(value)] = value, content
            waiting += inside

    @property
    def generators(self) -> list[Generator]:
        """The generators among the objects, the default one first."""
        return [value for value, _ in self._kept.values() if isinstance(value, Generator)]

    def restore(self) -> None:
        """Put everything back."""
        for value, content in self._kept.values():
            _write(value, content)


def _is_object(value: Any) -> bool:
    """Whether something keeps attributes that may be part of a training: no function, no class, no instrument."""
    home = type(value).__module__
    return (hasattr(value, "__dict__") and home.partition(".")[0] not in FOREIGN
            and not home.startswith(INSTRUMENTS) and not isinstance(value, type))


def _read(value: Any) -> tuple[Any, list[Any]]:
    """Return what is to be put back into an object, or None, and the objects inside."""
    if isinstance(value, Tensor):
        if value._node is not None:                 # a result, which nobody writes to
            return None, []
        return (value._data, value._data.copy(), value._grad, value._requires_grad), [value._grad]
    if isinstance(value, ndarray):
        return value.copy(), []
    if isinstance(value, dict):
        return dict(value), list(value.values())
    if isinstance(value, (list, set)):
        return value.copy(), list(value)
    if isinstance(value, tuple):
        return None, list(value)
    if hasattr(value, "bit_generator"):
        return value.bit_generator.state, []
    if not _is_object(value):
        return None, []
    kept = {key: part for key, part in vars(value).items() if key not in PASSING}
    hooks = vars(value).get("_hooks") if isinstance(value, Optimizer) else None
    listening = [getattr(hook, "__self__", None) for some in (hooks or {}).values() for hook in some]
    return kept, [*kept.values(), *filter(_is_object, listening)]


def _write(value: Any, content: Any) -> None:
    """Put back what `_read` returned."""
    if isinstance(value, Tensor):
        value._data, numbers, value._grad, value._requires_grad = content
        value._data[...] = numbers
        value._version[0] += 1
        value._buffer = None                        # it may be the memory of a gradient that is back in use
    elif isinstance(value, ndarray):
        value[...] = content
    elif isinstance(value, (dict, set)):
        value.clear()
        value.update(content)
    elif isinstance(value, list):
        value[:] = content
    elif hasattr(value, "bit_generator"):
        value.bit_generator.state = content
    else:
        held = vars(value)
        for key in held.keys() - content.keys() - PASSING:
            del held[key]
        held.update(content)
        held.get("_plans", {}).clear()              # they are made for what has just been replaced


@contextmanager
def untouched(*parts: Any, data: Any = None) -> Iterator[None]:
    """Leave some objects, and the order of the batches, as they were before a `with` block, whatever it does."""
    before = Snapshot(*parts, data=data)
    try:
        yield
    finally:
        before.restore()


class Rewind:
    """Take back the last steps of a training.

    Parameters
    ----------
    *parts
        All that a step changes: the model or a list of parameters, the optimizer, schedulers.
    keep : int, default 20
        How many steps can be taken back; each keeps a copy of everything.
    data : DataLoader or other iterable, optional
        Its generator goes back too, for steps across the end of an epoch.

    Raises
    ------
    TypeError, ValueError
        When there are no parts, one cannot be walked through, or keep is no whole number of at least 1.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.25)
    >>> def train(x):
    ...     optimizer.zero_grad()
    ...     (x * w ** 2).sum().backward()
    ...     optimizer.step()
    >>> rewind = tg.lab.Rewind([w], optimizer)
    >>> for x in rewind.over([1.0, 0.5, 8.0]):
    ...     train(x)
    >>> w.item(), rewind.undo(), w.item()
    (-1.125, [8.0], 0.375)
    """

    def __init__(self, *parts: Any, keep: int = 20, data: Any = None) -> None:
        if not parts:
            raise TypeError("Rewind needs all that a step changes: Rewind(model, optimizer), and schedulers")
        for part in parts:
            if not isinstance(part, (Tensor, dict, list, tuple)) and not _is_object(part):
                raise TypeError("Rewind takes models, optimizers, schedulers, and lists of parameters; got "
                                f"{type(part).__name__}")
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
            raise ValueError(f"keep must be a whole number of steps, at least 1; got {keep!r}")
        self.parts, self.data = parts, data
        self._past: deque[tuple[Snapshot, Any]] = deque(maxlen=keep)

    def __len__(self) -> int:
        """The number of steps that can be taken back."""
        return len(self._past)

    def remember(self, batch: Any = None) -> None:
        """Keep everything as it is now: call it at the beginning of each step, with its batch."""
        self._past.append((Snapshot(*self.parts, data=self.data), batch))

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches and remember before each."""
        for batch in batches:
            self.remember(batch)
            yield batch

    def undo(self, steps: int = 1) -> list[Any]:
        """Go back to the beginning of one of the last steps.

        Parameters
        ----------
        steps : int, default 1
            How many steps are taken back, at most `len(rewind)`.

        Returns
        -------
        list
            The batches of these steps, in order: who steps along them again gets the same bits.
        """
        if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= len(self):
            raise ValueError(f"undo: steps must be a whole number from 1 to {len(self)}, the steps that are "
                             f"remembered (of at most {self._past.maxlen}, see keep); got {steps!r}")
        undone = [self._past.pop() for _ in range(steps)]
        undone[-1][0].restore()
        return [batch for _, batch in reversed(undone)]


@dataclass(eq=False)
class Fork:
    """What became of a training as it was, and of its copy with other options, on the same batches.

    Attributes
    ----------
    trunk, branch : Trace
        Of the training as it was, and with the other options.
    options : dict
        The other options.
    """

    trunk: Trace
    branch: Trace
    options: dict[str, Any]

    @property
    def difference(self) -> np.ndarray:
        """How far the parameters of the two are from each other at each point, an (n + 1,) array that begins at 0."""
        return np.linalg.norm(self.branch.path - self.trunk.path, axis=1)

    def draw(self) -> Figure:
        """Draw both losses, and the distance of the parameters, over the steps."""
        words = ", ".join(f"{key}={value!r}" for key, value in self.options.items()) or "nothing changed"
        n = len(self.trunk)
        with styled():
            fig = figure(7.0, 5.2)
            above, below = fig.subplots(2, sharex=True, height_ratios=[3, 2])
            for trace, label, look in ((self.trunk, "as it was", dict(color=BLUE)),
                                       (self.branch, words, dict(color=VERMILION, linestyle="--"))):
                above.plot(range(n), trace.loss[:n], label=label, **look)
            above.set(ylabel="loss", title=f"{self.trunk.optimizer} on {self.trunk.function}, forked")
            both = np.concatenate([self.trunk.loss[:n], self.branch.loss[:n]])
            if both.min() > 0 and both.max() > 10 * both.min():
                above.set_yscale("log")
            above.legend()
            below.plot(range(n + 1), self.difference, color=PURPLE)
            below.set(xlabel="step after the fork", ylabel="distance of\nthe parameters", ylim=(0, None))
        return fig

    def __repr__(self) -> str:
        words = ", ".join(f"{key}={value!r}" for key, value in self.options.items()) or "nothing changed"
        n = len(self.trunk)
        return (f"<fork of {self.trunk.optimizer} on {self.trunk.function} with {words}: after {n} steps "
                f"{self.difference[-1]:.4g} apart, loss {self.trunk.loss[n - 1]:.4g} and "
                f"{self.branch.loss[n - 1]:.4g} in the last>")


def fork(optimizer: Optimizer, function: Any, steps: int, *, data: Any = None, loss: Any = None, seed: int = 0,
         **options: Any) -> Fork:
    """Let a training go on twice, as it is and with other options, on copies; it stays where it is itself.

    Parameters
    ----------
    optimizer : Optimizer
        In the midst of a training, with its state.
    function : Module, Surface, str or callable
        The model that it trains; or a surface, its name, or a function of its parameters, in their order.
    steps : int
        At least 1.
    data : (x, y) or iterable of (x, y), optional
        For a model: a batch, or batches. Both copies see the same ones in the same order.
    loss : callable, optional
        For a model: from its outputs and y to a scalar.
    seed : int, default 0
        Of a surface whose steps see samples.
    **options
        What is different in the branch, in every group that has such an option: `lr=0.01`, `betas=(0.5, 0.999)`.

    Returns
    -------
    Fork

    Raises
    ------
    TypeError, ValueError
        When an option is unknown or out of range, or as `record`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> surface = tg.lab.surface("rosenbrock")
    >>> w = tg.tensor(surface.start, requires_grad=True)
    >>> optimizer = tg.optim.Adam([w], lr=0.1)
    >>> for _ in range(50):
    ...     optimizer.zero_grad()
    ...     surface(w).backward()
    ...     optimizer.step()
    >>> tg.lab.fork(optimizer, surface, 100, betas=(0.5, 0.999))       # doctest: +ELLIPSIS
    <fork of Adam on rosenbrock with betas=(0.5, 0.999): after 100 steps ... apart, loss ... and ... in the last>
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fork takes an Optimizer in the midst of a training, got {type(optimizer).__name__}")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
    if hasattr(data, "__next__"):
        raise TypeError("data can be gone through only once; both copies need the same batches: pass a list or a "
                        "DataLoader")
    traces = []
    for own in ({}, options):
        with untouched(data=data):
            twin, objective = _copied(optimizer, function, data, loss, seed)
            twin._change(own)
            recorder = Recorder(twin, objective)
            recorder.t = optimizer.step_count       # a surface may ask for the number of the step
            traces.append(recorder.run(steps))
    return Fork(*traces, options)


def _copied(optimizer: Optimizer, function: Any, data: Any, loss: Any, seed: int) -> tuple[Optimizer, Objective]:
    """Return a copy of an optimizer over a copy of what it trains."""
    memo: dict[int, Any] = {}
    if isinstance(function, Module):
        objective = Objective(copy.deepcopy(function, memo), data=data, loss=loss)
    else:
        named = [(name.replace(" of group ", "."), p) for name, p in optimizer._named()]
        start = {name: p.numpy() for name, p in named} if len(named) > 1 else named[0][1].numpy()
        objective = Objective(function, start, data, loss, seed)
        if objective.surface is not None and len(named) > 1:
            raise ValueError(f"fork: a surface is a function of one Tensor, the optimizer holds {len(named)}, "
                             f"{', '.join(name for name, _ in named)}; pass the model that it trains")
        memo |= {id(p): q for (_, p), q in zip(named, objective.parameters.values())}
    strange = [name for name, p in optimizer._named() if id(p) not in memo]
    if strange:
        raise ValueError(f"fork: the optimizer holds parameters that are not those of the model: {', '.join(strange)}")
    return copy.deepcopy(optimizer, memo), objective
