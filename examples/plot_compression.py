"""
Fewer bytes
===========

Four ranks train a network on the digits, each with a quarter of every batch, and average their gradients. Sent whole,
these are 4 bytes for each parameter and step. Here three ways of sending less do with about a thirteenth of that on the
wire: the largest numbers with their places, one bit for each number, or the strongest direction of each matrix.

What is not sent is not lost: each rank keeps it as its residual, and adds it to its next gradient.
"""

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.distributed import DataParallel, PowerSGD, ScaledSign, TopK, simulate

RANKS, STEPS, EVERY = 4, 100, 5
images, labels = tg.data.digits()[0].tensors
methods = {"everything": None, "TopK": lambda: TopK(44.5 / 2410), "ScaledSign": ScaledSign, "PowerSGD": PowerSGD}


def wire_bytes(world):
    """Return what a rank has sent by rings: what is gathered goes round to all, what is added up is cut into parts."""
    weight = {"all_reduce": 2 * (world.size - 1) / world.size, "all_gather": world.size - 1}
    return sum(weight.get(verb, 0) * account.bytes for verb, account in world.accounts.items())


def train(world, make, feedback=True):
    model = nn.Sequential(nn.Linear(64, 32, generator=tg.Generator(0)), nn.ReLU(),
                          nn.Linear(32, 10, generator=tg.Generator(1)))
    compression = make() if make else None
    parallel = DataParallel(model, compression=compression)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.3)
    order, curve = np.random.default_rng(0), []
    for step in range(1, STEPS + 1):
        mine = order.permutation(len(images))[:128][world.rank::world.size]
        optimizer.zero_grad()
        tg.cross_entropy(parallel(images[mine]), labels[mine]).backward()
        optimizer.step()
        if compression is not None and not feedback:
            compression.residuals.clear()
        if world.rank == 0 and step % EVERY == 0:
            with tg.no_grad():
                curve.append((wire_bytes(world) / 1000, tg.cross_entropy(model(images), labels).item()))
    return np.array(curve).T


runs = {name: simulate(RANKS, train, make)[0] for name, make in methods.items()}
for name, (sent, loss) in runs.items():
    print(f"{name:<10}  {1000 * sent[-1] / STEPS:6.0f} bytes a step and rank, loss {loss[-1]:.3f} after {STEPS} steps")

# %%
# Over the bytes that a rank has sent, the compressed curves lie together, far left of the whole gradient. After equally
# many steps, at their right ends, all have come to about the same loss.

figure = tg.lab.draw_curves({name: (sent, loss) for name, (sent, loss) in runs.items()}, "what bytes buy",
                            xscale="log", xlabel="kilobytes sent by a rank", ylabel="loss")

# %%
# It is the residual that makes this work. Thrown away after each step, the same bytes buy much less.

steps = range(EVERY, STEPS + 1, EVERY)
thrown = {name: simulate(RANKS, train, make, False)[0] for name, make in methods.items() if make}
figure = tg.lab.draw_curves({name: (steps, runs[name][1]) for name in thrown}
                            | {f"{name}, thrown away": (steps, loss) for name, (_, loss) in thrown.items()},
                            "with residuals and without", ylabel="loss")
