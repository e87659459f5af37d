"""Federated methods: what a client adds to its gradients, what it reports, and what the server makes of the reports.

Parameters travel as one flat array. FedAvg is the base; each other method differs from it in what its paper changes.
"""

from __future__ import annotations

from typing import Any

from ..backend import xp
from ..optim import Adam
from ..tensor import Tensor


class FedAvg:
    """Average what clients arrive at, weighted by their sizes (McMahan et al., 2017, arXiv 1602.05629).

    Attributes
    ----------
    server_lr : float
        Of the whole way from the old parameters to the average, how much is gone.
    vectors : int
        How many arrays of the size of the model travel in each direction.
    """

    server_lr = 1.0
    vectors = 1

    def __init__(self, start: Any, sizes: list[int], lr: float, server_lr: float | None, mu: float) -> None:
        self.w, self.lr, self.mu = start, lr, mu
        self.sizes, self.total = sizes, sum(sizes)
        self.server_lr = type(self).server_lr if server_lr is None else server_lr
        self.begin()

    def begin(self) -> None:
        """Make what the method keeps from round to round."""

    def correction(self, client: int, x: Any) -> Any:
        """Return what a client at x adds to its gradient, or None."""
        return None

    def report(self, client: int, x: Any, steps: int) -> list[Any]:
        """Return what a client sends after so many local steps to x."""
        return [x]

    def update(self, clients: list[int], reports: list[list[Any]]) -> None:
        """Move the parameters of the server by the reports of the clients of this round."""
        mean = self.mean(clients, reports)
        self.w = mean + (1 - self.server_lr) * (self.w - mean)          # with a rate of 1, the mean to the bit

    def mean(self, clients: list[int], reports: list[list[Any]]) -> Any:
        """Return the average of what the clients arrived at, added up in the order of the clients."""
        present = sum(self.sizes[client] for client in clients)
        mean = xp.zeros_like(self.w)
        for client, (x, *_) in zip(clients, reports):
            mean = mean + x * (self.sizes[client] / present)
        return mean


class FedProx(FedAvg):
    """FedAvg whose clients are held back by (mu / 2) |x - w|^2 (Li et al., 2020, arXiv 1812.06127)."""

    def correction(self, client: int, x: Any) -> Any:
        """Return the gradient of the proximal term."""
        return self.mu * (x - self.w)


class FedAdam(FedAvg):
    """FedAvg whose average is a gradient for Adam (Reddi et al., 2021, arXiv 2003.00295).

    The pseudo-gradient is the way back from the average to the old parameters. Adam is the library's, with the
    paper's beta2 = 0.99 and tau = 1e-3 as eps; its correction of the bias, which the paper leaves out, is in.
    """

    server_lr = 0.01

    def begin(self) -> None:
        """Make the optimizer of the server."""
        self.parameters = Tensor(self.w, requires_grad=True)
        self.optimizer = Adam([self.parameters], lr=self.server_lr, betas=(0.9, 0.99), eps=1e-3)

    def update(self, clients: list[int], reports: list[list[Any]]) -> None:
        """Step along the way to the average."""
        self.parameters.grad = self.w - self.mean(clients, reports)
        self.optimizer.step()
        self.w = self.parameters.data.copy()


class Scaffold(FedAvg):
    """FedAvg whose clients correct their drift by control variates (Karimireddy et al., 2020, arXiv 1910.06378).

    A client adds control - controls[client] to its gradients: where all clients go on average, less where it goes by
    itself. Its new control is the mean gradient along its way (option II of the paper). The control of the server is
    the mean of the clients', by the shares of the data that they have; with equal shares it is the paper's.
    """

    vectors = 2

    def begin(self) -> None:
        """Make the controls, all zero."""
        self.control = xp.zeros_like(self.w)
        self.controls = {client: xp.zeros_like(self.w) for client in range(len(self.sizes))}

    def correction(self, client: int, x: Any) -> Any:
        """Return the control of the server less that of the client."""
        return self.control - self.controls[client]

    def report(self, client: int, x: Any, steps: int) -> list[Any]:
        """Return where the client arrived, and by how much its control changes."""
        return [x, (self.w - x) / (steps * self.lr) - self.control]

    def update(self, clients: list[int], reports: list[list[Any]]) -> None:
        """Average parameters and controls."""
        super().update(clients, reports)
        for client, (_, change) in zip(clients, reports):
            self.controls[client] = self.controls[client] + change
            self.control = self.control + change * (self.sizes[client] / self.total)


METHODS = {"fedavg": FedAvg, "fedprox": FedProx, "scaffold": Scaffold, "fedadam": FedAdam}
