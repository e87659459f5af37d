"""The UCI optical digits: real handwriting, small enough to come with the package (see optdigits.md)."""
from pathlib import Path

import numpy as np

from .dataset import TensorDataset


def digits() -> tuple[TensorDataset, TensorDataset]:
    """The 1,797 optical digits of UCI, 8 by 8 pixels, split into training and test set.

    The split is fixed and keeps the proportions of the classes: every fifth image of a digit, in the order of
    the source, is for testing.

    Returns
    -------
    train, test : TensorDataset
        Of 1,442 and 355 samples: images, float32 of shape (n, 64), pixels row by row from 0 (paper) to 1
        (ink), and labels, int64 from 0 to 9.

    References
    ----------
    E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49 (CC BY 4.0).

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> train, test = tg.data.digits()
    >>> images, labels = test.tensors
    >>> len(train), tuple(images.shape), labels[:5].tolist()
    (1442, (355, 64), [5, 0, 9, 8, 7])
    """
    with np.load(Path(__file__).with_name("optdigits.npz"), allow_pickle=False) as file:
        images = file["images"].reshape(-1, 64).astype(np.float32) / np.float32(16)
        labels = file["labels"].astype(np.int64)
    rank = np.empty_like(labels)                   # of an image among those of its digit
    for digit in range(10):
        (of_digit,) = np.nonzero(labels == digit)
        rank[of_digit] = np.arange(len(of_digit))
    test = rank % 5 == 4
    return TensorDataset(images[~test], labels[~test]), TensorDataset(images[test], labels[test])
