"""Averages of parameters: SWA and EMA of a model as in torch, and EMA attached to an optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from ..backend import asarray, xp
from ..nn.module import Module
from ..nn.normalization import BatchNorm1d
from ..tensor import Tensor, float32, no_grad
from .lr_scheduler import SWALR  # noqa: F401, where torch has it too
from .optimizer import Optimizer
from .ranges import Range, check

DECAY = Range("[0, 1]")


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return `avg_fn(averaged, current, n)` of an exponential average: decay * averaged + (1 - decay) * current.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.swa_utils import get_ema_avg_fn
    >>> get_ema_avg_fn(0.75)(tg.tensor(4.0), tg.tensor(8.0), 1)
    tensor(5.)
    """
    check("get_ema_avg_fn", "decay", decay, DECAY)
    return lambda averaged, current, n: decay * averaged + (1 - decay) * current


def get_swa_avg_fn() -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return `avg_fn(averaged, current, n)` of an even average: averaged + (current - averaged) / (n + 1).

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.swa_utils import get_swa_avg_fn
    >>> get_swa_avg_fn()(tg.tensor(4.0), tg.tensor(8.0), 3)
    tensor(5.)
    """
    return lambda averaged, current, n: averaged + (current - averaged) / (n + 1)


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[list[Tensor], list[Tensor], int], None]:
    """Return the exponential average for lists of Tensors, written into the first list."""
    return _for_lists(get_ema_avg_fn(decay))


def get_swa_multi_avg_fn() -> Callable[[list[Tensor], list[Tensor], int], None]:
    """Return the even average for lists of Tensors, written into the first list."""
    return _for_lists(get_swa_avg_fn())


def _for_lists(avg_fn: Callable[[Tensor, Tensor, int], Tensor]) -> Callable[[list[Tensor], list[Tensor], int], None]:
    def multi_avg_fn(averaged: list[Tensor], current: list[Tensor], n: int) -> None:
        with no_grad():
            for a, p in zip(averaged, current, strict=True):
                a.data = avg_fn(a, p, n).astype(a.dtype)
    return multi_avg_fn


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of the model's over time.

    Without a function it is the even average of stochastic weight averaging. Izmailov et al., Averaging
    weights leads to wider optima and better generalization, arXiv:1803.05407.

    Parameters
    ----------
    model : Module
        It is copied.
    avg_fn : callable, optional
        `avg_fn(averaged, current, n)` returns the new average of one Tensor after n updates, such as
        `get_ema_avg_fn(0.999)`.
    multi_avg_fn : callable, optional
        `multi_avg_fn(averaged, current, n)` writes new averages into a list of Tensors.
    use_buffers : bool, default False
        Whether buffers are averaged too; otherwise they are copied at each update.

    Attributes
    ----------
    module : Module
        The copy that holds the averages.
    n_averaged : Tensor
        The number of updates; the first copies.

    Raises
    ------
    ValueError
        When both functions are given.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.Linear(1, 1, bias=False)
    >>> from tinygrad_opt.optim.swa_utils import AveragedModel
    >>> average = AveragedModel(model)
    >>> for value in (1.0, 3.0, 5.0):
    ...     model.weight.data = tg.tensor([[value]])
    ...     average.update_parameters(model)
    >>> average(tg.tensor([1.0])).tolist()
    [3.0]
    """

    def __init__(self, model: Module, avg_fn: Callable | None = None, multi_avg_fn: Callable | None = None,
                 use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("AveragedModel takes avg_fn or multi_avg_fn, both were given; leave one out")
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", Tensor(0))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the averaged model returns."""
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of a model into the averages.

        Raises
        ------
        ValueError
            When the model differs from the copied one in names or shapes. Nothing is changed then.
        """
        own, given = ({name: x.detach() for name, x in chain(m.named_parameters(), m.named_buffers())}
                      for m in (self.module, model))
        for name in own.keys() | given.keys():
            ours, theirs = (getattr(side.get(name), "shape", None) for side in (own, given))
            if ours != theirs:
                raise ValueError(f"AveragedModel: {name} has the shape {theirs} in the model and {ours} in the "
                                 "averaged copy (None: it is missing there); update it with the model it was made of")
        n = self.n_averaged.item()
        buffers = {name for name, _ in self.module.named_buffers()}
        averaged = [name for name in own if n and (self.use_buffers or name not in buffers)]
        if averaged:
            average = self.multi_avg_fn or _for_lists(self.avg_fn or get_swa_avg_fn())
            average([own[name] for name in averaged], [given[name] for name in averaged], n)
        for name in own.keys() - averaged:
            own[name].data = given[name]
        self.n_averaged.data = self.n_averaged + 1


def update_bn(loader: Iterable[Any], model: Module) -> None:
    """Estimate the running statistics of all batch normalization anew, in one pass over a loader.

    Averaged parameters were never run in training, so the statistics that came with them do not belong to them.

    Parameters
    ----------
    loader : iterable
        Batches: what the model is called with, or a tuple or list whose first element is that.
    model : Module
        In whatever mode; it is left in that.

    Raises
    ------
    ValueError
        When the loader is empty. Nothing is changed then.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> model = tg.nn.BatchNorm1d(1)
    >>> from tinygrad_opt.optim.swa_utils import update_bn
    >>> update_bn([tg.tensor([[1.0], [3.0]]), tg.tensor([[5.0], [7.0]])], model)
    >>> model.running_mean.tolist()
    [4.0]
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm1d)]
    if not norms:
        return
    batches = iter(loader)
    first = next(batches, None)
    if first is None:
        raise ValueError("update_bn: the loader has no batches; is it an iterator that was already used?")
    before = [(module, module.training) for module in model.modules()]
    momenta = [module.momentum for module in norms]
    try:
        model.train()
        for module in norms:
            module.reset_running_stats()
            module.momentum = None                  # the mean over all batches
        with no_grad():
            for batch in chain([first], batches):
                model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    finally:
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        for module, training in before:
            module.training = training


class EMA:
    """An exponential moving average of everything that an optimizer updates, kept after each of its steps.

    After step t: average <- d * average + (1 - d) * parameter, where d is `decay`, with warm-up at most
    (1 + t) / (10 + t). A step that a scaler leaves out does not count. Polyak and Juditsky, Acceleration of
    stochastic approximation by averaging, 1992. The averages of float16 parameters are float32.

    Parameters
    ----------
    optimizer : Optimizer
        The averages start from its parameters as they are now.
    decay : float, default 0.999
        In [0, 1].
    warmup : bool, default True
        Whether the first averages forget faster, so that they are not held back by the initial values.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> w = tg.tensor([1.0], requires_grad=True)
    >>> optimizer = tg.optim.SGD([w], lr=0.5)
    >>> from tinygrad_opt.optim.swa_utils import EMA
    >>> ema = EMA(optimizer, decay=0.75, warmup=False)
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> with ema.applied():
    ...     w.tolist()
    [0.875]
    >>> w.tolist()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, decay: float = 0.999, warmup: bool = True) -> None:
        check("EMA", "decay", decay, DECAY)
        self.optimizer, self.decay, self.warmup, self.step_count = optimizer, decay, warmup, 0
        self.averages: dict[Tensor, Any] = {}
        self._inside = False
        self._include()
        self._handles = (optimizer.register_step_pre_hook(self._refuse),
                         optimizer.register_step_post_hook(self._update))

    def _include(self) -> None:
        """Start averages of parameters that have none yet."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p not in self.averages:
                    self.averages[p] = xp.array(p._data, dtype=xp.promote_types(p.dtype, float32))

    def _refuse(self, *hooked: Any) -> None:
        if self._inside:
            raise RuntimeError("EMA: the optimizer cannot step inside `with ema.applied()`, the parameters hold their "
                               "averages there; leave the block first")

    def _update(self, *hooked: Any) -> None:
        self._include()
        self.step_count = t = self.step_count + 1
        decay = min(self.decay, (1 + t) / (10 + t)) if self.warmup else self.decay
        for p, average in self.averages.items():
            average += (1 - decay) * (p._data - average)         # a float16 parameter meets float32 first

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the parameters for the time of a `with` block.

        Afterwards the parameters are what they were, bit for bit, also when the block raises.

        Raises
        ------
        RuntimeError
            When they are in there already; and from the optimizer's `step` inside.
        """
        if self._inside:
            raise RuntimeError("EMA: the averages are applied already; applied() cannot be nested")
        self._include()
        before = [(p, p._data.copy()) for p in self.averages]
        self._inside = True
        try:
            for p, average in self.averages.items():
                p.data = average.astype(p.dtype)
            yield
        finally:
            for p, array in before:
                p.data = array
            self._inside = False

    def _names(self) -> dict[str | int, Tensor]:
        """Return the optimizer's parameters by name, or by number where they have none."""
        groups = self.optimizer.param_groups
        params = [p for group in groups for p in group["params"]]
        names = [name for group in groups for name in group.get("param_names", ())]
        return dict(zip(names or range(len(params)), params))

    def state_dict(self) -> dict[str, Any]:
        """Return the averages by name (by number where the optimizer has no names), decay, warmup and step_count."""
        self._include()
        return {"averages": {name: Tensor._wrap(self.averages[p]) for name, p in self._names().items()},
                "decay": self.decay, "warmup": self.warmup, "step_count": self.step_count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned; everything is checked first and copied.

        Raises
        ------
        ValueError
            One message with everything that does not fit. Nothing is changed then.
        """
        keys = {"averages", "decay", "warmup", "step_count"}
        if not isinstance(state_dict, Mapping) or set(state_dict) != keys:
            raise ValueError(f"EMA: a saved state is a dict with {', '.join(sorted(keys))}")
        names = self._names()
        given = {str(name): value.numpy() if isinstance(value, Tensor) else value
                 for name, value in state_dict["averages"].items()}
        problems = [f"unexpected: {name}" for name in given.keys() - {str(name) for name in names}]
        for name, p in names.items():
            shape = getattr(given.get(str(name)), "shape", None)
            if shape != p.shape:
                problems.append(f"missing: {name}" if str(name) not in given else
                                f"{name}: expected the shape {p.shape}, got {shape}")
        if problems:
            raise ValueError("\n    ".join(["EMA was left as it is; the state does not fit:", *sorted(problems)]))
        check("EMA", "decay", state_dict["decay"], DECAY)
        self._include()
        for name, p in names.items():
            self.averages[p][...] = asarray(given[str(name)])
        self.decay, self.warmup = state_dict["decay"], bool(state_dict["warmup"])
        self.step_count = int(state_dict["step_count"])

    def remove(self) -> None:
        """Stop averaging: take the hooks off the optimizer. The averages stay."""
        for handle in self._handles:
            handle.remove()
