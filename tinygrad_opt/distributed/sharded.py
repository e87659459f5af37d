"""ShardedOptimizer: every rank keeps the state of a part of the numbers, and steps that part."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..backend import xp
from ..gradients import clip_grad_norm_, clip_grads_with_norm_
from ..optim import Optimizer
from ..optim.wrapper import Wrapper
from ..tensor import Tensor
from . import world as current_world
from .buckets import Bucket, Reducer, fill_buckets, reducer_of, share_tensors
from .communicator import Communicator
from .data_parallel import Averager


class Scatterer(Reducer):
    """Gives every rank its share of the mean of each bucket, and frees the gradients themselves."""

    def __init__(self, world: Communicator, named: list[tuple[str, Tensor]], bucket_bytes: float) -> None:
        super().__init__(world, named, bucket_bytes, multiple=world.size)
        self.shares = [xp.zeros(bucket.size // world.size, bucket.dtype) for bucket in self.buckets]
        self.forget()

    def forget(self, keep_zeros: bool = False) -> None:
        """Forget all shares; they count as no gradients then, or as zeros where there were some."""
        for share in self.shares:
            share[...] = 0
        if not keep_zeros:
            self.present: set[Tensor] = set()

    def begin(self, n: int) -> Callable[[], Any]:
        """Send a bucket and free it; the ranks that own the other shares have what they need."""
        bucket = self.buckets[n]
        share = self.world.reduce_scatter(bucket.flat, "mean")
        bucket.free()
        for p in bucket.tensors:
            p._grad = p._buffer = None
        return lambda: share

    def deliver(self, n: int, answer: Any, used: list[bool]) -> None:
        """Add to the own share."""
        self.shares[n] += answer
        self.present.update(p for p, anywhere in zip(self.buckets[n].tensors, used) if anywhere)


class _Piece:
    """What a rank owns of a parameter, often nothing: a Tensor in the parameter's memory, for the inner optimizer.

    Of a bucket with N numbers, rank r owns those from r N / size to (r + 1) N / size.
    """

    def __init__(self, p: Tensor, place: slice, share: int, rank: int, size: int) -> None:
        bounds = [[min(max(end, r * share), (r + 1) * share) for end in (place.start, place.stop)] for r in range(size)]
        self.lengths = [stop - start for start, stop in bounds]                    # on each rank
        self.first = max(bounds[rank][0] - place.start, 0)                         # in the parameter
        self.place = slice(*(end - rank * share for end in bounds[rank]))          # in the share
        self.memory, self.gradient = p._data, None
        self.tensor = Tensor._wrap(self.cut(p._data))
        self.tensor._version = p._version

    def cut(self, array: Any) -> Any:
        """Return what is owned of an array in the shape of the parameter: a view where that lies in one piece."""
        return array.reshape(-1)[self.first:self.first + self.place.stop - self.place.start]

    def follow(self, p: Tensor) -> None:
        """Lie in the memory that the parameter has now."""
        if self.memory is not p._data:
            self.memory, self.tensor._data = p._data, self.cut(p._data)

    def take(self, gradient: Tensor | None) -> None:
        """Take the gradient that the parameter has now."""
        if self.gradient is not gradient:
            self.gradient = gradient
            self.tensor._grad = None if gradient is None else Tensor._wrap(self.cut(gradient._data))


class ShardedOptimizer(Wrapper):
    """An optimizer whose state is divided among the ranks: each keeps and steps one part, then all exchange theirs.

    With n ranks, each keeps 1/n of the state. The numbers of the parameters are dealt out evenly, whatever tensors
    they belong to; so this is for optimizers that look at one element after the other. Those that take norms of
    tensors or of all gradients, or work on matrices, are refused, and so are those that are told more than gradients.

    In stage 1 the gradients are averaged, by DataParallel where the model is in one, otherwise here. In stage 2 each
    rank is sent only its share of the mean, and during `backward()` the gradients themselves are freed, bucket by
    bucket: `.grad` is None afterwards, `step` uses the shares up, and `clip_grad_norm_` of this optimizer clips them.
    Steps are those of the optimizer alone, to the bit where the means are.

    Parameters
    ----------
    optimizer_class : type
        An optimizer of the suite or your own, for example `tg.optim.AdamW`.
    params : iterable
        As that takes them: Tensors, (name, Tensor) pairs, groups, or a mapping of names to Tensors. Those of rank 0
        are given to all.
    world : Communicator, optional
        By default `tg.distributed.world()`.
    stage : {1, 2}, default 1
        Whether the state is divided, or the gradients too.
    bucket_bytes : int, default 1 MiB
        What is sent at once, as for DataParallel.
    **options
        Of the optimizer.

    Attributes
    ----------
    local : Optimizer
        The inner optimizer, of the parts that this rank owns.

    Raises
    ------
    ValueError, TypeError
        When the optimizer cannot be divided, with the reason; in stage 2 for a model in DataParallel.

    Notes
    -----
    Rajbhandari, Rasley, Ruwase, He: ZeRO, SC 2020, arXiv 1910.02054.

    `state_dict()` and `load_state_dict()` are called by all ranks together. What is saved is the state of the
    optimizer alone: it continues on any number of ranks, and in `optimizer_class` itself.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     model = tg.nn.Linear(3, 2, bias=False)
    ...     optimizer = tg.distributed.ShardedOptimizer(tg.optim.Adam, model.parameters(), lr=0.1)
    ...     model(tg.ones(4, 3)).sum().backward()
    ...     optimizer.step()
    ...     return [state["exp_avg"].shape for state in optimizer.local.state.values()]
    >>> tg.distributed.simulate(2, rank)                        # of 6 numbers each keeps 3
    [[(3,)], [(3,)]]
    """

    def __init__(self, optimizer_class: type[Optimizer], params: Any, world: Communicator | None = None,
                 stage: int = 1, bucket_bytes: float = 1 << 20, **options: Any) -> None:
        if stage not in (1, 2):
            raise ValueError(f"stage must be 1 or 2, got {stage!r}")
        if not isinstance(optimizer_class, type) or not issubclass(optimizer_class, Optimizer):
            raise TypeError("optimizer_class is a class of optimizers, such as tg.optim.AdamW, got "
                            f"{getattr(optimizer_class, '__name__', type(optimizer_class).__name__)}")
        super().__init__(optimizer_class(params, **options))
        self.world, self.stage = current_world() if world is None else world, stage
        _check(self.optimizer)
        named = self._named()
        share_tensors(self.world, named)
        learned = [(name, p) for name, p in named if p._requires_grad]
        for _, p in learned:
            if not p._data.flags.c_contiguous:
                p._data = xp.ascontiguousarray(p._data)
        self._reducer = self._make_reducer(learned, bucket_bytes)
        self._buckets = fill_buckets([p for _, p in reversed(learned)], bucket_bytes, self.world.size)
        self._pieces = {p: self._piece(p, bucket, place) for bucket in self._buckets
                        for p, place in zip(bucket.tensors, bucket.places)}
        self.local = self._make_local(optimizer_class, options)
        self.optimizer._advance = self._advance     # the outer one has groups, hooks and schedules, and never any state

    # ---- how it is made -----------------------------------------------------------------------------------

    def _make_reducer(self, learned: list[tuple[str, Tensor]], bucket_bytes: float) -> Reducer | None:
        """Return who averages the gradients, None where DataParallel does."""
        if self.stage == 2:
            return Scatterer(self.world, learned, bucket_bytes)
        if any(reducer_of(p) is not None for _, p in learned):
            return None
        return Averager(self.world, learned if self.world.size > 1 else [], bucket_bytes)

    def _piece(self, p: Tensor, bucket: Bucket, place: slice) -> _Piece:
        return _Piece(p, place, bucket.size // self.world.size, self.world.rank, self.world.size)

    def _make_local(self, optimizer_class: type[Optimizer], options: dict[str, Any]) -> Optimizer:
        """Return an optimizer of the pieces, in groups like those of the parameters."""
        nothing = slice(0, 0)                       # is owned of what is not learned
        first, groups = self.param_groups[0], []
        for group in self.param_groups:
            pieces = [self._pieces.get(p) or self._piece(p, Bucket([p], self.world.size), nothing)
                      for p in group["params"]]
            groups.append({**group, "params": [piece.tensor for piece in pieces]})
        return optimizer_class(groups, **{key: first.get(key, value) for key, value in options.items()
                                          if key != "grad_transforms"})

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Refuse: the parts are dealt out once."""
        raise RuntimeError("ShardedOptimizer: the parameters were dealt out when it was made; make another with all "
                           "groups, and load this one's state_dict() with strict=False")

    # ---- gradients ----------------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, in stage 2 the shares of them; see `Optimizer.zero_grad`."""
        super().zero_grad(set_to_none)
        if isinstance(self._reducer, Scatterer):
            self._reducer.forget(keep_zeros=not set_to_none)

    def no_sync(self) -> AbstractContextManager[None]:
        """Leave the gradients of each backward inside on their ranks, where they add up until one that sends them."""
        return self._sender().paused()

    def weighted(self, samples: float) -> AbstractContextManager[None]:
        """Weigh each rank by its number of samples in the backward inside; see `DataParallel.weighted`."""
        return self._sender().weighted(samples)

    def _sender(self) -> Reducer:
        return self._reducer or next(filter(None, map(reducer_of, self._pieces)))

    def clip_grad_norm_(self, max_norm: float) -> float:
        """Scale all gradients by one factor so that their common norm, over all ranks, is at most max_norm.

        All ranks call it together. In stage 2 it does what `tg.nn.utils.clip_grad_norm_` cannot, which finds no
        gradients then.

        Parameters
        ----------
        max_norm : float
            Above 0; inf only measures.

        Returns
        -------
        float
            The norm before. Where that is not finite nothing is clipped, with a warning.
        """
        if self.stage == 1:
            return clip_grad_norm_(dict(self._named()), max_norm)
        self._take_gradients()
        pieces = [piece.tensor for piece in self._pieces.values() if piece.tensor._grad is not None]
        own = sum(float(xp.square(t._grad._data, dtype="float64").sum()) for t in pieces)
        norm = math.sqrt(float(self.world.all_reduce(xp.asarray([own], dtype="float64"))[0]))
        if math.isfinite(norm):
            clip_grads_with_norm_(pieces, max_norm, norm)
        else:
            warnings.warn("the gradients have NaN or infinite entries: nothing was clipped", RuntimeWarning,
                          stacklevel=2)
        return norm

    def _take_gradients(self) -> None:
        for n, bucket in enumerate(self._buckets):
            for p in bucket.tensors:
                piece = self._pieces[p]
                if not isinstance(self._reducer, Scatterer):
                    piece.take(p._grad)
                elif p not in self._reducer.present:
                    piece.tensor._grad = None
                elif piece.tensor._grad is None:    # `_buffer`: clipping may write there
                    if piece.tensor._buffer is None:
                        piece.tensor._buffer = Tensor._wrap(self._reducer.shares[n][piece.place])
                    piece.tensor._grad = piece.tensor._buffer

    # ---- the step -----------------------------------------------------------------------------------------

    def _advance(self, loss: Any) -> None:
        """Step the own pieces, and exchange them."""
        if self.stage == 2 and self.grad_transforms:
            raise ValueError("ShardedOptimizer: in stage 2 no rank has whole gradients for grad_transforms; take "
                             "stage=1, or optimizer.clip_grad_norm_ before the step")
        for name, p in self._named():
            if p in self._pieces:
                self._pieces[p].follow(p)
            elif p._grad is not None:
                raise RuntimeError(f"ShardedOptimizer: parameter {name} did not require a gradient when the parameters "
                                   "were dealt out, and has one now; make another")
        self._take_gradients()
        for group, own in zip(self.param_groups, self.local.param_groups):
            own.update((key, group[key]) for key in self.defaults)
        self.local._advance(loss)
        for group, own in zip(self.param_groups, self.local.param_groups):
            group.update((key, own[key]) for key in self.defaults)              # where a rule keeps a number
        self._spread([bucket for bucket in self._buckets
                      if any(self._pieces[p].tensor._grad is not None for p in bucket.tensors)])
        if isinstance(self._reducer, Scatterer):
            self._reducer.forget()

    def _spread(self, buckets: list[Bucket]) -> None:
        """Give all ranks the pieces of each."""
        for bucket in buckets if self.world.size > 1 else ():
            share = xp.zeros(bucket.size // self.world.size, bucket.dtype)
            for p in bucket.tensors:
                share[self._pieces[p].place] = self._pieces[p].tensor._data
            for p, part in zip(bucket.tensors, bucket.parts(self.world.all_gather(share))):
                p._data[...] = part
                p._version[0] += 1

    def train(self) -> None:
        """Put the point to train at into the parameters, of a schedule-free optimizer."""
        self._switch("train")

    def eval(self) -> None:
        """Put the average to evaluate into the parameters, of a schedule-free optimizer."""
        self._switch("eval")

    def _switch(self, mode: str) -> None:
        if hasattr(self.local, mode):
            for p, piece in self._pieces.items():
                piece.follow(p)
            getattr(self.optimizer, mode)()
            getattr(self.local, mode)()
            self._spread(self._buckets)

    # ---- saving -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer as if it were not divided, on all ranks; all call it together."""
        for p, piece in self._pieces.items():
            if piece.tensor in self.local.state:
                self.optimizer.state[p] = {name: self._whole(piece, p, value)
                                           for name, value in self.local.state[piece.tensor].items()}
        saved = self.optimizer.state_dict()
        self.optimizer.state.clear()
        return saved

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None:
        """Continue from what `state_dict` of this, on any number of ranks, or of the optimizer alone returned.

        Raises
        ------
        ValueError
            As `Optimizer.load_state_dict`. Nothing is changed then.
        """
        self.optimizer.load_state_dict(state_dict, strict)
        self.local.state.clear()
        for p, piece in self._pieces.items():
            if p in self.optimizer.state:
                self.local.state[piece.tensor] = {name: _part(piece, p, value)
                                                  for name, value in self.optimizer.state[p].items()}
        self.optimizer.state.clear()
        if hasattr(self.optimizer, "training"):
            self.local.training = self.optimizer.training

    def _whole(self, piece: _Piece, p: Tensor, value: Any) -> Any:
        """Return an entry of the state of a whole parameter, of which every rank has a part."""
        if not isinstance(value, Tensor):
            return value
        part = xp.zeros(max(piece.lengths), value.dtype)
        part[:value._data.size] = value._data
        parts = self.world.all_gather(part)
        return Tensor._wrap(xp.concatenate([part[:n] for part, n in zip(parts, piece.lengths)]).reshape(p.shape))


def _part(piece: _Piece, p: Tensor, value: Any) -> Any:
    """Return what is owned of an entry of the state of a whole parameter."""
    return Tensor._wrap(piece.cut(value._data).copy()) if isinstance(value, Tensor) else value


def _check(optimizer: Optimizer) -> None:
    """Raise unless an optimizer looks at one element after the other, and at gradients alone."""
    cls = type(optimizer)
    if isinstance(optimizer, Wrapper):
        reason = "it wraps another, whose class is wanted here"
    elif cls._step is not Optimizer._step:
        reason = "it evaluates the loss itself"
    else:
        rules = {optimizer._rule(k, p) for k, group in enumerate(optimizer.param_groups) for p in group["params"]}
        sums = sorted({name for rule in rules for name in rule.reductions.values()})
        told = cls._advance is not Optimizer._advance or hasattr(cls, "update_hessian")
        reason = ("its rule works on whole matrices" if any(rule.matrix for rule in rules) else
                  f"its rule takes {', '.join(sums)} of whole tensors" if sums else
                  "it is told more than gradients" if told else "")
    if reason:
        raise ValueError(f"ShardedOptimizer cannot divide {cls.__name__}: {reason}; take an optimizer that looks at "
                         "one element after the other, such as AdamW, or DataParallel without it")
