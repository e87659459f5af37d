"""Linear maps: what an optimizer with a linear rule does along an eigenvector of a quadratic, and how fast.

The loss w'Aw/2 - b'w falls apart along the eigenvectors of A. Along one, with the curvature h, the gradient is h p
where p counts from the minimum, so a rule that is linear in gradient and state takes (p, state) to a matrix times
(p, state). The matrix is not written here a second time: the rule itself is run on basis vectors. The largest of the
matrix's eigenvalues, by size, is the rate: what is left of the distance after a step.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import numpy as np

from ...backend import to_numpy, xp
from ...optim.optimizer import Optimizer
from ...optim.plan import Numbers, read_rule
from ...rule import RuleError
from ...tensor import Tensor
from ..traces import make_optimizer

LATE = 1e6                      # the step at which a rule that counts its steps is read
ROUNDING = 1e-9                 # what counts as equal
MOTIONS = ("monotone", "oscillates", "zig-zags", "diverges")


def linear_map(optimizer: Any, curvature: Any, **options: Any) -> np.ndarray:
    """Return one step of an optimizer along an eigenvector of a quadratic, as the matrix of (p, state).

    p counts from the minimum, state is in the order of the rule. The matrix comes from running the rule.

    Parameters
    ----------
    optimizer : str, subclass of Optimizer, callable or Optimizer
        As for `tg.lab.record`.
    curvature : float or array_like
        The eigenvalue, or several.
    **options
        Of the optimizer, such as lr.

    Returns
    -------
    (m, m) array, or (..., m, m) for several curvatures
        Of float64; m is 1 for p, and 1 for each array of state.

    Raises
    ------
    ValueError
        When the rule is not linear, by trial: Adam, Lion. A rule that counts its steps is read at t = 10^6, as it is
        in the long run, and refused when it still changes there.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.lab.linear_map("SGD", curvature=2.0, lr=0.25)
    array([[0.5]])
    >>> tg.lab.linear_map("SGD", curvature=2.0, lr=0.25, momentum=0.5)         # [1 - lr h, -lr beta], [h, beta]
    array([[ 0.5  , -0.125],
           [ 2.   ,  0.5  ]])
    """
    return LinearRule.of(optimizer, options).maps(finite_numbers(curvature))


class LinearRule:
    """An optimizer's rule where it is linear: new (p, state) = keep (p, state) + pull g.

    Parameters
    ----------
    optimizer : Optimizer
    group : dict
        The options that the rule is given.
    """

    def __init__(self, optimizer: Optimizer, group: dict[str, Any]) -> None:
        self.optimizer, self.group, self.name = optimizer, group, type(optimizer).__name__
        if type(optimizer).step is not Optimizer.step or type(optimizer)._step is not Optimizer._step:
            raise self._refusal("its step is more than a rule of gradient and state; give the optimizer inside, if "
                                "it wraps one")
        if optimizer._schedules or optimizer.grad_transforms:
            raise self._refusal("its numbers are scheduled or its gradients transformed; theory takes fixed numbers")
        self.rule = read_rule(optimizer.rule_for(group, group["params"][0]), bool(group["maximize"]))
        if self.rule.matrix or self.rule.reductions or self.rule.memory:
            raise self._refusal("its rule is not one of single elements: it has norms, whole matrices, or numbers "
                                "that it keeps")
        self._check_linear()

    @classmethod
    def of(cls, optimizer: Any, options: dict[str, Any]) -> LinearRule:
        """Return the rule of an optimizer, its class or its name; of the first group where there are several."""
        held = (dict(optimizer._named()) if isinstance(optimizer, Optimizer)
                else {"w": Tensor(np.zeros((1, 1)), requires_grad=True)})
        made = make_optimizer(optimizer, held, options)
        return cls(made, made.param_groups[0])

    def given(self, **numbers: float) -> LinearRule:
        """Return the rule that the optimizer would choose for other numbers."""
        return LinearRule(self.optimizer, {**self.group, **numbers})

    def _refusal(self, why: str) -> ValueError:
        return ValueError(f"{self.name} is no linear map of (p, state): {why}. On quadratics there is this theory for "
                          "SGD with any momentum, QHM, AggMo, and rules of your own that are linear in the gradient")

    def _check_linear(self) -> None:
        """Raise unless the rule adds up and scales, on vectors from small to large, and no longer changes with t."""
        keep, pull = self.parts()
        for scale in (1e-3, 1.0, 1e3):
            z = scale * np.random.default_rng(0).standard_normal((len(pull) + 1, 32))
            linear, found = keep @ z[:-1] + pull[:, None] * z[-1], self.step(z[:-1], z[-1])
            size = (abs(keep) @ abs(z[:-1]) + abs(pull[:, None] * z[-1])).max()
            if not (abs(found - linear) <= ROUNDING * size).all():              # NaN is not
                raise self._refusal("twice the gradient does not make twice the step")
        later = self.parts(t=10 * LATE)
        if not all(np.allclose(a, b, rtol=ROUNDING, atol=ROUNDING) for a, b in zip(later, (keep, pull))):
            raise self._refusal("its rule changes with the number of the step for ever, so it has no single rate")

    def step(self, z: np.ndarray, g: np.ndarray, t: float = LATE, **numbers: Any) -> np.ndarray:
        """Return (p, *state) after a step of the rule from z with the gradient g; numbers may be arrays."""
        group = {**self.group, **{name: xp.asarray(value) for name, value in numbers.items()}}
        try:
            options = _Arrays(self.rule, group)
        except RuleError:
            raise self._refusal("its rule is told more at each step than gradient and options") from None
        options.read(group, {}, lambda group: None)
        arrays = dict(zip(self.rule.arrays, (z[0], -g if self.rule.maximize else g, *z[1:])))
        with np.errstate(all="ignore"):
            new = self.rule.function(**{name: xp.asarray(value) for name, value in arrays.items()},
                                     **dict(zip(self.rule.options, options.at(t))))
        new = new if isinstance(new, tuple) else (new,)
        return np.stack(np.broadcast_arrays(*map(to_numpy, new)))

    def parts(self, t: float = LATE, **numbers: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return keep, (..., m, m), and pull, (..., m), where `...` is the common shape of the numbers."""
        shape = np.broadcast_shapes(*map(np.shape, numbers.values()))
        m = len(self.rule.arrays) - 1
        basis = np.eye(m + 1).reshape(m + 1, m + 1, *[1] * len(shape)) * np.ones(shape)
        z = np.moveaxis(self.step(basis[:-1], basis[-1], t, **numbers), (0, 1), (-2, -1))
        return z[..., :-1], z[..., -1]

    def maps(self, curvatures: Any, **numbers: Any) -> np.ndarray:
        """Return one step as matrices, (..., *curvatures.shape, m, m)."""
        curvatures = np.asarray(curvatures, dtype="float64")
        keep, pull = self.parts(**numbers)
        force = pull[..., None] * np.eye(pull.shape[-1])[0]             # on p = (1, 0, ...) alone
        between = tuple(range(pull.ndim - 1, pull.ndim - 1 + curvatures.ndim))
        with np.errstate(invalid="ignore"):                             # at an infinite lr
            return np.expand_dims(keep, between) + curvatures[..., None, None] * np.expand_dims(force, between)

    def rate(self, curvatures: Any, **numbers: Any) -> np.ndarray:
        """Return the largest spectral radius over the curvatures, in the common shape of the numbers."""
        return abs(eigenvalues(self.maps(curvatures, **numbers))).max(axis=(-2, -1))


class _Arrays(Numbers):
    """The options of a group as a rule takes them, arrays left as they are."""

    def _number(self, value: Any) -> Any:
        return value


def eigenvalues(maps: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of matrices, infinite where a matrix is not finite."""
    finite = np.isfinite(maps).all(axis=(-2, -1), keepdims=True)
    found = np.linalg.eigvals(np.where(finite, maps, 0.0))
    return np.where(finite[..., 0], found, inf)


def motion_of(roots: np.ndarray) -> np.ndarray:
    """Return how (p, state) moves, as a place in MOTIONS, from the eigenvalues along the last axis.

    The largest decides: a pair of complex ones oscillates, a negative one changes the side at each step.
    """
    largest = np.take_along_axis(roots, abs(roots).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    # Two that meet are computed a little off the real line, and off 0.
    turning = abs(largest.imag) > 1e-6 * np.maximum(abs(largest), 1)
    return np.where(abs(largest) > 1 + ROUNDING, 3, np.where(turning, 1, np.where(largest.real < 0, 2, 0)))


class Optimum(NamedTuple):
    """The best numbers and the rate that they give; `momentum` is None for a rule without it."""

    lr: float
    momentum: float | None
    rate: float


def largest_stable_lr(rule: LinearRule, curvatures: np.ndarray, **numbers: Any) -> np.ndarray:
    """Return the lr from which on something grows, by bisection, in the common shape of the numbers."""
    low, high = _edge(rule, curvatures, numbers)
    for _ in range(56):
        middle = (low + high) / 2
        stable = _stable(rule, curvatures, middle, numbers)
        low, high = np.where(stable, middle, low), np.where(stable, high, middle)
    return low


def _stable(rule: LinearRule, curvatures: np.ndarray, lr: np.ndarray, numbers: dict[str, Any]) -> np.ndarray:
    return rule.rate(curvatures, lr=lr, **numbers) <= 1 + 1e-12


def _edge(rule: LinearRule, curvatures: np.ndarray, numbers: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return a stable and an unstable lr that are near each other; (0, 0) and (inf, inf) where there is no other."""
    shape = np.broadcast_shapes(*map(np.shape, numbers.values()))
    ladder = np.geomspace(1e-6, 1e6, 121) / (abs(curvatures).max() or 1.0)
    stable = _stable(rule, curvatures, ladder.reshape(-1, *[1] * len(shape)), numbers)
    steps = np.concatenate([[0.0], ladder, [inf]])
    first = np.where(stable.all(axis=0), len(ladder), np.argmin(stable, axis=0))    # that is not stable
    always, never = first == len(ladder), first == 0
    return np.where(always, inf, steps[first]), np.where(never, 0.0, steps[first + 1])


def best_lr(rule: LinearRule, curvatures: np.ndarray, **numbers: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the lr of the smallest rate, by golden section, and that rate, in the common shape of the numbers."""
    share = (5 ** 0.5 - 1) / 2
    high = _edge(rule, curvatures, numbers)[1]
    low = np.zeros_like(high)
    for _ in range(64):
        left, right = inner = np.stack([high - share * (high - low), low + share * (high - low)])
        rates = rule.rate(curvatures, lr=inner, **numbers)
        lower = rates[0] <= rates[1]
        low, high = np.where(lower, low, left), np.where(lower, right, high)
    middle = (low + high) / 2
    return middle, rule.rate(curvatures, lr=middle, **numbers)


def best_pair(rule: LinearRule, curvatures: np.ndarray) -> Optimum:
    """Return lr and momentum of the smallest rate: ever finer looks at the momentum, each with its best lr."""
    low, high, count = 0.0, 1.0, 33
    for _ in range(10):
        momenta = np.linspace(low, high, count)
        rates, found = best_lr(rule, curvatures, momentum=momenta)
        k = int(found.argmin())
        low, high = momenta[max(k - 1, 0)], momenta[min(k + 1, count - 1)]
    return Optimum(float(rates[k]), float(momenta[k]), float(found[k]))


def finite_numbers(given: Any, what: str = "curvature is a number or several") -> np.ndarray:
    """Return finite numbers as an array of float64."""
    try:
        values = np.asarray(given, dtype="float64")
    except (TypeError, ValueError):
        raise TypeError(f"{what}; got {given!r}") from None
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{what}, finite and at least one; got {given!r}")
    return values
