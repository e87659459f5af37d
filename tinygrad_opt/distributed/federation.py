"""Federated learning: clients train on data that stays with them, and a server makes one model of what they send."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import to_numpy, xp
from ..data import DataLoader
from ..data.dataset import batches
from ..lab.style import figure, looks, styled
from ..nn import Module
from ..ops import cross_entropy
from ..optim import SGD
from ..optim.ranges import POSITIVE, Range, check
from ..optim.registry import find
from ..random import Generator, default_generator
from ..tensor import Tensor, no_grad
from . import world as this_world
from .buckets import share_tensors
from .client_data import class_counts
from .communicator import Communicator
from .federation_methods import METHODS, FedAvg
from .pipeline_schedules import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING, CHOICE = 1, 2                             # what seeds are for: what a model and its batches draw; who is in
ROWS = 1024                                         # of a batch that is only looked at
TITLES = {"fedavg": "FedAvg", "fedprox": "FedProx", "scaffold": "SCAFFOLD", "fedadam": "FedAdam"}


@dataclass(eq=False)
class Federation:
    """What came out of federated training.

    Attributes
    ----------
    method : str
    model : Module
        That of the server after the last round, in evaluation mode.
    clients : Sequence
        Their datasets.
    loss, accuracy : (rounds + 1,) arrays
        Of the server's model before each round and after the last, on the test data, else on that of all clients;
        accuracy is NaN where labels are no classes.
    drift : (rounds,) array
        How far from their average the clients of a round arrived: the root of the mean square of the distances.
    bytes : (rounds,) array of int
        What clients and server have sent each other up to the end of a round.
    chosen : list of tuple of int
        Which clients took part in each round.
    controls : (clients, numbers) array or None
        The control variates of SCAFFOLD's clients, each as one row.
    control : (numbers,) array or None
        That of its server.
    """

    method: str
    model: Module
    clients: Sequence[Any]
    loss: np.ndarray
    accuracy: np.ndarray
    drift: np.ndarray
    bytes: np.ndarray
    chosen: list[tuple[int, ...]]
    controls: np.ndarray | None = None
    control: np.ndarray | None = None

    def __str__(self) -> str:
        right = "" if np.isnan(self.accuracy[-1]) else f", accuracy {self.accuracy[-1]:.1%}"
        return (f"{TITLES[self.method]}: {len(self.clients)} clients, {len(self.chosen)} rounds; loss "
                f"{self.loss[-1]:.4g}{right}; {self.bytes[-1] / 1e6:.3g} MB")

    def draw(self, *others: Federation) -> Figure:
        """Draw accuracy, loss and drift over the rounds, beside those of others, and the classes that clients have.

        Returns
        -------
        Figure
            Of matplotlib.
        """
        runs = _labelled([self, *others])
        panels = {"accuracy": "accuracy", "loss": "loss", "drift": "drift of the clients"}
        if all(np.isnan(run.accuracy).all() for run in runs.values()):
            del panels["accuracy"]
        try:
            counts = class_counts(self.clients)
        except TypeError:                           # labels are no classes
            counts = None
        with styled():
            fig = figure(3.5 * (len(panels) + (counts is not None)), 3.4)
            every = fig.subplots(1, len(panels) + (counts is not None), squeeze=False)[0]
            for axes, (name, title) in zip(every, panels.items()):
                _draw_curves(axes, {label: getattr(run, name) for label, run in runs.items()}, name == "drift")
                axes.set_title(title)
            if counts is not None:
                _draw_counts(every[-1], counts)
            fig.legend(*every[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return fig


def _labelled(runs: list[Federation]) -> dict[str, Federation]:
    """Return runs by the title of their method, numbered where it comes again."""
    labelled: dict[str, Federation] = {}
    for run in runs:
        title = TITLES[run.method]
        again = sum(label.partition(" #")[0] == title for label in labelled)
        labelled[f"{title} #{again + 1}" if again else title] = run
    return labelled


def _draw_curves(axes: Any, curves: dict[str, np.ndarray], first: int) -> None:
    """Draw curves over the rounds, the first value at round `first`, down to zero."""
    for (label, curve), look in zip(curves.items(), looks(curves).values()):
        axes.plot(np.arange(len(curve)) + first, curve, color=look.color, linestyle=look.linestyle, marker=look.marker,
                  markersize=4, markevery=max(1, len(curve) // 6), label=label)
    seen = np.concatenate([curve[np.isfinite(curve)] for curve in curves.values()])
    axes.set(xlabel="round", ylim=(0, 1.05 * seen.max(initial=1e-9)))
    axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_counts(axes: Any, counts: np.ndarray) -> None:
    """Draw how many samples of each class each client has, as areas of dots."""
    client, label = np.nonzero(counts)
    some = counts[client, label]
    axes.scatter(label, client, s=130 * some / counts.max(), color="#555555", linewidths=0)
    axes.set(xlabel="class", ylabel="client", xlim=(-0.7, counts.shape[1] - 0.3), ylim=(len(counts) - 0.3, -0.7),
             xticks=range(0, counts.shape[1], -(-counts.shape[1] // 10)),
             yticks=range(0, len(counts), -(-len(counts) // 10)))
    axes.set_title(f"samples, up to {counts.max()}")


def federated(model_fn: Callable[[], Module], clients: Sequence[Any], method: str = "fedavg", rounds: int = 10, *,
              local_steps: int | None = None, local_epochs: int | None = None, batch_size: int | None = 32,
              fraction: float = 1.0, lr: float = 0.1, server_lr: float | None = None, mu: float | None = None,
              loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy, test: Any = None, seed: int = 0,
              world: Communicator | None = None) -> Federation:
    """Train one model on the data of many clients, who send parameters and never data.

    In each round some clients take the parameters of the server and train by plain SGD on their own data; the server
    makes new parameters of where they arrive. One client that takes one step a round is SGD.

    Parameters
    ----------
    model_fn : callable
        Makes the model; called once on each rank. Parameters of one dtype, no buffers.
    clients : sequence of Dataset
        What each client has, as `split_by_class` and `split_dirichlet` return it; samples are (input, label).
    method : {"fedavg", "fedprox", "scaffold", "fedadam"}
    rounds : int, default 10
    local_steps, local_epochs : int, optional
        How many batches a client trains on in a round, or how often on all of its data; one epoch by default.
    batch_size : int, optional
        Of a client's batches, drawn anew in each round; None for all of its data at once.
    fraction : float, default 1
        The share of the clients that take part in a round, in (0, 1]; one at least.
    lr : float, default 0.1
        Learning rate of the clients, above 0.
    server_lr : float, optional
        Of the way to the clients' average, how much the server goes; 1 by default. For fedadam the learning rate of
        Adam, 0.01 by default.
    mu : float, optional
        How strongly fedprox holds its clients back, at least 0; 0.01 by default.
    loss : callable, default cross_entropy
        `loss(prediction, label)`, a mean over the rows.
    test : Dataset, optional
        What loss and accuracy of the server's model are measured on; by default the data of all clients.
    seed : int, default 0
        Of the initial parameters, of who takes part, and of the batches.
    world : Communicator, optional
        Over whose ranks the clients are spread; by default that of this rank. The result is the same, to the bit, on
        any number of them.

    Returns
    -------
    Federation
        The model and its history, the same on all ranks.

    Raises
    ------
    TypeError, ValueError
        When an argument is out of range, there is no such method, or the model has buffers.

    References
    ----------
    FedAvg: McMahan et al., 2017, arXiv 1602.05629. FedProx: Li et al., 2020, arXiv 1812.06127. SCAFFOLD: Karimireddy et
    al., 2020, arXiv 1910.06378. FedAdam: Reddi et al., 2021, arXiv 2003.00295.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> train, test = tg.data.digits()
    >>> clients = tg.distributed.split_by_class(train, clients=5, classes_each=2)
    >>> result = tg.distributed.federated(lambda: tg.nn.Linear(64, 10), clients, "scaffold", rounds=8, test=test)
    >>> bool(result.accuracy[-1] > 0.7), int(result.bytes[-1]) == 8 * 5 * 2 * 2 * 650 * 4
    (True, True)
    """
    world = this_world() if world is None else world
    method = find(method, METHODS, "federated method", "tg.distributed.federated")
    _check(clients, method, rounds, local_steps, local_epochs, fraction, lr, server_lr, mu)
    with _chance(seed, TRAINING):
        model = model_fn()
    parameters = _parameters(model, world)
    sizes = [len(client) for client in clients]
    server = METHODS[method](_flat(parameters), sizes, lr, server_lr, 0.01 if mu is None else mu)
    plan = _Plan(local_steps, local_epochs or 1, batch_size, loss, seed)
    shown = clients if test is None else [test]
    measured, drift, sent = [_evaluate(model, parameters, server.w, shown, loss, world)], [], []
    chosen = [_choose(len(clients), fraction, seed, turn) for turn in range(rounds)]
    for turn, present in enumerate(chosen):
        reports = []
        mine = {client: plan.train(model, parameters, server, client, clients[client], turn)
                for client in present[world.rank::world.size]}
        for place, client in enumerate(present):
            room = mine.get(client, [server.w] * server.vectors)
            reports.append([world.broadcast(vector, place % world.size) for vector in room])
        drift.append(_drift(server.mean(present, reports), reports))
        server.update(present, reports)
        sent.append(2 * len(present) * server.vectors * server.w.nbytes)
        measured.append(_evaluate(model, parameters, server.w, shown, loss, world))
    losses, accuracies = np.array(measured).T
    result = Federation(method, model, clients, losses, accuracies, np.array(drift), np.cumsum(sent), chosen)
    if method == "scaffold":
        result.control = to_numpy(server.control)
        result.controls = np.stack([to_numpy(server.controls[client]) for client in range(len(clients))])
    return result


@dataclass
class _Plan:
    """How a client trains in a round."""

    steps: int | None
    epochs: int
    batch_size: int | None
    loss: Callable
    seed: int

    def train(self, model: Module, parameters: list[Tensor], server: FedAvg, client: int, dataset: Any,
              turn: int) -> list[Any]:
        """Train from the parameters of the server, and return what the client reports."""
        _put(parameters, server.w)

        def correct(named: list, t: int) -> None:
            added = server.correction(client, _flat(parameters))
            if added is not None:
                for p, part in zip(parameters, _parts(parameters, added)):
                    if p._grad is not None:
                        p._grad._data += part
        optimizer, count = SGD(parameters, lr=server.lr, grad_transforms=[correct]), 0
        model.train()
        with _chance(self.seed, TRAINING, turn, client):
            for x, y in self._batches(dataset):
                model.zero_grad()
                self.loss(model(x), y).backward()
                optimizer.step()
                count += 1
        return server.report(client, _flat(parameters), count)

    def _batches(self, dataset: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of a client in a round, in an order from the default generator."""
        loader = DataLoader(dataset, self.batch_size or len(dataset), shuffle=self.batch_size is not None)
        count = self.epochs * len(loader) if self.steps is None else self.steps
        return islice(chain.from_iterable(repeat(loader)), count)


def _check(clients: Any, method: str, rounds: int, local_steps: Any, local_epochs: Any, fraction: float, lr: float,
           server_lr: Any, mu: Any) -> None:
    """Raise unless every argument is in its range and has an effect."""
    if not isinstance(clients, Sequence) or not clients or not all(hasattr(c, "__len__") and len(c) for c in clients):
        raise ValueError("clients must be a list of datasets, one at least and none of them empty, such as "
                         "split_by_class returns")
    if local_steps is not None and local_epochs is not None:
        raise ValueError("local_steps or local_epochs says how long a client trains in a round, give one of them")
    for name, value in (("rounds", rounds), ("local_steps", local_steps), ("local_epochs", local_epochs)):
        if value is not None:
            whole(name, value)
    check("federated", "fraction", fraction, Range("(0, 1]"))
    check("federated", "lr", lr, POSITIVE)
    if server_lr is not None:
        check("federated", "server_lr", server_lr, POSITIVE)
    if mu is not None:
        check("federated", "mu", mu, Range("[0, inf)"))
        if method != "fedprox":
            raise ValueError(f"mu is an option of fedprox alone, it has no effect on {method}")


def _parameters(model: Module, world: Communicator) -> list[Tensor]:
    """Return the parameters of a model, the same on all ranks."""
    if not isinstance(model, Module):
        raise TypeError(f"model_fn must return a Module, it returned {type(model).__name__}")
    if buffers := [name for name, _ in model.named_buffers()]:
        raise ValueError(f"the model has buffers, {', '.join(buffers)}, which are no parameters and have no average "
                         "that means something; use LayerNorm in the place of BatchNorm1d")
    named = list(model.named_parameters())
    if len({p.dtype for _, p in named}) != 1:
        raise ValueError("the model must have parameters, all of one dtype, got "
                         f"{', '.join(sorted({str(p.dtype) for _, p in named})) or 'none'}")
    share_tensors(world, named)
    return [p for _, p in named]


def _choose(count: int, fraction: float, seed: int, turn: int) -> tuple[int, ...]:
    """Return which clients take part in a round."""
    drawn = Generator([seed, CHOICE, turn]).permutation(count)[:max(1, round(fraction * count))]
    return tuple(sorted(drawn.tolist()))


@contextmanager
def _chance(*seed: int) -> Iterator[None]:
    """Let what draws from the default generator, as loaders and Dropout do, draw the same on whichever rank it runs."""
    generator = default_generator()
    before = generator.get_state()
    generator.manual_seed(list(seed))
    try:
        yield
    finally:
        generator.set_state(before)


def _flat(parameters: list[Tensor]) -> Any:
    return xp.concatenate([p._data.reshape(-1) for p in parameters])


def _parts(parameters: list[Tensor], flat: Any) -> list[Any]:
    """Return what belongs to each parameter in a flat array, in its shape."""
    ends = np.cumsum([p._data.size for p in parameters]).tolist()
    return [flat[end - p._data.size:end].reshape(p.shape) for p, end in zip(parameters, ends)]


def _put(parameters: list[Tensor], flat: Any) -> None:
    for p, part in zip(parameters, _parts(parameters, flat)):
        p.data = part


def _drift(mean: Any, reports: list[list[Any]]) -> float:
    squares = [float(((x - mean) ** 2).sum()) for x, *_ in reports]
    return float(np.sqrt(np.mean(squares)))


def _evaluate(model: Module, parameters: list[Tensor], w: Any, datasets: Sequence[Any], loss: Callable,
              world: Communicator) -> tuple[float, float]:
    """Give the model the parameters w and return loss and accuracy, added up in the same order on any ranks."""
    _put(parameters, w)
    model.eval()
    mine = {k: _sums(model, datasets[k], loss) for k in range(world.rank, len(datasets), world.size)}
    gathered = {k: sums for part in world.gather_objects(mine) for k, sums in part.items()}
    total, right, rows = np.sum([gathered[k] for k in range(len(datasets))], axis=0)
    return total / rows, right / rows


def _sums(model: Module, dataset: Any, loss: Callable) -> tuple[float, float, int]:
    """Return the sum of the losses, how many predictions are right, and how many rows there are."""
    total, right = 0.0, 0.0
    with no_grad():
        for x, y in batches(dataset, np.arange(len(dataset)), ROWS):
            prediction = model(x)
            total += float(loss(prediction, y)) * len(y)
            classes = y.dtype.kind in "iu" and prediction.ndim == 2
            right += float((prediction.data.argmax(axis=1) == y.data).sum()) if classes else float("nan")
    return total, right, len(dataset)
