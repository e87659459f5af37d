"""The functional form of an optimizer: its rule runs on Tensors, so that gradients flow through every step.

Nothing is written in place and nothing is kept: `update` takes gradients, state and parameters and returns new ones
that remember how they were made. The rule is the one that the compiled kernels are printed from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy

from ..backend import xp
from ..language import FUNCTIONS, REDUCTIONS
from ..rule import Pass, Rule, RuleError
from ..tensor import Tensor, primitive
from .optimizer import Optimizer
from .plan import Numbers, read_rule
from .wrapper import Wrapper

Named = list | Mapping              # one thing for each parameter


def functional(optimizer: type[Optimizer] | Optimizer, **options: Any) -> Functional:
    """Return an optimizer as a pair of functions on Tensors, `init` and `update`, to differentiate through.

    Parameters
    ----------
    optimizer : subclass of Optimizer, or Optimizer
        A class, or an optimizer whose groups and options are taken; it is left alone.
    **options
        Of the class, as for its constructor. A number may be a Tensor, to which gradients then flow.

    Returns
    -------
    Functional

    Raises
    ------
    TypeError, ValueError
        As the constructor; and for what has no rule to run on Tensors: wrappers, second-order methods and rules of
        whole matrices.

    Notes
    -----
    The gradients of an update must themselves be on the tape: `tg.grad(loss, params, create_graph=True)`. Where a
    root is taken of 0 its slope, which is infinite, counts as 0: a weight that never had a gradient has none here.

    Source: the gradient through unrolled steps is that of Maclaurin, Duvenaud & Adams (ICML 2015, arXiv 1502.03492).

    Examples
    --------
    How does the loss after two steps depend on the learning rate?

    >>> import tinygrad_opt as tg
    >>> from tinygrad_opt.optim.differentiable import functional
    >>> lr = tg.tensor(0.25, requires_grad=True)
    >>> w = [tg.tensor([1.0, -2.0], requires_grad=True)]
    >>> sgd = functional(tg.optim.SGD, lr=lr)
    >>> state = sgd.init(w)
    >>> for _ in range(2):
    ...     grads = tg.grad((w[0] ** 2).sum(), w, create_graph=True)
    ...     w, state = sgd.update(grads, state, w)
    >>> loss = (w[0] ** 2).sum()
    >>> loss, tg.grad(loss, lr)         # 5 (1 - 2 lr)^4, and -40 (1 - 2 lr)^3
    (tensor(0.3125, grad_fn=<sum>), (tensor(-5.),))
    """
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        return Functional(optimizer([Tensor(xp.zeros((1, 1)))], **options), sizes=None)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"functional() takes an optimizer or its class, such as tg.optim.Adam; got {optimizer!r}")
    if options:
        raise TypeError(f"functional() takes the options of a made {type(optimizer).__name__} from its groups; give "
                        f"{', '.join(options)} to update(), or pass the class")
    return Functional(optimizer, [len(group["params"]) for group in optimizer.param_groups])


class Functional:
    """An optimizer as functions on Tensors; `functional` makes it and tells more.

    Parameters are a list, or a mapping of names; gradients and state are then the same. The state of a parameter is a
    dict with the names of `Optimizer.state`. Options given to a call hold for all groups, and for that call alone.

    Parameters
    ----------
    optimizer : Optimizer
        Whose groups, ranges and rules these are.
    sizes : list of int or None
        How many parameters each group has; None: the only group takes any number.
    """

    def __init__(self, optimizer: Optimizer, sizes: list[int] | None) -> None:
        self.name, self._optimizer, self._sizes = type(optimizer).__name__, optimizer, sizes
        if isinstance(optimizer, Wrapper):
            raise TypeError(f"{self.name} has no functional form, it is a wrapper; give the optimizer inside")
        if type(optimizer)._step is not Optimizer._step:
            raise TypeError(f"{self.name} has no functional form, its step needs more than gradients")
        if optimizer._schedules or optimizer.grad_transforms:
            raise TypeError(f"{self.name}: schedules and grad_transforms have no functional form; give update() the "
                            "numbers of its step, and gradients as they shall be")
        self._groups = [{key: value for key, value in group.items() if key not in ("params", "param_names")}
                        for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            self._rule(group, group["params"][0])

    def init(self, params: Named, **options: Any) -> Named:
        """Return the state before the first step.

        Parameters
        ----------
        params : list of Tensor, or mapping of names to Tensors
            Leaves or not; float32 or float64.
        **options
            What a state starts from, such as the lr of Rprop and of ASGD, where it differs.

        Returns
        -------
        list or dict
            A dict for each parameter.
        """
        return _like(params, [self._begun({"step": 0}, *row) for row in self._rows(params, options)])

    def update(self, grads: Named, state: Named, params: Named, **options: Any) -> tuple[Named, Named]:
        """Return parameters and state after a step; what was given stays as it was.

        Parameters
        ----------
        grads : list or mapping
            A Tensor of its shape for each parameter; None leaves the parameter alone.
        state : list or mapping
            From `init`, or from the step before.
        params : list or mapping
        **options
            Numbers or Tensors in the place of the optimizer's own. PolyakSGD is told its `loss` here, SophiaG its `bs`.

        Returns
        -------
        params, state
            Of Tensors on the tape, where anything that they come from is.

        Raises
        ------
        TypeError, ValueError
            When an option is unknown, missing or out of its range, or gradients or state do not fit the parameters.
        """
        early = sorted(options.keys() & self._optimizer.read_once)
        if early:
            raise ValueError(f"{self.name} reads {', '.join(early)} at the first step alone: give it to init()")
        rows = self._rows(params, options)
        grads, states = _fitting("grads", grads, params), _fitting("state", state, params)
        moves = [None if g is None else self._move(g, s, *row) for row, g, s in zip(rows, grads, states)]
        _add_up([move for move in moves if move is not None])
        after = [(p, s) if move is None else move.step() for (p, *_), s, move in zip(rows, states, moves)]
        return _like(params, [p for p, _ in after]), _like(params, [s for _, s in after])

    def _rows(self, params: Named, options: dict[str, Any]) -> list[tuple[Tensor, dict[str, Any], Rule]]:
        """Return each parameter with its options, which have been checked, and its rule."""
        groups = [{**group, **options} for group in self._groups]
        for group in groups:
            self._optimizer._check_options(_plain(group))
        tensors = _values(params)
        sizes = self._sizes or [len(tensors)]
        if len(tensors) != sum(sizes) or not tensors:
            raise ValueError(f"{self.name}: {len(tensors)} parameters, its groups have {sum(sizes)}")
        for k, p in enumerate(tensors):
            if not isinstance(p, Tensor) or p.dtype not in ("float32", "float64"):
                raise TypeError(f"{self.name}: parameter {k} must be a Tensor of float32 or float64, got "
                                f"{getattr(p, 'dtype', type(p).__name__)}")
        belongs = [group for group, size in zip(groups, sizes) for _ in range(size)]
        rows = [(p, group, self._rule(group, p)) for p, group in zip(tensors, belongs)]
        known = {*self._groups[0]}.union(*(rule.options for _, _, rule in rows)) - {"t"}
        unknown = sorted(options.keys() - known)
        if unknown:
            raise TypeError(f"{self.name}: unknown option {', '.join(unknown)}; the options are "
                            f"{', '.join(sorted(known))}")
        return rows

    def _rule(self, group: dict[str, Any], p: Tensor) -> Rule:
        rule = read_rule(self._optimizer.rule_for(_plain(group), p), bool(group["maximize"]))
        if rule.matrix:
            raise TypeError(f"{self.name} works on whole matrices, with functions that have no gradient; there is a "
                            "functional form of rules that are elementwise or have norms")
        return rule

    def _begun(self, state: dict[str, Any], p: Tensor, group: dict[str, Any], rule: Rule) -> dict[str, Any]:
        """Return the state of a parameter with what it does not have yet."""
        state, own = dict(state), self._optimizer
        for letter in (*rule.states, *rule.memory):
            name = own.state_names.get(letter, letter)
            if name not in state:
                first = own.defaults[letter] if letter in group else own.initial(letter, group, p)
                state[name] = (_number(first) if letter in rule.memory else p if first is p
                               else Tensor._wrap(xp.ones(p.shape, p.dtype)) * _cast(_number(first), p.dtype))
        return state

    def _move(self, g: Tensor, state: dict[str, Any], p: Tensor, group: dict[str, Any], rule: Rule) -> _Move:
        if not isinstance(g, Tensor) or g.shape != p.shape:
            raise ValueError(f"{self.name}: the gradient of a parameter of shape {p.shape} must be a Tensor of this "
                             f"shape, got {getattr(g, 'shape', type(g).__name__)}")
        if group["maximize"] and "loss" in rule.options:          # it turns its sign as g does
            group = {**group, "loss": -group["loss"]}
        try:
            numbers = _Numbers(rule, group)
        except RuleError as error:
            raise TypeError(f"{self.name}: {error}; give it to update()") from None
        numbers.read(group, {}, lambda group: None)
        names = {letter: self._optimizer.state_names.get(letter, letter) for letter in (*rule.states, *rule.memory)}
        return _Move(rule, p, _cast(g, p.dtype), self._begun(state, p, group, rule), numbers, names)


class _Numbers(Numbers):
    """The options of a group as a rule takes them, Tensors left as they are."""

    def _number(self, value: Any) -> Any:
        return _number(value)


class _Move:
    """A parameter on its way through the passes of its rule."""

    def __init__(self, rule: Rule, p: Tensor, g: Tensor, state: dict[str, Any], numbers: Numbers,
                 names: dict[str, str]) -> None:
        self.rule, self.state, self.names, self.levels = rule, state, names, len(rule.passes) - 1
        self.t = state["step"] + 1
        self.arrays = {"p": p, "g": g, **{letter: state[names[letter]] for letter in rule.states}}
        self.numbers = [*numbers.at(self.t), *(state[names[letter]] for letter in rule.memory)]

    def walk(self, level: int) -> tuple[tuple, tuple]:
        """Return what a pass makes of the arrays, and the new memory."""
        host, body = _read(self.rule.passes[level])
        with numpy.errstate(all="ignore"):
            constants, memory = host(*self.numbers)
            constants = [_cast(c, self.arrays["p"].dtype) for c in constants]
            return body(*self.arrays.values(), *constants), memory

    def step(self) -> tuple[Tensor, dict[str, Any]]:
        """Return the new parameter and the new state."""
        written, memory = self.walk(self.levels)
        new = dict(zip((*self.rule.passes[-1].written, *self.rule.memory), (*written, *memory)))
        p = new.pop("p")
        return p, {**self.state, "step": self.t, **{self.names[letter]: value for letter, value in new.items()}}


def _add_up(moves: list[_Move]) -> None:
    """Give every rule the norms that it asks for."""
    for level in range(max((move.levels for move in moves), default=0)):
        summing = [move for move in moves if level < move.levels]
        sums = [[term.sum() for term in move.walk(level)[0]] for move in summing]
        everything = [sum(column) for column in zip(*sums)]
        for move, own in zip(summing, sums):
            for place, term in enumerate(move.rule.passes[level].terms):
                reduction = REDUCTIONS[move.rule.reductions[term]]
                total = everything[place] if reduction.everywhere else own[place]
                # At 0 a norm has no slope; it counts as 0.
                move.numbers.append(reduction.finish(total if total else total.detach()))


@primitive(lambda g, y, x: g / numpy.where(y == 0, numpy.inf, 2 * y))
def _sqrt(x: Tensor) -> Tensor:
    return xp.sqrt(x)


@primitive(lambda g, y, x: g / numpy.where(y == 0, numpy.inf, 3 * y * y))
def _cbrt(x: Tensor) -> Tensor:
    return xp.cbrt(x)


ON_ARRAYS = ({name: function.array for name, function in FUNCTIONS.items()} | {"sqrt": _sqrt, "cbrt": _cbrt}
             | {name: reduction.term for name, reduction in REDUCTIONS.items()})


def _either(on_tensors: Callable, host: Callable) -> Callable:
    return lambda *numbers: (on_tensors if any(isinstance(x, Tensor) for x in numbers) else host)(*numbers)


# A choice between numbers is made at once: what is not chosen, which may be infinite, cannot spoil the gradient.
ON_NUMBERS = {name: _either(ON_ARRAYS[name], function.host) for name, function in FUNCTIONS.items()} | {
    "where": FUNCTIONS["where"].host,
    "maximum": lambda a, b: a if a > b else b if b > a else numpy.maximum(a, b),
    "minimum": lambda a, b: a if a < b else b if b < a else numpy.minimum(a, b)}


@cache
def _read(walk: Pass) -> tuple[Callable, Callable]:
    """Return the two halves of a pass, on numbers and on arrays, in functions that know Tensors."""
    host, body = dict(ON_NUMBERS), dict(ON_ARRAYS)
    exec(walk.host_source, host)
    exec(walk.numpy(), body)
    return host["host"], body[walk.name]


def _number(value: Any) -> Any:
    """Return a number as the host computes with it: in double precision, a Tensor without axes."""
    return value.reshape(()).to("float64") if isinstance(value, Tensor) else float(value)


def _cast(value: Any, dtype: Any) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) else float(value)


def _plain(value: Any) -> Any:
    """Return options without the tape: what may be compared, and chosen by."""
    if isinstance(value, Tensor):
        return value.detach() if value.ndim and value.numel() > 1 else value.item()
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else value


def _values(rows: Named) -> list:
    return list(rows.values() if isinstance(rows, Mapping) else rows)


def _like(params: Named, rows: list) -> Named:
    return dict(zip(params, rows)) if isinstance(params, Mapping) else rows


def _fitting(name: str, rows: Named, params: Named) -> list:
    """Return what was given for each parameter, in their order."""
    if isinstance(params, Mapping) and isinstance(rows, Mapping) and rows.keys() == params.keys():
        return [rows[key] for key in params]
    if isinstance(params, Mapping) or isinstance(rows, Mapping) or len(rows) != len(params):
        raise ValueError(f"{name} must be given as the parameters are, {_shown(params)}; got {_shown(rows)}")
    return list(rows)


def _shown(rows: Named) -> str:
    return f"by the names {', '.join(map(str, rows))}" if isinstance(rows, Mapping) else f"a list of {len(rows)}"
