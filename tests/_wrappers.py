"""What the tests of the wrappers share: parameters by name, and how a wrapper is stepped."""

import numpy as np

from tinygrad_opt import optim
from tinygrad_opt.optim.sam import SAM


def adam(params, lr=0.05):
    return optim.Adam(params, lr=lr, weight_decay=0.1)


def named(params):
    return [(f"p{k}", p) for k, p in enumerate(params)]


def is_vector(name, p):
    return p.ndim == 1


def fill(params, random):
    for p in params:
        p.grad = np.asarray(random.standard_normal(p.shape)).astype(p.dtype)


def run(optimizer, params, steps=10, seed=1):
    random = np.random.default_rng(seed)
    for _ in range(steps):
        fill(params, random)
        if isinstance(optimizer, SAM):
            optimizer.first_step()
            fill(params, random)
            optimizer.second_step()
        else:
            optimizer.step()
    return [p.numpy().copy() for p in params]
