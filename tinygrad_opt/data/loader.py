"""DataLoader: an epoch at a time, the samples of a dataset in batches."""
from collections.abc import Collection, Iterator
from numbers import Integral

import numpy as np

from ..random import Generator
from .dataset import as_generator, batches


class DataLoader:
    """Iterate over a dataset in batches; each iteration is one epoch.

    A shuffled epoch draws one permutation from the generator when it begins and nothing else, so whoever
    restores the generator's state gets the same epochs again.

    Parameters
    ----------
    dataset : Dataset or sequence
        Anything with a length and samples by index.
    batch_size : int
        Samples in a batch, at least 1; the last batch of an epoch may be smaller.
    shuffle : bool
        A new order every epoch, or always 0, 1, 2, ...
    drop_last : bool
        Leave out a last batch that is smaller (of the unlucky ones, shuffling picks others every epoch).
    generator : Generator, int seed or None
        Where the order comes from; None is the default generator (see `tg.manual_seed`).
    sampler : iterable of int with a length, optional
        Which samples, in which order, in the place of `shuffle`; asked at the beginning of every epoch.

    Raises
    ------
    ValueError
        `batch_size` is below 1, there are both `shuffle` and a `sampler`, or there would be no batch at all: an empty
        dataset, or one smaller than `batch_size` with `drop_last`.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> x, y = tg.data.moons(100, generator=0)
    >>> loader = tg.data.DataLoader(tg.data.TensorDataset(x, y), batch_size=32, shuffle=True, generator=0)
    >>> [tuple(xb.shape) for xb, yb in loader]
    [(32, 2), (32, 2), (32, 2), (4, 2)]
    """

    def __init__(self, dataset, batch_size: int = 1, shuffle: bool = False, *, drop_last: bool = False,
                 generator: Generator | int | None = None, sampler: Collection[int] | None = None):
        indexed = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
        if not indexed or isinstance(dataset, (tuple, dict)):
            raise TypeError("dataset must have a length and samples by index, got a "
                            f"{type(dataset).__name__}; for arrays use TensorDataset(x, y), else a list")
        if not isinstance(batch_size, Integral) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
        if shuffle and sampler is not None:
            raise ValueError("a sampler decides on the order itself; leave shuffle out")
        self.dataset, self.batch_size, self.sampler = dataset, int(batch_size), sampler
        self.shuffle, self.drop_last = shuffle, drop_last
        self.generator = generator if generator is None else as_generator(generator)
        if len(self) == 0:
            raise ValueError(f"no batch: the {'dataset' if sampler is None else 'sampler'} has {self._count()} "
                             f"samples, batch_size is {batch_size} and drop_last is {drop_last}")

    def _count(self) -> int:
        return len(self.dataset if self.sampler is None else self.sampler)

    def __len__(self) -> int:
        full, rest = divmod(self._count(), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator:
        n = self._count()
        if self.sampler is not None:
            order = np.fromiter(self.sampler, np.int64, n)
        else:
            order = as_generator(self.generator).permutation(n) if self.shuffle else np.arange(n)
        return batches(self.dataset, order[:len(self) * self.batch_size], self.batch_size)
