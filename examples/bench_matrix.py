"""The optimizers of matrices on one weight: optimizer.step() against PyTorch, or against published code in it.

- torch      Adafactor and Muon are torch.optim's; Shampoo and SOAP do what the published PyTorch code does
- torch*     the same at equal terms: Muon in float32 as ours, where torch rounds to bfloat16, for which some
             processors have instructions and NumPy has none; Shampoo by eigh as ours, where that code has svd

Float32; the gradient is in place before the clock starts.
"""

import functools
import math

import _peers

SIZE = 1_024
PERIODS = {"Adafactor": 1, "Muon": 1, "Shampoo": 1, "SOAP": 10}         # steps until their work repeats itself


@functools.cache
def arrays():
    """A weight and three gradients, the same for every peer; to be copied, never written into."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((4, SIZE, SIZE), dtype="f4")


def ours(name):
    import tinygrad_opt as tg

    value, *slopes = arrays()
    p = tg.Tensor(value, requires_grad=True)
    return p, getattr(tg.optim, name)([p]).step, [tg.Tensor(slope) for slope in slopes]


def in_torch(name):
    import torch

    value, *slopes = map(torch.tensor, arrays())
    p = torch.nn.Parameter(value)
    optimizer = {"Shampoo": Shampoo, "SOAP": SOAP}.get(name) or getattr(torch.optim, name)
    return p, torch.no_grad()(optimizer([p]).step), slopes


def in_torch_at_equal_terms(name):
    import torch

    Shampoo.decomposition = torch.linalg.eigh
    torch.Tensor.bfloat16 = torch.Tensor.clone
    return in_torch(name)


def by_svd(factor):
    import torch

    vectors, values, _ = torch.linalg.svd(factor)
    return values, vectors


class Shampoo:
    """The paper's first algorithm."""

    decomposition = by_svd

    def __init__(self, params, lr=1e-1, eps=1e-4):
        import torch

        self.p, self.lr = params[0], lr
        self.factors = [eps * torch.eye(n) for n in self.p.shape]

    def step(self):
        left, right = self.factors
        left.addmm_(self.p.grad, self.p.grad.T)
        right.addmm_(self.p.grad.T, self.p.grad)
        powers = []
        for factor in self.factors:
            values, vectors = type(self).decomposition(factor)
            powers.append(vectors * values.clamp(min=1e-4) ** -0.25 @ vectors.T)
        self.p.sub_(powers[0] @ self.p.grad @ powers[1], alpha=self.lr)


class SOAP:
    """The paper's algorithm 3 in the order of the authors' code: the mean gradient leaves its basis at every step."""

    def __init__(self, params, lr=3e-3, beta=0.95, eps=1e-8, weight_decay=0.01, precondition_frequency=10):
        import torch

        self.p, self.lr, self.beta, self.eps, self.weight_decay = params[0], lr, beta, eps, weight_decay
        self.every, self.t = precondition_frequency, 0
        self.mean, self.square = torch.zeros_like(self.p), torch.zeros_like(self.p)
        self.left, self.right = torch.zeros_like(self.p), torch.zeros_like(self.p)
        self.bases = None

    def step(self):
        import torch

        g = self.p.grad
        if self.bases is None:
            self.follow(g)
            self.bases = [torch.linalg.eigh(factor)[1].flip(1) for factor in (self.left, self.right)]
            return
        self.t += 1
        u, v = self.bases
        r = u.T @ g @ v
        self.mean.lerp_(r, 1 - self.beta)
        self.square.lerp_(r.square(), 1 - self.beta)
        rate = self.lr * (1 - self.beta ** self.t) ** 0.5 / (1 - self.beta ** self.t)
        self.p.sub_(u @ (self.mean / (self.square.sqrt() + self.eps)) @ v.T, alpha=rate)
        self.p.mul_(1 - self.lr * self.weight_decay)
        mean = u @ self.mean @ v.T
        self.follow(g)
        if self.t % self.every == 0:
            self.turn()
        u, v = self.bases
        self.mean = u.T @ mean @ v

    def follow(self, g):
        self.left.lerp_(g @ g.T, 1 - self.beta)
        self.right.lerp_(g.T @ g, 1 - self.beta)

    def turn(self):
        import torch

        for k, factor in enumerate((self.left, self.right)):
            order = torch.diag(self.bases[k].T @ factor @ self.bases[k]).argsort(descending=True)
            self.square = self.square.index_select(k, order)
            self.bases[k] = torch.linalg.qr(factor @ self.bases[k][:, order])[0]


PEERS = {"tinygrad_opt": ours, "torch": in_torch, "torch*": in_torch_at_equal_terms}
REQUIREMENTS = {"tinygrad_opt": ["tinygrad_opt"], "torch": ["torch"], "torch*": ["torch"]}
UNEQUAL = ("Muon", "Shampoo")


@functools.lru_cache(maxsize=1)
def prepared(peer, optimizer):
    return PEERS[peer](optimizer)


def answer(peer, optimizer, seconds=None):
    """In a peer's process: without `seconds` take three steps and tell how far they went, with them time a burst."""
    p, step, slopes = prepared(peer, optimizer)
    if seconds is not None:
        return _peers.burst(lambda: [step() for _ in range(PERIODS[optimizer])], seconds) / PERIODS[optimizer]
    for p.grad in slopes:
        step()
    return float(((p.detach().numpy() - arrays()[0]) ** 2).mean()) ** 0.5


def main(quick):
    rounds, seconds = (1, 0.2) if quick else (3, 1.0)
    print(__doc__)
    names = _peers.installed(REQUIREMENTS)
    print(f"Milliseconds a step on {SIZE:,} x {SIZE:,}, {_peers.THREADS} threads a peer\n\n{'optimizer':10}"
          + "".join(f"{name:>14}" for name in names))
    ratios = {}
    with _peers.running(names) as peers:
        for optimizer in PERIODS:
            asked = [peer for peer in peers if peer.name != "torch*" or optimizer in UNEQUAL]
            moved = _peers.ask_all(asked, optimizer=optimizer)
            if not all(math.isclose(value, moved[names[0]], rel_tol=0.01) for value in moved.values()):
                raise SystemExit(f"{optimizer}: the peers do not go equally far in 3 steps: {moved}")
            times = _peers.ask_in_turn(asked, rounds, optimizer=optimizer, seconds=seconds)
            print(f"{optimizer:10}" + "".join(f"{1e-3 * times[name]:14.2f}" for name in times), flush=True)
            ratios |= {(name, optimizer): times[names[0]] / times[name] for name in times if name != names[0]}
    print()
    for (name, optimizer), ratio in ratios.items():
        print(f"{names[0]}/{name}, {optimizer}".ljust(34), _peers.verdict(ratio, 1.0))


if __name__ == "__main__":
    _peers.start(main, answer)
