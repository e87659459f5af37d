"""Tensor parallelism: a Linear whose weight is cut over the ranks, by rows or by columns.

What ranks exchange are four functions of the tape, in two pairs, of which each is the gradient of the other:

    copy_to_ranks    x                    <->  sum_over_ranks   the sum of all x
    take_columns     this rank's share    <->  gather_columns   the shares of all, side by side

Activations that are not cut are the same on all ranks, and so are their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ..backend import xp
from ..nn import Linear, Module, Parameter
from ..nn.module import Keys
from ..ops import linear
from ..random import Generator
from ..tensor import Tensor, float32, primitive
from . import world as this_world
from .communicator import Communicator


@primitive(lambda g, y, x, world: sum_over_ranks(g, world), view=True)
def copy_to_ranks(x: Any, world: Communicator) -> Any:
    """Return x, which each rank goes on with in its own way: their gradients are summed. Megatron calls it f.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.distributed.tensor_parallel import copy_to_ranks
    >>> def rank(world):
    ...     x = tg.tensor([1.0], requires_grad=True)
    ...     (copy_to_ranks(x, world) * (world.rank + 1)).sum().backward()
    ...     return x.grad.item()
    >>> tg.distributed.simulate(3, rank)
    [6.0, 6.0, 6.0]
    """
    return x


@primitive(lambda g, y, x, world: copy_to_ranks(g, world))
def sum_over_ranks(x: Any, world: Communicator) -> Any:
    """Return the sum of the x of all ranks; the gradient of the sum is that of each. Megatron calls it g."""
    return world.all_reduce(x)


@primitive(lambda g, y, x, world: gather_columns(g, world))
def take_columns(x: Any, world: Communicator) -> Any:
    """Return this rank's share of the last axis, in order of the ranks."""
    count = x.shape[-1] // world.size
    return x[..., world.rank * count:(world.rank + 1) * count].copy()


@primitive(lambda g, y, x, world: take_columns(g, world))
def gather_columns(x: Any, world: Communicator) -> Any:
    """Return the x of all ranks side by side along the last axis."""
    return xp.concatenate(list(world.all_gather(x)), axis=-1)


class _CutLinear(Module):
    """A Linear of which each rank of a world holds a part."""

    axes: ClassVar[dict[str, int]]                  # of a parameter that is cut, the axis along which it is

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, world: Communicator | None = None,
                 dtype: Any = float32, generator: Generator | None = None) -> None:
        super().__init__()
        self._take(Linear(in_features, out_features, bias, dtype=dtype, generator=generator), world)

    @classmethod
    def from_linear(cls, whole: Linear, world: Communicator | None = None, **options: bool) -> Self:
        """Return the part of a Linear that belongs to this rank.

        Parameters
        ----------
        whole : Linear
            Of the same shape on all ranks; the values of rank 0 count.
        world : Communicator, optional
            Among which it is cut; by default that of this rank.
        **options
            `gather_output` or `input_is_parallel`, as for the class.

        Raises
        ------
        TypeError, ValueError
            When it is no Linear, or its features cannot be shared evenly.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> whole = tg.nn.Linear(4, 6)
        >>> def rank(world):
        ...     part = tg.distributed.ColumnParallelLinear.from_linear(whole, world)
        ...     x = tg.ones(1, 4)
        ...     return part.weight.shape, bool(abs(part(x) - whole(x)).max() < 1e-6)
        >>> tg.distributed.simulate(2, rank)
        [((3, 4), True), ((3, 4), True)]
        """
        if not isinstance(whole, Linear):
            raise TypeError(f"{cls.__name__}.from_linear takes a Linear, got {type(whole).__name__}")
        part = cls.__new__(cls)
        Module.__init__(part)
        part._take(whole, world)
        part._choose(**options)
        return part

    def _take(self, whole: Linear, world: Communicator | None) -> None:
        self.world = this_world() if world is None else world
        self.in_features, self.out_features = whole.in_features, whole.out_features
        name = "out_features" if self.axes["weight"] == 0 else "in_features"
        if getattr(whole, name) % self.world.size:
            raise ValueError(f"{type(self).__name__}: {name} must be a multiple of the {self.world.size} ranks, "
                             f"got {getattr(whole, name)}")
        for key in ("weight", "bias"):
            value = getattr(whole, key)
            if value is not None:
                value = Parameter(self._part(key, self.world.broadcast(value)), value.requires_grad)
            setattr(self, key, value)

    def _part(self, name: str, array: Any) -> Any:
        """Return what this rank holds of a parameter."""
        if name not in self.axes:
            return array
        count = array.shape[self.axes[name]] // self.world.size
        here = slice(self.world.rank * count, (self.world.rank + 1) * count)
        return array[here] if self.axes[name] == 0 else array[:, here]

    def _whole(self, name: str, part: Tensor) -> Tensor:
        """Return a parameter put together again; all ranks call it."""
        if name not in self.axes:
            return part.detach()
        return Tensor._wrap(xp.concatenate(list(self.world.all_gather(part)), axis=self.axes[name]))

    def to_linear(self) -> Linear:
        """Return the whole Linear, in memory of its own; all ranks call it."""
        weight = self._whole("weight", self.weight)
        whole = Linear(self.in_features, self.out_features, self.bias is not None, dtype=weight.dtype,
                       generator=Generator(0))      # which draws nothing from the default one
        whole.load_state_dict(full_state_dict(self))
        return whole

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
                f"rank {self.world.rank} of {self.world.size}")


class ColumnParallelLinear(_CutLinear):
    """A Linear of whose output features each rank computes a part (Shoeybi et al., 2019, arXiv 1909.08053).

    Before a RowParallelLinear with `input_is_parallel=True`, and an activation between them, it needs no
    exchange: the two, with one sum behind them and one on the way back, are the block that Megatron is made of.

    Parameters
    ----------
    in_features, out_features : int
        Of the whole; out_features a multiple of the ranks.
    bias : bool, default True
    gather_output : bool, default True
        Whether all ranks get the whole output, or each its own features alone.
    world : Communicator, optional
        Among which it is cut; by default that of this rank.
    dtype : dtype, default float32
    generator : Generator, optional
        Where the whole initial values are drawn from, as for Linear; those of rank 0 are shared out.

    Attributes
    ----------
    weight : Parameter, shape (out_features / size, in_features)
    bias : Parameter, shape (out_features / size,), or None

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     block = tg.nn.Sequential(
    ...         tg.distributed.ColumnParallelLinear(4, 8, gather_output=False, world=world), tg.nn.GELU(),
    ...         tg.distributed.RowParallelLinear(8, 4, input_is_parallel=True, world=world))
    ...     return block(tg.ones(5, 4)).shape, world.accounts["all_reduce"].calls
    >>> tg.distributed.simulate(2, rank)
    [((5, 4), 1), ((5, 4), 1)]
    """

    axes = {"weight": 0, "bias": 0}

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, gather_output: bool = True,
                 world: Communicator | None = None, dtype: Any = float32, generator: Generator | None = None) -> None:
        super().__init__(in_features, out_features, bias, world=world, dtype=dtype, generator=generator)
        self._choose(gather_output)

    def _choose(self, gather_output: bool = True) -> None:
        self.gather_output = gather_output

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., in_features), the same on all ranks, to (..., out_features) or this rank's part."""
        y = linear(copy_to_ranks(x, self.world), self.weight, self.bias)
        return gather_columns(y, self.world) if self.gather_output else y


class RowParallelLinear(_CutLinear):
    """A Linear of whose input features each rank takes a part; the ranks sum what they get (see ColumnParallelLinear).

    Parameters
    ----------
    in_features, out_features : int
        Of the whole; in_features a multiple of the ranks.
    bias : bool, default True
        Not cut: all ranks hold it and add it to the sum.
    input_is_parallel : bool, default False
        Whether the input is this rank's features alone, or the whole, of which it takes its own.
    world, dtype, generator
        As for ColumnParallelLinear.

    Attributes
    ----------
    weight : Parameter, shape (out_features, in_features / size)
    bias : Parameter, shape (out_features,), or None
    """

    axes = {"weight": 1}

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, input_is_parallel: bool = False,
                 world: Communicator | None = None, dtype: Any = float32, generator: Generator | None = None) -> None:
        super().__init__(in_features, out_features, bias, world=world, dtype=dtype, generator=generator)
        self._choose(input_is_parallel)

    def _choose(self, input_is_parallel: bool = False) -> None:
        self.input_is_parallel = input_is_parallel

    def forward(self, x: Tensor) -> Tensor:
        """Map x to shape (..., out_features), the same on all ranks."""
        part = x if self.input_is_parallel else take_columns(x, self.world)
        y = sum_over_ranks(linear(part, self.weight), self.world)
        return y if self.bias is None else y + self.bias


def full_state_dict(model: Module) -> dict[str, Tensor]:
    """Return the state of a model in which cut layers are whole again, as the model without cuts takes it.

    All ranks call it, and all get it. `model.state_dict()` is this rank's part.

    Parameters
    ----------
    model : Module
        With cut layers at any depth, or a Pipeline of such.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> def rank(world):
    ...     model = tg.nn.Sequential(tg.distributed.ColumnParallelLinear(4, 6, world=world), tg.nn.ReLU())
    ...     return model.state_dict()["0.weight"].shape, tg.distributed.full_state_dict(model)["0.weight"].shape
    >>> tg.distributed.simulate(2, rank)
    [((3, 4), (6, 4)), ((3, 4), (6, 4))]
    """
    state = model.state_dict()
    return state | {name: layer._whole(key, state[name]) for name, layer, key in _cut_entries(model, state)}


def load_full_state_dict(model: Module, state_dict: Mapping[str, Any], strict: bool = True) -> Keys:
    """Copy the state of a whole model into one with cut layers, each rank its part; see `Module.load_state_dict`."""
    parts = dict(state_dict)
    for name, layer, key in _cut_entries(model, model.state_dict()):
        if name in parts:
            whole, shape = np.asarray(parts[name]), list(getattr(layer, key).shape)
            shape[layer.axes[key]] *= layer.world.size
            if whole.shape != tuple(shape):
                raise RuntimeError(f"{type(model).__name__} was left as it is; the state does not fit: {name}: "
                                   f"expected the whole shape {tuple(shape)}, got {whole.shape}")
            parts[name] = layer._part(key, whole)
    return model.load_state_dict(parts, strict)


def _cut_entries(model: Module, state: Mapping[str, Tensor]) -> Iterator[tuple[str, _CutLinear, str]]:
    """Yield what is cut in a state of a model: its name there, its layer, and its name in that.

    It is told by the memory that it shares with the layer, since models that hold models, such as DataParallel, name
    as they like. The state of a Pipeline is whole, and a copy.
    """
    cut = {id(getattr(layer, key)._data): (layer, key) for layer in model.modules() if isinstance(layer, _CutLinear)
           for key in layer.axes if getattr(layer, key) is not None}
    return ((name, *cut[id(value._data)]) for name, value in state.items() if id(value._data) in cut)
