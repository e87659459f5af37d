"""Forks and ways back: a training copied at a step and gone on with twice, or taken back by some steps."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...nn import Module
from ...optim.optimizer import Optimizer
from ...tensor import Tensor
from ..arguments import whole
from ..objective import Objective
from ..snapshots import Snapshot, is_object, untouched
from ..style import BLUE, PURPLE, VERMILION, figure, styled
from ..surfaces import Surface
from ..traces import Recorder, Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
            if not isinstance(part, (Tensor, dict, list, tuple)) and not is_object(part):
                raise TypeError("Rewind takes models, optimizers, schedulers, and lists of parameters; got "
                                f"{type(part).__name__}")
        self.parts, self.data = parts, data
        self._past: deque[tuple[Snapshot, Any]] = deque(maxlen=whole("keep", keep))

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
        if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or not 1 <= steps <= len(self):
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
        return np.linalg.norm(np.float64(self.branch.path) - self.trunk.path, axis=1)

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
    steps = whole("steps", steps)
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
        if isinstance(function, (str, Surface)) and len(named) > 1:
            raise ValueError(f"fork: a surface is a function of one Tensor, the optimizer holds {len(named)}, "
                             f"{', '.join(name for name, _ in named)}; pass the model that it trains")
        start = {name: p.numpy() for name, p in named} if len(named) > 1 else named[0][1].numpy()
        objective = Objective(function, start, data, loss, seed)
        memo |= {id(p): q for (_, p), q in zip(named, objective.parameters.values())}
    strange = [name for name, p in optimizer._named() if id(p) not in memo]
    if strange:
        raise ValueError(f"fork: the optimizer holds parameters that are not those of the model: {', '.join(strange)}")
    return copy.deepcopy(optimizer, memo), objective
