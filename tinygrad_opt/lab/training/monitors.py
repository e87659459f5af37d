"""Monitor: what happens inside a model while it is trained, measured every few steps.

Layers are looked at through their forward hooks, the optimizer through its step hooks. Between two measured steps no
hook sits on a layer and nothing is copied; the run is, to the bit, the one that would have been without a monitor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ... import autograd
from ...backend import to_numpy
from ...nn import Dropout, Flatten, Identity, Module, Unflatten
from ...optim.attribution import ITSELF, attributions
from ...optim.optimizer import Optimizer
from ...optim.registry import find
from ...optim.replay import stepping
from ...random import Generator
from ...tensor import Handle, Tensor, is_grad_enabled, no_grad
from ..arguments import whole
from .training_record import Activations, Gradients, TrainingRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 64                                       # of the outputs of a layer
NOTHING = -100                                  # 2 to this power is the narrowest range of outputs, that of zeros alone
PRODUCTS = 16                                   # with the Hessian: the largest eigenvalue to four digits, mostly
SMALLEST, LARGEST = -40, 10                     # gradients are counted between these powers of two
UNSEEN = (Dropout, Flatten, Unflatten, Identity)        # what comes out is what the layer before gave, if not all


class Monitor:
    """Measure what happens inside a model every few steps of its training, by `with Monitor(...) as monitor:`.

    Training goes on as always inside of the context, bit for bit; at its end, also by an exception, all hooks are gone.

    Parameters
    ----------
    model : Module
    optimizer : Optimizer
        Over parameters of the model.
    every : int, default 100
        Steps from one that is measured to the next, at least 1, counted by the optimizer. The default takes less than
        a tenth of the time of a small network on small batches (`examples/bench_monitor.py`); 1 shows most.
    layers : iterable of str, optional
        Names of the modules whose outputs are measured; by default all that have no modules inside, but for those that
        only drop or reshape. Of a module that is called several times in a step the first call counts.
    sharpness : (loss, x, y), optional
        Measure the largest eigenvalue of the Hessian of `loss(model(x), y)`, with the model as in use, by Lanczos
        iteration: 16 products with the Hessian each time.
    sharpness_every : int, default 1
        Measured steps from one sharpness to the next, at least 1.
    sources : bool, default False
        Measure how far gradient, momentum, decay, clipping and so on moved each parameter.
    writer : object, optional
        Whose `add_scalar(tag, value, step)` is called with every number: a SummaryWriter of TensorBoard, a
        `JsonLines`, a `LiveCurve`.

    Attributes
    ----------
    record : TrainingRecord
        What was measured so far.

    Raises
    ------
    TypeError, ValueError
        When an argument is none of these, naming it.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Sequential(tg.nn.Linear(2, 8), tg.nn.ReLU(), tg.nn.Linear(8, 2))
    >>> optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    >>> x, y = tg.data.moons(100, generator=0)
    >>> with tg.lab.Monitor(model, optimizer, every=10) as monitor:
    ...     for _ in range(30):
    ...         optimizer.zero_grad()
    ...         loss = monitor.loss(tg.cross_entropy(model(x), y))
    ...         loss.backward()
    ...         optimizer.step()
    >>> monitor
    <record of Sequential under SGD: 3 steps from 0 to 20, 3 layers>
    >>> monitor.record.activations["1"].histogram.sum(axis=1).tolist(), list(monitor.record.ratios)
    ([800, 800, 800], ['0.weight', '0.bias', '2.weight', '2.bias'])
    """

    def __init__(self, model: Module, optimizer: Optimizer, every: int = 100, *, layers: Any = None,
                 sharpness: tuple[Callable, Any, Any] | None = None, sharpness_every: int = 1, sources: bool = False,
                 writer: Any = None) -> None:
        for name, value, kind in (("model must be a", model, Module), ("optimizer must be an", optimizer, Optimizer)):
            if not isinstance(value, kind):
                raise TypeError(f"{name} {kind.__name__}, got {type(value).__name__}")
        every, sharpness_every = whole("every", every), whole("sharpness_every", sharpness_every)
        if sharpness is not None and (not isinstance(sharpness, tuple) or len(sharpness) != 3
                                      or not callable(sharpness[0])):
            raise TypeError("sharpness must be (loss, x, y), such as (tg.cross_entropy, x, y) with a batch to measure "
                            f"on; got {type(sharpness).__name__}")
        if writer is not None and not callable(getattr(writer, "add_scalar", None)):
            raise TypeError("writer must have a method add_scalar(tag, value, step), as TensorBoard's SummaryWriter "
                            f"has; got {type(writer).__name__}")
        self.model, self.optimizer, self.every, self.writer = model, optimizer, every, writer
        self.sharpness, self.sharpness_every, self.sources = sharpness, sharpness_every, sources
        self.layers = _layers(model, layers)
        held = {p for group in optimizer.param_groups for p in group["params"]}
        self.parameters = {name: p for name, p in model.named_parameters() if p in held}
        if not self.parameters:
            raise ValueError(f"the {type(optimizer).__name__} holds no parameter of the {type(model).__name__}; make "
                             "it over model.parameters()")
        self._rows: list[dict[Any, Any]] = []
        self._now: dict[Any, Any] | None = None     # the row of the step to come, where it is measured
        self._before: dict[str, np.ndarray] = {}    # the parameters, before a step that is measured
        self._looking: list[Any] = []               # hooks on layers, and what makes optimizers remember a step
        self._attached: list[Handle] = []

    # ---- on and off ---------------------------------------------------------------------------------------

    def attach(self) -> Self:
        """Begin to measure, until `detach`: what `with` does."""
        if not self._attached:
            self._attached = [self.optimizer.register_step_pre_hook(self._before_step),
                              self.optimizer.register_step_post_hook(self._after_step)]
            self._prepare(self.optimizer.step_count)
        return self

    def detach(self) -> None:
        """Take all hooks away; the record stays."""
        self._rest()
        for handle in self._attached:
            handle.remove()
        self._attached = []

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(self, *error: Any) -> None:
        self.detach()

    def loss(self, value: Any) -> Any:
        """Tell the loss of a step, before it or after it, and return it as it came.

        A closure that is given to `optimizer.step` tells it by itself. Of several in a step the first counts.

        Parameters
        ----------
        value : Tensor or float
            It is read in the steps that are measured alone.
        """
        row = self._now if self._now is not None and len(self._now) > 1 else self._rows[-1] if self._rows else None
        if row is not None and "loss" not in row and self.optimizer.step_count - row["step"] in (0, 1):
            row["loss"] = float(value)
            if row is not self._now:
                self._write({"loss": row["loss"]}, row["step"])
        return value

    # ---- one step -----------------------------------------------------------------------------------------

    def _prepare(self, step: int) -> None:
        """Look at the layers in the coming step, if it is to be measured."""
        if step % self.every:
            return
        self._now = {"step": step}
        self._looking = [module.register_forward_hook(partial(self._see, name))
                         for name, module in self.layers.items()]
        for inner in stepping(self.optimizer):
            if self.sources or inner.grad_transforms:           # or else nobody keeps the gradients as they came
                self._looking.append(_Remembering(inner))

    def _rest(self) -> None:
        for handle in self._looking:
            handle.remove()
        self._looking, self._now, self._before = [], None, {}

    def _see(self, name: str, module: Module, args: tuple, result: Any) -> None:
        """Measure the outputs of a layer: a forward hook."""
        if ("mean", name) in self._now or not (isinstance(result, Tensor) and result.ndim and result.numel()
                                               and module.training and is_grad_enabled()):
            return
        x = result.numpy()
        x = x.astype("float32") if x.dtype == "float16" else x
        units = x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x[:, None]
        with np.errstate(all="ignore"):
            mean = np.add.reduce(x, axis=None) / x.size
            self._now["mean", name], self._now["std", name] = float(mean), _norm(x - mean) / math.sqrt(x.size)
            self._now["dead", name] = 1 - np.count_nonzero(units.any(axis=0)) / units.shape[1]
            self._now["histogram", name] = _count(x)

    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> Any:
        row = self._now
        if row is None:
            return None
        row["lr"] = float(optimizer.param_groups[0].get("lr", np.nan))
        self._before = {name: p.numpy().copy() for name, p in self.parameters.items()}
        if self.sharpness is not None and len(self._rows) % self.sharpness_every == 0:
            row["sharpness"] = self._sharpness()
        closure = args[0] if args else kwargs.get("closure")
        if closure is None:
            return None

        def told() -> Any:
            return self.loss(closure())
        return (told, *args[1:]), {key: value for key, value in kwargs.items() if key != "closure"}

    def _sharpness(self) -> float:
        """Return the largest eigenvalue of the Hessian as it is now; NaN where the loss is not finite."""
        with evaluating(self.model):                # so that no layer is looked at either
            problem = autograd.Problem.of_model(self.model, *self.sharpness)
            with np.errstate(all="ignore"), no_grad():
                if not math.isfinite(problem(*problem.parameters).item()):
                    return math.nan
            # Far fewer products than power iteration takes where the next eigenvalue is close, as it often is.
            spectrum = autograd.lanczos_spectrum(problem, steps=PRODUCTS, samples=1, grid=2, generator=Generator(0))
        return spectrum.values[-1].item()

    def _after_step(self, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> None:
        row = self._now
        if row is not None:
            self._measure(row)
            if self.sources:
                self._attribute(row)
            self._rows.append(row)
            self._rest()
            self._write(_scalars(row), row["step"])
        self._prepare(self.optimizer.step_count)

    def _measure(self, row: dict[Any, Any]) -> None:
        """Add the gradients of the step that was taken, and how far it went, to its row."""
        raw = {p: g for inner in stepping(self.optimizer) if inner.grad_transforms for p, g in inner._raw.items()}
        with np.errstate(all="ignore"):
            for name, p in self.parameters.items():
                before = self._before[name]
                row["ratio", name] = float(np.divide(_norm(p.numpy() - before), _norm(before)))
                # Not p.grad: who asks for that makes the next backward find new memory, and the optimizer a new plan.
                g = raw.get(p, None if p._grad is None else p._grad._data)
                if g is not None:
                    g = to_numpy(g)
                    row["norm", name], (row["zeros", name], row["sizes", name]) = _norm(g), _count_sizes(g)
        norms = [row["norm", name] for name in self.parameters if ("norm", name) in row]
        row["norms"] = math.hypot(*norms) if norms else math.nan

    def _attribute(self, row: dict[Any, Any]) -> None:
        """Add what moved each parameter; a method without a rule for single numbers is one source."""
        found = dict(attributions(self.optimizer))
        for name, p in self.parameters.items():
            parts = found[p] if p in found else {ITSELF: p.numpy() - self._before[name]}
            row.update({("source", name, source): float(np.abs(part).sum()) for source, part in parts.items()})

    def _write(self, scalars: dict[str, float], step: int) -> None:
        if self.writer is not None:
            for tag, value in scalars.items():
                self.writer.add_scalar(tag, value, step)

    # ---- what was measured --------------------------------------------------------------------------------

    @property
    def record(self) -> TrainingRecord:
        """What was measured so far."""
        rows = self._rows

        def column(*key: str) -> np.ndarray:
            return np.array([row.get(key if len(key) > 1 else key[0], np.nan) for row in rows], dtype=float)
        layers = {name: type(module).__name__ for name, module in self.layers.items()
                  if any(("mean", name) in row for row in rows) or not rows}
        activations = {name: Activations(column("mean", name), column("std", name), column("dead", name),
                                         *_stack([row.get(("histogram", name)) for row in rows])) for name in layers}
        none = np.zeros(LARGEST - SMALLEST, int)
        gradients = {name: Gradients(column("norm", name), column("zeros", name),
                                     np.array([row.get(("sizes", name), none) for row in rows]).reshape(-1, len(none)),
                                     2.0 ** np.arange(SMALLEST, LARGEST + 1)) for name in self.parameters}
        sources: dict[str, dict[str, np.ndarray]] = {}
        for key in dict.fromkeys(key for row in rows for key in row if key[0] == "source"):
            sources.setdefault(key[1], {})[key[2]] = np.nan_to_num(column(*key))
        return TrainingRecord(
            type(self.model).__name__, type(self.optimizer).__name__, layers,
            {name: p.numel() for name, p in self.parameters.items()}, column("step").astype(int), column("loss"),
            column("lr"), column("norms"), activations, gradients,
            {name: column("ratio", name) for name in self.parameters}, column("sharpness"), sources)

    def table(self, at: int = -1) -> str:
        """Return a measured step, the last by default, as text; see `TrainingRecord.table`."""
        return self.record.table(at)

    def draw(self, *panels: str) -> Figure:
        """Draw what was measured; see `TrainingRecord.draw`."""
        return self.record.draw(*panels)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return repr(self.record)


class _Remembering:
    """An optimizer that remembers where its steps begin, until `remove`."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.before, optimizer._remembers = optimizer, optimizer._remembers, True

    def remove(self) -> None:
        self.optimizer._remembers = self.before


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Let a model behave as in use; afterwards each of its modules is in the mode in which it was."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training


def _layers(model: Module, chosen: Any) -> dict[str, Module]:
    """Return the modules to look at, by name."""
    modules = dict(model.named_modules())
    if chosen is None:
        return {name: module for name, module in modules.items()
                if not isinstance(module, UNSEEN) and not any(True for _ in module.children())}
    if isinstance(chosen, str) or not isinstance(chosen, Iterable) or not (names := list(chosen)):
        raise ValueError(f"layers must be names of modules, such as {list(modules)[-1:]}; got {chosen!r}")
    names = [name if name in modules else find(name, modules, "module of the model", "model.named_modules()")
             for name in names]
    return {name: modules[name] for name in names}


def _scalars(row: dict[Any, Any]) -> dict[str, float]:
    """Return the numbers of a row by the tags under which a writer is told them."""
    tags = {"norms": "gradient_norm", "ratio": "update_to_weight", "norm": "gradient_norm", "mean": "activation_mean",
            "std": "activation_std", "dead": "dead_units", "source": "moved_by", "zeros": "gradient_zeros"}
    named = {((key,) if isinstance(key, str) else key): value for key, value in row.items() if key != "step"}
    return {"/".join([tags.get(key[0], key[0]), *key[1:]]): float(value) for key, value in named.items()
            if isinstance(value, float)}


# ---- counting, fast: bins of powers of two need no search -----------------------------------------------------


def _norm(x: np.ndarray) -> float:
    flat = x.reshape(-1)
    square = float(flat @ flat)
    if not 1e-30 < square < 1e30:               # in single precision the square of a vanishing gradient is 0
        flat = flat.astype("float64")
        square = float(flat @ flat)
    return math.sqrt(square)


def _count(x: np.ndarray) -> tuple[int, np.ndarray]:
    """Return k and how many numbers lie in each of BINS equal bins of [-2^k, 2^k), the tightest that holds them all."""
    x = x.reshape(-1)
    top = max(x.max(), -x.min())
    if not np.isfinite(top):
        x = x[np.isfinite(x)]
        top = abs(x).max(initial=0)
    k = max(math.frexp(top)[1], NOTHING) if top else NOTHING
    places = np.floor(x * (BINS / 2 * 0.5 ** k)).astype(np.intp)        # exact: a power of two, then the whole part
    return k, np.bincount(places + BINS // 2, minlength=BINS)


def _stack(rows: list[tuple[int, np.ndarray] | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of several rows in bins that they share, and the edges of these: bins are joined in pairs."""
    k, counts = max((row[0] for row in rows if row), default=NOTHING), np.zeros((len(rows), BINS), int)
    k = 0 if k == NOTHING else k
    for place, (own, found) in enumerate(row or (k, 0) for row in rows):
        for _ in range(own, k):
            found = np.pad(found.reshape(-1, 2).sum(axis=1), BINS // 4)
        counts[place] = found
    return counts, np.linspace(-(2.0 ** k), 2.0 ** k, BINS + 1)


def _count_sizes(g: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the share of zeros, and how many numbers have a size between each two powers of two in a row."""
    bits = g.reshape(-1).astype("float32", copy=False).view("uint32")
    signed = np.bincount(bits >> 23, minlength=512)         # by sign and exponent, as single precision stores them
    counts = signed[:256] + signed[256:]
    first, last = 127 + SMALLEST, 127 + LARGEST
    inside = counts[first:last]                 # a view, that takes what lies beyond
    inside[0] += counts[1:first].sum()
    inside[-1] += counts[last:].sum()
    return float(counts[0]) / max(g.size, 1), inside
