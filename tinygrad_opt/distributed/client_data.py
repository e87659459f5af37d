"""Data as clients have it: each a part of its own, unlike the others in size and kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data import Subset
from ..data.dataset import as_generator, batches
from ..random import Generator
from .pipeline_schedules import whole


def split_by_class(dataset: Any, clients: int, classes_each: int = 2, seed: Generator | int = 0) -> list[Subset]:
    """Give each client samples of a few classes alone (McMahan et al., 2017, arXiv 1602.05629).

    Classes are dealt as evenly as may be, and the samples of a class evenly among the clients that have it.

    Parameters
    ----------
    dataset : Dataset
        Whose samples end with a label, a whole number.
    clients : int
        At least 1.
    classes_each : int, default 2
        How many classes a client has, from 1 to all.
    seed : Generator or int, default 0

    Returns
    -------
    list of Subset
        One a client; every sample is in one of them.

    Raises
    ------
    ValueError
        When there are more classes than clients can have, so that one would be left out, or fewer than each needs.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> train, _ = tg.data.digits()
    >>> parts = tg.distributed.split_by_class(train, clients=5, classes_each=2)
    >>> (tg.distributed.class_counts(parts) > 0).sum(axis=1).tolist(), sum(map(len, parts)) == len(train)
    ([2, 2, 2, 2, 2], True)
    """
    labels, chance = labels_of(dataset), as_generator(seed).numpy
    classes = np.unique(labels).tolist()
    if whole("classes_each", classes_each) > len(classes) or whole("clients", clients) * classes_each < len(classes):
        raise ValueError(f"{clients} clients of {classes_each} classes each must have all {len(classes)} classes, none "
                         "of them twice; change clients or classes_each")
    owners: dict[int, list[int]] = {label: [] for label in classes}
    for client in range(clients):
        mixed = chance.permutation(classes).tolist()
        for label in sorted(mixed, key=lambda label: len(owners[label]))[:classes_each]:
            owners[label].append(client)
    mine: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in classes:
        shuffled = chance.permutation(np.flatnonzero(labels == label))
        for client, part in zip(owners[label], np.array_split(shuffled, len(owners[label]))):
            mine[client].append(part)
    return [Subset(dataset, np.concatenate(parts)) for parts in mine]


def split_dirichlet(dataset: Any, clients: int, alpha: float = 0.5, seed: Generator | int = 0) -> list[Subset]:
    """Give each client a share of each class that a Dirichlet distribution draws (Hsu et al., 2019, arXiv 1909.06335).

    Parameters
    ----------
    dataset : Dataset
        Whose samples end with a label, a whole number.
    clients : int
        From 1 to the number of samples.
    alpha : float, default 0.5
        Above 0: small, and a class is with a few clients; large, and all clients are alike.
    seed : Generator or int, default 0

    Returns
    -------
    list of Subset
        One a client, none of them empty; every sample is in one of them.

    Raises
    ------
    ValueError
        When alpha or the number of clients is out of range.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> train, _ = tg.data.digits()
    >>> [len(part) for part in tg.distributed.split_dirichlet(train, clients=4, alpha=0.2, seed=0)]
    [186, 442, 479, 335]
    """
    labels, chance = labels_of(dataset), as_generator(seed).numpy
    if whole("clients", clients) > len(labels):
        raise ValueError(f"clients must be at most {len(labels)}, the number of samples, got {clients}")
    if not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be positive and finite, got {alpha!r}")
    mine: list[list[int]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        shuffled = chance.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(chance.dirichlet([alpha] * clients))[:-1] * len(shuffled)
        for indices, part in zip(mine, np.split(shuffled, ends.round().astype(int))):
            indices += part.tolist()
    for indices in mine:
        if not indices:
            indices.append(max(mine, key=len).pop())
    return [Subset(dataset, indices) for indices in mine]


def class_counts(clients: Sequence[Any]) -> np.ndarray:
    """Return how many samples of each class each client has.

    Returns
    -------
    (clients, classes) array of int
        Classes from 0 to the largest label.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> dataset = tg.data.TensorDataset(tg.zeros(4, 1), tg.tensor([0, 2, 2, 2]))
    >>> tg.distributed.class_counts([dataset, tg.data.Subset(dataset, [1])]).tolist()
    [[1, 0, 3], [0, 0, 1]]
    """
    labels = [labels_of(client) for client in clients]
    return np.array([np.bincount(part, minlength=max(map(np.max, labels)) + 1) for part in labels])


def labels_of(dataset: Any) -> np.ndarray:
    """Return the labels of all samples, on the host.

    Raises
    ------
    TypeError
        When samples do not end with a whole number.
    """
    sample = next(iter(batches(dataset, np.arange(len(dataset)), len(dataset))))
    labels = np.asarray(sample[-1]) if isinstance(sample, (tuple, list)) else np.empty(0)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TypeError("a sample must be a tuple that ends with its label, a whole number, to be told by its class; "
                        f"labels here have dtype {labels.dtype} and shape {labels.shape}")
    return labels
