"""Module: a function with parameters, and with modules inside.

A module keeps no registers beside its attributes: its parameters are the attributes that are Parameters,
its children the attributes that are Modules. Only buffers, which are plain Tensors, are known by name.
So an attribute is found by Python itself, at Python's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy

from ..backend import asarray, xp
from ..tensor import Handle, Tensor
from .parameter import Parameter

T = TypeVar("T")


class Keys(NamedTuple):
    """The names in which a loaded state and a module differ."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base of all layers, models and losses.

    A subclass calls `super().__init__()`, then assigns Parameters and Modules as attributes, and defines
    `forward`. Calling the module calls `forward`.

    Attributes
    ----------
    training : bool
        Whether Dropout, BatchNorm1d and the like behave as in training; set by `train` and `eval`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> class Scale(tg.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = tg.nn.Parameter([2.0])
    ...     def forward(self, x):
    ...         return self.factor * x
    >>> scale = Scale()
    >>> [name for name, _ in scale.named_parameters()]
    ['factor']
    >>> scale(tg.tensor([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """

    training: bool = True
    _buffers: dict[str, bool]                       # name of a buffer: whether it belongs to the state
    _forward_pre_hooks: list[Callable] | tuple = ()
    _forward_hooks: list[Callable] | tuple = ()

    def __init__(self) -> None:
        self.__dict__["_buffers"] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's result; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(); define one")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._forward_pre_hooks or self._forward_hooks:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    def _call_with_hooks(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        for hook in list(self._forward_pre_hooks):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook in list(self._forward_hooks):
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(self, hook: Callable) -> Handle:
        """Call `hook(module, args)` before each forward; a result replaces the arguments.

        Returns
        -------
        Handle
            Its `remove()` takes the hook away again.
        """
        return self._add_hook("_forward_pre_hooks", hook)

    def register_forward_hook(self, hook: Callable) -> Handle:
        """Call `hook(module, args, result)` after each forward; what it returns replaces the result.

        Returns
        -------
        Handle
            Its `remove()` takes the hook away again.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> layer = tg.nn.Identity()
        >>> handle = layer.register_forward_hook(lambda module, args, result: result + 1)
        >>> layer(tg.tensor(1.0)).item()
        2.0
        >>> handle.remove()
        >>> layer(tg.tensor(1.0)).item()
        1.0
        """
        return self._add_hook("_forward_hooks", hook)

    def _add_hook(self, when: str, hook: Callable) -> Handle:
        hooks = self.__dict__.setdefault(when, [])
        hooks.append(hook)
        return Handle(hooks, hook)

    # ---- attributes ---------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = self.__dict__
        if "_buffers" not in attributes:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning {name!r}")
        if isinstance(value, (Parameter, Module)):
            _check_name(name)
            self._buffers.pop(name, None)
        elif value is not None:
            before = attributes.get(name)
            kind = (Parameter if isinstance(before, Parameter) else Module if isinstance(before, Module) else
                    Tensor if name in self._buffers else object)
            if not isinstance(value, kind):
                raise TypeError(f"{type(self).__name__}.{name} is a {kind.__name__} and stays one or becomes "
                                f"None, got {type(value).__name__}; to change its values, assign to .data")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._buffers.pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under a name: like assigning an attribute, but the name must be new."""
        self._register(name, param, Parameter)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a child under a name: like assigning an attribute, but the name must be new."""
        self._register(name, module, Module)

    add_module = register_module

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a Tensor that is not learned but belongs to the module, such as a running mean.

        Parameters
        ----------
        name : str
            The attribute's name.
        tensor : Tensor or None
        persistent : bool, default True
            Whether it is part of `state_dict()`.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> counter = tg.nn.Module()
        >>> counter.register_buffer("count", tg.tensor(0))
        >>> counter.state_dict()
        {'count': tensor(0)}
        """
        if isinstance(tensor, Parameter):
            raise TypeError(f"buffer {name!r} cannot be a Parameter; use register_parameter() or .detach()")
        self._register(name, tensor, Tensor)
        self._buffers[name] = persistent

    def _register(self, name: str, value: Any, kind: type) -> None:
        _check_name(name)
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name!r} needs a {kind.__name__} or None, got {type(value).__name__}")
        known = name in self._buffers if kind is Tensor else isinstance(self.__dict__.get(name), kind)
        if not known and getattr(self, name, None) is not None:
            raise KeyError(f"{type(self).__name__} has an attribute {name!r} already; choose another name")
        setattr(self, name, value)

    # ---- what is inside -----------------------------------------------------------------------------------

    def _items(self, kind: type[T]) -> list[tuple[str, T]]:
        return [(name, value) for name, value in self.__dict__.items() if isinstance(value, kind)]

    def _own_buffers(self, transient: bool = True) -> list[tuple[str, Tensor]]:
        return [(name, self.__dict__[name]) for name, persistent in self._buffers.items()
                if (persistent or transient) and self.__dict__[name] is not None]

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """Yield this module and all inside, each with its dotted name, parents first; shared ones once.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> model = tg.nn.Sequential(tg.nn.Sequential(tg.nn.ReLU()), tg.nn.Tanh())
        >>> [name for name, _ in model.named_modules()]
        ['', '0', '0.0', '1']
        """
        return self._walk(prefix, set() if remove_duplicate else None)

    def _walk(self, prefix: str, seen: set[Module] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if self in seen:
                return
            seen.add(self)
        yield prefix, self
        for name, child in self._items(Module):
            yield from child._walk(_join(prefix, name), seen)

    def _named(self, own: Callable[[Module], list[tuple[str, T]]], prefix: str, recurse: bool,
               remove_duplicate: bool) -> Iterator[tuple[str, T]]:
        seen: set[T] = set()
        modules = self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in own(module):
                if not (remove_duplicate and value in seen):
                    seen.add(value)
                    yield _join(path, name), value

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Yield every parameter with its dotted name; shared ones once.

        Parameters
        ----------
        prefix : str, default ""
            Put before every name, with a dot.
        recurse : bool, default True
            Whether those of the modules inside follow.
        remove_duplicate : bool, default True
            Whether a parameter that has several names appears under the first alone.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> model = tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.ReLU())
        >>> {name: p.shape for name, p in model.named_parameters()}
        {'0.weight': (3, 4), '0.bias': (3,)}
        """
        return self._named(lambda module: module._items(Parameter), prefix, recurse, remove_duplicate)

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Yield every buffer with its dotted name; the arguments are those of `named_parameters`."""
        return self._named(lambda module: module._own_buffers(), prefix, recurse, remove_duplicate)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules directly inside with their names; shared ones once."""
        return self._named(lambda module: module._items(Module), "", False, True)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield every parameter, shared ones once: what an optimizer is given."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield every buffer, shared ones once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all inside, parents first, shared ones once."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """Yield the modules directly inside, shared ones once."""
        return (child for _, child in self.named_children())

    def get_submodule(self, target: str) -> Module:
        """Return the module of a dotted name; "" is this one."""
        module = self
        for name in target.split(".") if target else ():
            module = module._get(name, Module, target)
        return module

    def get_parameter(self, target: str) -> Parameter:
        """Return the parameter of a dotted name.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> model = tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.ReLU())
        >>> model.get_parameter("0.weight") is model[0].weight
        True
        """
        path, _, name = target.rpartition(".")
        return self.get_submodule(path)._get(name, Parameter, target)

    def get_buffer(self, target: str) -> Tensor:
        """Return the buffer of a dotted name."""
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if name not in module._buffers:
            raise AttributeError(f"{type(module).__name__} has no buffer {name!r} (looking for {target!r})")
        return module.__dict__[name]

    def _get(self, name: str, kind: type[T], target: str) -> T:
        value = self.__dict__.get(name)
        if not isinstance(value, kind):
            raise AttributeError(f"{type(self).__name__} has no {kind.__name__.lower()} {name!r} "
                                 f"(looking for {target!r})")
        return value

    # ---- the state ----------------------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and persistent buffers under all of their names."""
        return self._named(lambda module: module._items(Parameter) + module._own_buffers(transient=False),
                           "", recurse=True, remove_duplicate=False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every parameter and persistent buffer by name, in memory shared with the module.

        `tg.save` writes it to a file; `copy.deepcopy` keeps it as it is now.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> list(tg.nn.Sequential(tg.nn.Linear(4, 3), tg.nn.BatchNorm1d(3)).state_dict())[2:5]
        ['1.weight', '1.bias', '1.running_mean']
        """
        return {name: tensor.detach() for name, tensor in self._state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Keys:
        """Copy values by name into the parameters and buffers, or change nothing at all.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or array
            What `state_dict()` returned; arrays of NumPy, or anything that turns into one, serve as well.
        strict : bool, default True
            Whether the names must be exactly those of this module.

        Returns
        -------
        named tuple
            `missing_keys` and `unexpected_keys`, both empty when strict.

        Raises
        ------
        RuntimeError
            One message with all names that are missing or unexpected (if strict), and all values that do not
            fit, with the shape or dtype that was expected and the one that came.

        Examples
        --------
        >>> import numpy as np, tinygrad_opt as tg
        >>> layer = tg.nn.Linear(2, 1)
        >>> layer.load_state_dict({"weight": np.ones((1, 2)), "bias": np.zeros(1)})
        Keys(missing_keys=[], unexpected_keys=[])
        >>> layer.weight.tolist()
        [[1.0, 1.0]]
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict must map names to arrays, got {type(state_dict).__name__}")
        own = dict(self._state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        values = {name: _fitting(own[name], state_dict[name]) for name in own if name in state_dict}
        problems = [f"missing: {name}" for name in missing if strict]
        problems += [f"unexpected: {name}" for name in unexpected if strict]
        problems += [f"{name}: {value}" for name, value in values.items() if isinstance(value, str)]
        if problems:
            hint = " (strict=False passes over missing and unexpected names)" if strict else ""
            raise RuntimeError("\n    ".join(
                [f"{type(self).__name__} was left as it is; the state does not fit{hint}:", *problems]))
        for name, value in values.items():
            own[name].data = value
        return Keys(missing, unexpected)

    # ---- all at once --------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set `training` here and in all modules inside, and return this module."""
        if not isinstance(mode, bool):
            raise ValueError(f"train() takes True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Do the same as `train(False)`: behave as in use, not as in training."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set whether the parameters are learned, and return this module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters: None in their place, or zeros."""
        for parameter in self.parameters():
            zeros = not set_to_none and parameter._grad is not None
            parameter.grad = xp.zeros_like(parameter._data) if zeros else None

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn(module)` for all modules inside, children first, then for this one, and return it.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> def start(module):
        ...     if isinstance(module, tg.nn.Linear):
        ...         tg.nn.init.zeros_(module.bias)
        >>> model = tg.nn.Sequential(tg.nn.Linear(4, 2)).apply(start)
        >>> model[0].bias.tolist()
        [0.0, 0.0]
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self, dtype: Any) -> Self:
        """Convert all floating-point parameters, gradients and buffers to a dtype, and return this module.

        The Parameters stay the same objects with new memory: make optimizers afterwards.

        Examples
        --------
        >>> import tinygrad_opt as tg
        >>> str(tg.nn.Linear(2, 1).to("float64").weight.dtype)
        'float64'
        """
        dtype = xp.dtype(dtype)
        if dtype.kind != "f":
            raise TypeError(f"a module's parameters are floating-point numbers, they cannot become {dtype}")
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.dtype.kind == "f" and tensor.dtype != dtype:
                tensor._data = tensor._data.astype(dtype)
                tensor._version[0] += 1             # a backward that needs the old numbers must refuse
                if tensor._grad is not None:
                    tensor._grad = Tensor._wrap(tensor._grad._data.astype(dtype))
                tensor._buffer = None
        return self

    def float(self) -> Self:
        """Convert to float32, as `to` does."""
        return self.to("float32")

    def double(self) -> Self:
        """Convert to float64, as `to` does."""
        return self.to("float64")

    # ---- for readers --------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what stands in the parentheses of the `repr`; for subclasses."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {_indent(repr(child))}" for name, child in self._items(Module)]
        return _layout(type(self).__name__, extra, children)


def _layout(name: str, extra: str, children: list[str]) -> str:
    if not children and "\n" not in extra:
        return f"{name}({extra})"
    return "\n  ".join([f"{name}(", *extra.splitlines(), *children]) + "\n)"


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a parameter, buffer or module is a string, got {type(name).__name__}")
    if not name or "." in name:
        raise KeyError(f"the name of a parameter, buffer or module is neither empty nor dotted, got {name!r}")


def _fitting(tensor: Tensor, value: Any) -> Any:
    """Return a copy of the value as an array like that of the tensor, or what is wrong with it."""
    if not isinstance(value, Tensor) and not hasattr(value, "__array__"):
        return f"expected an array, got {type(value).__name__}"
    array = value._data if isinstance(value, Tensor) else value
    array = array if isinstance(array, xp.ndarray) else numpy.asarray(array)
    if tuple(array.shape) != tensor.shape:
        return f"expected the shape {tensor.shape}, got {tuple(array.shape)}"
    if not numpy.can_cast(array.dtype, tensor.dtype, "same_kind"):
        return f"expected the dtype {tensor.dtype}, got {array.dtype}"
    return xp.array(asarray(array), dtype=tensor.dtype)
