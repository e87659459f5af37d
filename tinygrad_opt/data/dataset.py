"""Datasets: something with a length whose entries are samples, and that can hand them out in batches."""
from collections.abc import Iterator, Sequence
from math import fsum, isclose
from numbers import Integral
from typing import Any

import numpy as np

from ..backend import asarray, xp
from ..random import Generator, default_generator
from ..tensor import Tensor


class Dataset:
    """Base of datasets: define `__len__` and `__getitem__(i)`, which returns one sample.

    A sample is a Tensor, an array, a number, a string, or a tuple or dict of such.

    Examples
    --------
    >>> from tinygrad_opt.data import DataLoader, Dataset
    >>> class Squares(Dataset):
    ...     def __len__(self):
    ...         return 4
    ...     def __getitem__(self, i):
    ...         return float(i), i * i
    >>> [(x.tolist(), y.tolist()) for x, y in DataLoader(Squares(), batch_size=2)]
    [([0.0, 1.0], [0, 1]), ([2.0, 3.0], [4, 9])]
    """

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} must define __len__, the number of samples")

    def __getitem__(self, index):
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(i), which returns sample i")

    def batches(self, order: np.ndarray, size: int) -> Iterator:
        """Yield the samples at `order` (int64, on the host), `size` at a time, each batch stacked."""
        for start in range(0, len(order), size):
            yield collate([self[i] for i in order[start:start + size].tolist()])


class TensorDataset(Dataset):
    """Tensors of equal length; sample `i` is the tuple of their rows `i`.

    Batches are copied out of whole arrays, without a Python loop over samples.

    Parameters
    ----------
    *tensors : Tensor or array, each (n, ...)
        Usually the inputs and the labels.

    Raises
    ------
    ValueError
        The lengths differ, a Tensor has no axis, or one requires a gradient (batches would not pass it on).

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> dataset = tg.data.TensorDataset(tg.Tensor([[1.0, 2.0], [3.0, 4.0]]), tg.Tensor([0, 1]))
    >>> x, y = dataset[1]
    >>> len(dataset), x.tolist(), y.item()
    (2, [3.0, 4.0], 1)
    """

    def __init__(self, *tensors: Tensor):
        self.tensors = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in tensors)
        shapes = [tuple(t.shape) for t in self.tensors]
        if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ValueError("tensors must be one or more, of the same length along axis 0; got shapes "
                             f"{shapes}")
        if any(t.requires_grad for t in self.tensors):
            raise ValueError("a dataset passes no gradients on, but a tensor requires one; use .detach()")

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def batches(self, order: np.ndarray, size: int) -> Iterator[tuple[Tensor, ...]]:
        arrays, order = [t.data for t in self.tensors], asarray(order)
        for start in range(0, len(order), size):
            rows = order[start:start + size]
            yield tuple([Tensor._wrap(a.take(rows, axis=0)) for a in arrays])


class Subset(Dataset):
    """The samples of `dataset` at `indices`, in that order.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> letters = tg.data.Subset("abcdef", [4, 0])
    >>> len(letters), letters[0]
    (2, 'e')
    """

    def __init__(self, dataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, np.asarray(indices, dtype=np.int64)
        n = len(dataset)
        if self.indices.ndim != 1 or ((self.indices < 0) | (self.indices >= n)).any():
            raise IndexError(f"indices must be one row of integers from 0 to {n - 1}; got {indices!r:.100}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | slice):
        chosen = self.indices[index]
        return self.dataset[chosen.item() if chosen.ndim == 0 else chosen]

    def batches(self, order: np.ndarray, size: int) -> Iterator:
        return batches(self.dataset, self.indices[order], size)


def random_split(dataset: Dataset, lengths: Sequence[int | float],
                 generator: Generator | int | None = None) -> list[Subset]:
    """Cut a dataset into parts at random, without overlap.

    Parameters
    ----------
    dataset : Dataset or sequence
    lengths : sequence of int or float
        Sizes that sum to `len(dataset)`, or fractions that sum to 1; what rounding down leaves over goes to
        the first parts, one each.
    generator : Generator, int seed or None
        Source of the order; None is the default generator (see `tg.manual_seed`).

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> train, test = tg.data.random_split(range(10), [0.8, 0.2], generator=0)
    >>> len(train), len(test), sorted([*train.indices.tolist(), *test.indices.tolist()]) == list(range(10))
    (8, 2, True)
    """
    n = len(dataset)
    sizes = list(lengths)
    if any(isinstance(size, float) for size in sizes) and isclose(fsum(sizes), 1):
        sizes = [int(n * fraction) for fraction in lengths]
        for k in range(n - sum(sizes)):
            sizes[k % len(sizes)] += 1
    if not sizes or not all(isinstance(size, Integral) and size >= 0 for size in sizes) or sum(sizes) != n:
        raise ValueError(f"lengths must be sizes that sum to {n}, the length of the dataset, or fractions "
                         f"that sum to 1; got {lengths!r}")
    order = as_generator(generator).permutation(n)
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def as_generator(generator: Generator | int | None) -> Generator:
    """A Generator from itself, from a seed, or the default one from None."""
    if generator is None:
        return default_generator()
    return generator if isinstance(generator, Generator) else Generator(generator)


def batches(dataset: Any, order: np.ndarray, size: int) -> Iterator:
    """The batches of a Dataset, or of any other object with a length and samples."""
    if isinstance(dataset, Dataset):
        return dataset.batches(order, size)
    return Dataset.batches(dataset, order, size)


def collate(samples: list) -> Any:
    """Samples of one kind as one batch: numbers, arrays, Tensors are stacked, tuples and dicts by entry."""
    first = samples[0]
    if isinstance(first, dict):
        if any(sample.keys() != first.keys() for sample in samples):
            raise ValueError(f"samples of one batch must have the same keys; the first has {list(first)}")
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in samples):
            raise ValueError(f"samples of one batch must have as many entries; the first has {len(first)}")
        return tuple(collate(list(entries)) for entries in zip(*samples, strict=True))
    if isinstance(first, (str, bytes)):
        return samples
    if isinstance(first, (Tensor, np.ndarray, np.generic, xp.ndarray)):
        arrays = [asarray(sample.data if isinstance(sample, Tensor) else sample) for sample in samples]
        if len(shapes := {a.shape for a in arrays}) > 1:
            raise ValueError(f"samples of one batch must have the same shape, got {sorted(shapes)}; cut or "
                             "pad them in the dataset")
        return Tensor(xp.stack(arrays))
    if isinstance(first, (bool, int, float)):
        return Tensor(samples)
    raise TypeError(f"cannot stack samples of type {type(first).__name__}; a dataset gives Tensors, arrays, "
                    "numbers, strings, or tuples or dicts of them")
