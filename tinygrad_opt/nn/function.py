"""A function as a module: its optional arguments become attributes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter as Argument
from inspect import Signature, signature
from typing import Any

from ..ops.index import SYNONYMS
from ..tensor import Tensor
from .module import Module


class FunctionModule(Module):
    """The base of the modules that `module_of` makes."""

    __signature__: Signature
    shows_defaults: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        kwargs = {SYNONYMS.get(name, name): value for name, value in kwargs.items()}
        try:
            options = self.__signature__.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}{self.__signature__}: {error}") from None
        options.apply_defaults()
        for name, value in options.arguments.items():
            if name.endswith("weight") and value is not None:     # of classes or labels: part of the state
                self.register_buffer(name, value if isinstance(value, Tensor) else Tensor(value))
            else:
                setattr(self, name, value)

    def extra_repr(self) -> str:
        options = [(option, getattr(self, option.name)) for option in self.__signature__.parameters.values()]
        return ", ".join(f"{option.name}={value!r}" for option, value in options
                         if self.shows_defaults or value is not option.default)


def module_of(function: Callable, name: str, inputs: int | None = None,
              shows_defaults: bool = True) -> type[FunctionModule]:
    """Return a class of modules that call a function, with the function's optional arguments for its own.

    Parameters
    ----------
    function : callable
        Its first arguments are what the module is called with, the others what it is made with.
    name : str
        The name of the class.
    inputs : int, optional
        The number of these first arguments; by default, of all without a default value.
    shows_defaults : bool, default True
        Whether the repr shows arguments that have their default value.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.nn.LeakyReLU(0.1)
    LeakyReLU(negative_slope=0.1)
    >>> tg.nn.LeakyReLU(0.1)(tg.tensor([-10.0, 10.0])).tolist()
    [-1.0, 10.0]
    """
    arguments = [argument.replace(annotation=Argument.empty) for argument in signature(function).parameters.values()]
    if inputs is None:
        inputs = sum(argument.default is Argument.empty for argument in arguments)
    options = tuple(argument.name for argument in arguments[inputs:])

    def forward(self, *inputs: Tensor) -> Tensor:
        return function(*inputs, **{option: getattr(self, option) for option in options})

    summary = function.__doc__.partition("\n")[0]
    return type(name, (FunctionModule,), {          # in the package, where all of them are found
        "__doc__": f"{summary}\n\n    The module of `{function.__name__}`, which tells about the arguments.",
        "__module__": __package__, "__signature__": Signature(arguments[inputs:]),
        "shows_defaults": shows_defaults, "forward": forward if options else staticmethod(function)})
