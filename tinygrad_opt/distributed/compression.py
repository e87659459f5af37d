"""Compression: ranks send less than their gradients, and remember what they have not sent.

Each keeps the residual, what was left unsent, and adds it to its next gradient (error feedback: Seide et al., 1-bit
stochastic gradient descent, Interspeech 2014). What was sent and the residual are the gradient: to the bit where both
are numbers of its dtype, as for `Float16`, `TopK` and `RandomK`, otherwise to rounding. So nothing is lost, it only
comes later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy

from ..backend import asarray, xp
from ..random import Generator
from ..tensor import Tensor
from .communicator import Communicator


class Compression:
    """Base of what averages gradients approximately.

    A subclass defines `_exchange(world, x, key)`. It begins to send and returns a function that waits, and returns
    what all receive and what this rank has contributed to it, both of the shape of x.

    Attributes
    ----------
    residuals : dict
        What was not sent yet, by the key of the array. It belongs to this rank alone.
    whole_tensors : bool
        Whether DataParallel gives it each gradient by itself, in its shape, in the place of flat buckets.
    """

    whole_tensors = False

    def __init__(self) -> None:
        self.residuals: dict[int | str, Any] = {}

    def begin(self, world: Communicator, gradient: Any, key: int | str = 0) -> Callable[[], Any]:
        """Begin to average; what is returned waits for the average and returns it."""
        x = gradient + self.residuals[key] if key in self.residuals else gradient
        with numpy.errstate(all="ignore"):          # infinities and NaN are passed on, for all to see
            finish = self._exchange(world, x, key)

        def average() -> Any:
            with numpy.errstate(all="ignore"):
                received, sent = finish()
                left = x - sent
            self.residuals[key] = xp.where(xp.isfinite(left), left, 0)      # a single NaN would stay for ever
            return received
        return average

    def average(self, world: Communicator, gradient: Any, key: int | str = 0) -> Any:
        """Return about the mean of all ranks' gradients, the same bits on each.

        Parameters
        ----------
        world : Communicator
        gradient : array or Tensor
            Of one shape and dtype on all ranks.
        key : int or str, default 0
            Which gradient this is, where there are several: each has a residual.
        """
        return self.begin(world, gradient._data if isinstance(gradient, Tensor) else asarray(gradient), key)()

    def state_dict(self) -> dict[str, Any]:
        """Return what the next averages depend on; that of each rank is its own."""
        state = {name: dict(getattr(self, name)) for name in ("residuals", "factors") if hasattr(self, name)}
        return state | ({"generator": self.generator.get_state()} if hasattr(self, "generator") else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises
        ------
        ValueError
            When it is the state of another kind of compression.
        """
        if not isinstance(state_dict, dict) or state_dict.keys() != self.state_dict().keys():
            raise ValueError(f"{type(self).__name__}: a saved state is a dict with {', '.join(self.state_dict())}")
        for name, value in state_dict.items():
            if name == "generator":
                self.generator.set_state(value)
            else:
                setattr(self, name, {key: asarray(getattr(one, "_data", one)) for key, one in value.items()})

    def _exchange(self, world: Communicator, x: Any, key: int | str) -> Callable[[], tuple[Any, Any]]:
        raise NotImplementedError


class Float16(Compression):
    """Send gradients rounded to float16: half the bytes of float32, a quarter of those of float64.

    Numbers beyond the range of float16 are sent as its largest, divided among the ranks so that their sum stays in
    range; infinities and NaN are sent as they are. The ranks' sum is made in float16 too, and its rounding, which no
    rank sees alone, is lost.

    Examples
    --------
    >>> import numpy as np, tinygrad_opt as tg
    >>> def rank(world):
    ...     compression = tg.distributed.Float16()
    ...     mean = compression.average(world, np.array([1.0 + 2 ** -20, 3.0]))
    ...     return mean.tolist(), compression.residuals[0].tolist() == [2 ** -20, 0.0]
    >>> tg.distributed.simulate(2, rank)[0]
    ([1.0, 3.0], True)
    """

    def _exchange(self, world: Communicator, x: Any, key: int | str) -> Callable[[], tuple[Any, Any]]:
        limit = float(xp.finfo("float16").max) / world.size
        half = xp.where(xp.isfinite(x), xp.clip(x, -limit, limit), x).astype("float16")
        work = world.begin_all_reduce(half, "mean")
        return lambda: (work.wait().astype(x.dtype), half.astype(x.dtype))


class _Sparse(Compression):
    """Send some of the numbers, chosen anew each time."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        if not isinstance(fraction, Real) or not 0 < fraction <= 1:
            raise ValueError(f"{type(self).__name__}: fraction must lie in (0, 1], got {fraction!r}")
        self.fraction = fraction

    def _count(self, x: Any) -> int:
        return min(x.size, math.ceil(self.fraction * x.size))


class TopK(_Sparse):
    """Send the numbers that are largest in absolute value, with their places.

    Each rank chooses its own, so the places travel too, in 4 bytes each up to arrays of 2 ** 31 numbers.

    Parameters
    ----------
    fraction : float, default 0.01
        The share that is sent, in (0, 1], rounded up to a whole number; with 1 the mean is exact.

    Notes
    -----
    Stich, Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018, arXiv 1809.07599.

    Examples
    --------
    >>> import numpy as np, tinygrad_opt as tg
    >>> def rank(world):
    ...     compression = tg.distributed.TopK(0.5)
    ...     mean = compression.average(world, np.array([[1.0, -8.0], [4.0, 2.0]][world.rank]))
    ...     return mean.tolist(), compression.residuals[0].tolist()
    >>> tg.distributed.simulate(2, rank)
    [([2.0, -4.0], [1.0, 0.0]), ([2.0, -4.0], [0.0, 2.0])]
    """

    def __init__(self, fraction: float = 0.01) -> None:
        super().__init__(fraction)

    def _exchange(self, world: Communicator, x: Any, key: int | str) -> Callable[[], tuple[Any, Any]]:
        flat, k = x.reshape(-1), self._count(x)
        places = xp.argpartition(xp.abs(flat), flat.size - k)[flat.size - k:]
        sent = xp.zeros_like(flat)
        sent[places] = flat[places]

        def finish() -> tuple[Any, Any]:
            chosen = world.all_gather(places.astype("int32" if flat.size < 2 ** 31 else "int64"))
            total = xp.zeros_like(flat)
            for where, values in zip(chosen, world.all_gather(flat[places])):
                total[where] += values              # the places of one rank are different ones
            return (total / flat.dtype.type(world.size)).reshape(x.shape), sent.reshape(x.shape)
        return finish


class RandomK(_Sparse):
    """Send numbers at random places, the same on all ranks, so that the values alone travel.

    Parameters
    ----------
    fraction : float, default 0.01
        The share that is sent, in (0, 1], rounded up to a whole number; with 1 the mean is exact.
    seed : int, default 0
        Of the places, the same on all ranks.

    Notes
    -----
    Stich, Cordonnier, Jaggi: Sparsified SGD with memory, NeurIPS 2018, arXiv 1809.07599. An infinity or NaN is seen
    by all ranks at once, whether its place is chosen or not.

    Examples
    --------
    >>> import numpy as np, tinygrad_opt as tg
    >>> def rank(world):
    ...     compression = tg.distributed.RandomK(0.5, seed=1)
    ...     mean = compression.average(world, np.array([[1.0, -8.0], [3.0, 2.0]][world.rank]))
    ...     return mean.tolist(), compression.residuals[0].tolist()
    >>> tg.distributed.simulate(2, rank)
    [([2.0, 0.0], [0.0, -8.0]), ([2.0, 0.0], [0.0, 2.0])]
    """

    def __init__(self, fraction: float = 0.01, seed: int = 0) -> None:
        super().__init__(fraction)
        self.generator = Generator(seed)

    def _exchange(self, world: Communicator, x: Any, key: int | str) -> Callable[[], tuple[Any, Any]]:
        flat, k = x.reshape(-1), self._count(x)
        places = asarray(self.generator.numpy.choice(flat.size, k, replace=False, shuffle=False))
        values = flat[places]
        if not xp.isfinite(flat).all():
            values = xp.full_like(values, float("nan"))
        work, sent = world.begin_all_reduce(values, "mean"), xp.zeros_like(flat)
        sent[places] = values

        def finish() -> tuple[Any, Any]:
            mean = xp.zeros_like(flat)
            mean[places] = work.wait()
            return mean.reshape(x.shape), sent.reshape(x.shape)
        return finish


class ScaledSign(Compression):
    """Send one bit for each number, its sign, and one number for all: the mean of their absolute values.

    Notes
    -----
    Karimireddy, Rebjock, Stich, Jaggi: Error feedback fixes SignSGD and other gradient compression schemes, ICML 2019,
    arXiv 1901.09847. The sign of 0 is sent as +.

    Examples
    --------
    >>> import numpy as np, tinygrad_opt as tg
    >>> def rank(world):
    ...     compression = tg.distributed.ScaledSign()
    ...     mean = compression.average(world, np.array([[1.0, -3.0], [4.0, 4.0]][world.rank]))
    ...     return mean.tolist(), compression.residuals[0].tolist()
    >>> tg.distributed.simulate(2, rank)
    [([3.0, 1.0], [-1.0, -1.0]), ([3.0, 1.0], [0.0, 0.0])]
    """

    def _exchange(self, world: Communicator, x: Any, key: int | str) -> Callable[[], tuple[Any, Any]]:
        flat, real = x.reshape(-1), x.dtype.type
        scale, positive = xp.abs(flat).mean(), flat >= 0

        def signs(positive: Any, scale: Any) -> Any:
            return xp.where(positive, real(scale), -real(scale))

        def finish() -> tuple[Any, Any]:
            bits = world.all_gather(xp.packbits(positive))
            total = xp.zeros_like(flat)
            for line, size in zip(bits, world.all_gather(scale.reshape(1))):
                total += signs(xp.unpackbits(line)[:flat.size], size[0])
            return (total / real(world.size)).reshape(x.shape), signs(positive, scale).reshape(x.shape)
        return finish


class PowerSGD(Compression):
    """Send the gradient of a matrix as the product of two narrow ones, its best directions.

    One step of the power method: P = MQ, averaged and orthogonalised, then Q = Mᵀ P, averaged; the mean is about
    P Qᵀ. Q is kept, so that step after step it comes nearer to the directions that matter. An n by m matrix is sent
    as (n + m) rank numbers. Where that is no less, and vectors, are sent whole. Arrays of more axes are matrices of
    their first and all others.

    Parameters
    ----------
    rank : int, default 1
        The width of P and Q, at least 1.
    seed : int, default 0
        Of the first Q, the same on all ranks.

    Notes
    -----
    Vogels, Karimireddy, Jaggi: PowerSGD, NeurIPS 2019, arXiv 1905.13727.

    Examples
    --------
    >>> import numpy as np, tinygrad_opt as tg
    >>> def rank(world):
    ...     m = (1.0 + world.rank) * np.outer(np.arange(6.0), np.ones(6))              # of rank 1: nothing is lost
    ...     mean = tg.distributed.PowerSGD().average(world, m)
    ...     return np.allclose(mean, 1.5 * np.outer(np.arange(6.0), np.ones(6))), world.accounts["all_reduce"].bytes
    >>> tg.distributed.simulate(2, rank)[0]                     # 12 numbers of 8 bytes in the place of 36
    (True, 96)
    """

    whole_tensors = True

    def __init__(self, rank: int = 1, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise ValueError(f"PowerSGD: rank must be a whole number of at least 1, got {rank!r}")
        self.rank, self.generator = rank, Generator(seed)
        self.factors: dict[int | str, Any] = {}           # Q by key

    def _exchange(self, world: Communicator, x: Any, key: int | str) -> Callable[[], tuple[Any, Any]]:
        rows, columns = (x.shape[0], x.size // x.shape[0]) if x.ndim > 1 and x.size else (1, x.size)
        if (rows + columns) * self.rank >= x.size:
            whole = world.begin_all_reduce(x, "mean")
            return lambda: (whole.wait(), x)
        m = x.reshape(rows, columns).astype(xp.promote_types(x.dtype, "float32"), copy=False)
        if key not in self.factors:
            self.factors[key] = asarray(self.generator.numpy.standard_normal((columns, self.rank))).astype(m.dtype)
        work = world.begin_all_reduce(m @ self.factors[key], "mean")

        def finish() -> tuple[Any, Any]:
            p = _orthogonal(work.wait())
            own = m.T @ p
            q = world.all_reduce(own, "mean")
            if xp.isfinite(q).all() and q.any(axis=0).all():       # a direction of zeros would never turn again
                self.factors[key] = q
            return tuple((p @ factor.T).astype(x.dtype).reshape(x.shape) for factor in (q, own))
        return finish


def _orthogonal(p: Any) -> Any:
    """Return columns of length 1 at right angles to each other that span those of p."""
    return xp.linalg.qr(p)[0] if xp.isfinite(p).all() else p
