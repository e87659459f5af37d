"""optimizer.step() against PyTorch's best variant and against the speed of memory.

- torch    the fastest of its for-loop, foreach and fused variants, measured for each row
- memory   a multi-threaded Numba loop that reads and writes the same arrays and computes next to nothing

Float32; gradients are in place before the clock starts. Without names on the command line, the optimizers that
most people use; `all` for every elementwise one, those that PyTorch lacks against memory alone.

    python examples/bench_optim.py [--quick] [all | NAME ...]
"""

import functools
import inspect
import itertools
import math
import statistics

import _peers

USUAL = ["SGD", "Adam", "AdamW", "RMSprop"]
OPTIONS = {"SGD": {"lr": 1e-3, "momentum": 0.9}, "AdamW": {"lr": 1e-3, "weight_decay": 1e-2},
           "QHM": {"lr": 1e-3, "momentum": 0.9, "nu": 0.7}}
SIZES = [(1_000, 4), (10_000, 10), (100_000, 1_000), (1_000_000, 10), (10_000_000, 20)]  # elements, tensors
LARGEST = len(SIZES) - 1


@functools.cache
def arrays(elements, tensors):
    """Parameters and their gradients, the same for every peer; to be copied, never written into."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((2, tensors, elements // tensors), dtype="f4")


def ours(name, elements, tensors):
    import tinygrad_opt as tg

    values, slopes = arrays(elements, tensors)
    params = [tg.Tensor(value, requires_grad=True) for value in values]
    for p, slope in zip(params, slopes):
        p.grad = tg.Tensor(slope)
    return optimizer(name, params).step, lambda: params[0][:3].tolist()


def optimizer(name, params):
    import tinygrad_opt as tg

    made = getattr(tg.optim, name)(params, **OPTIONS.get(name, {"lr": 1e-3}))
    if hasattr(made, "train"):
        made.train()
    return made


def elementwise():
    """Names of the optimizers whose rule looks at one element at a time."""
    import tinygrad_opt as tg

    w = tg.ones(2, 2, requires_grad=True)
    rules = {name: optimizer(name, [w])._rule(0) for name in tg.optim.OPTIMIZERS if name != "PolyakSGD"}
    return [name for name, rule in rules.items() if not rule.matrix and not rule.reductions]


def torch_variant(name, elements, tensors, **variant):
    import torch

    values, slopes = map(torch.tensor, arrays(elements, tensors))
    params = [torch.nn.Parameter(value.clone()) for value in values]
    for p, slope in zip(params, slopes):
        p.grad = slope.clone()
    options = OPTIONS.get(name, {"lr": 1e-3})
    return getattr(torch.optim, name)(params, **options, **variant).step, lambda: params[0][:3].tolist()


def best_torch(name, elements, tensors):
    import torch

    variants = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}}
    if "fused" in inspect.signature(getattr(torch.optim, name)).parameters:
        variants["fused"] = {"fused": True}
    steps = {label: torch_variant(name, elements, tensors, **variant)[0] for label, variant in variants.items()}
    times = {label: min(_peers.burst(step, 0.01) for _ in range(3)) for label, step in steps.items()}
    best = min(times, key=times.get)
    return *torch_variant(name, elements, tensors, **variants[best]), best


def memory(name, elements, tensors):
    """The traffic of one step: gradient in, parameter and states in and out."""
    import numba
    import numpy as np

    import tinygrad_opt as tg

    count = len(optimizer(name, [tg.ones(1, requires_grad=True)])._rule(0).states)
    states = [f"s{k}" for k in range(count)]
    lines = "".join(f"        {s}[i] = g[i] - {s}[i]\n" for s in states)
    space = {"numba": numba}
    exec(f"def step({', '.join(['p', 'g', *states])}):\n    for i in numba.prange(p.size):\n{lines}"
         f"        p[i] += {' - '.join(f'{s}[i]' for s in states) or 'g[i]'}\n", space)
    p, g = arrays(elements, tensors).reshape(2, -1).copy()
    kernel = numba.njit(parallel=True, fastmath=True)(space["step"])
    return functools.partial(kernel, p, g, *(np.zeros_like(p) for _ in states)), None


PEERS = {"tinygrad_opt": ours, "torch": best_torch, "memory": memory}
REQUIREMENTS = {"tinygrad_opt": ["tinygrad_opt"], "torch": ["torch"], "memory": ["tinygrad_opt", "numba"]}


def in_torch(name):
    import torch

    return hasattr(torch.optim, name)


@functools.lru_cache(maxsize=1)
def prepared(peer, optimizer, size):
    return PEERS[peer](optimizer, *SIZES[size])


def answer(peer, optimizer, size, seconds=None):
    """In a peer's process: without `seconds` prepare the optimizer, with them time a burst."""
    if peer == "torch" and not in_torch(optimizer):
        return None
    step, parameters, *variant = prepared(peer, optimizer, size)
    if seconds is not None:
        return _peers.burst(step, seconds)
    for _ in range(3):
        step()
    return {"parameters": parameters and parameters(), "variant": variant}


def measure(peers, optimizer, size, rounds, seconds):
    """Microseconds by peer, and torch's best variant."""
    asked = [peer for peer in peers if peer.name != "memory" or size == LARGEST]
    answers = _peers.ask_all(asked, optimizer=optimizer, size=size)
    asked = [peer for peer in asked if answers[peer.name]]
    answers = {name: result for name, result in answers.items() if result}
    results = [result["parameters"] for result in answers.values() if result["parameters"]]
    for values in zip(*results):
        if not all(math.isclose(value, values[0], rel_tol=1e-4) for value in values):
            raise SystemExit(f"{optimizer}: ours and torch's parameters differ after 3 steps: {results}")
    times = _peers.ask_in_turn(asked, rounds, optimizer=optimizer, size=size, seconds=seconds)
    return times, "".join(answers["torch"]["variant"]) if "torch" in answers else ""


def main(quick, optimizers):
    optimizers = elementwise() if optimizers == ["all"] else optimizers or USUAL[:2 if quick else None]
    rounds, seconds = (1, 0.04) if quick else (7, 0.2)
    print(__doc__)
    names = _peers.installed(REQUIREMENTS)
    print(f"Microseconds a step, {_peers.THREADS} threads a peer\n\n{'optimizer':10}{'elements':>12}{'tensors':>9}"
          + "".join(f"{name:>14}" for name in names) + "  torch variant  ours/torch")
    ratios, shares = {}, {}
    with _peers.running(names) as peers:
        for name, (size, (elements, tensors)) in itertools.product(optimizers, enumerate(SIZES)):
            times, variant = measure(peers, name, size, rounds, seconds)
            row = f"{name:10}{elements:12,}{tensors:9,}"
            row += "".join(f"{times[peer]:14,.1f}" if peer in times else " " * 14 for peer in names)
            if {"tinygrad_opt", "torch"} <= times.keys():
                ratios[name, elements] = times["tinygrad_opt"] / times["torch"]
                row += f"  {variant:13}{ratios[name, elements]:12.2f}"
            if {"tinygrad_opt", "memory"} <= times.keys():
                shares[name] = times["memory"] / times["tinygrad_opt"]
            print(row, flush=True)
    print()
    if ratios:
        worst = max(ratios, key=ratios.get)
        print("ours/torch, geometric mean   ", _peers.verdict(statistics.geometric_mean(ratios.values()), 0.5))
        print("ours/torch, worst row        ", _peers.verdict(ratios[worst], 1.1), f"{worst[0]}, {worst[1]:,} elements")
    for name, share in shares.items():
        print(f"memory/ours, {name:17}", _peers.verdict(share, 0.85, at_least=True),
              "Nothing outruns memory: disturbed, run it again." if share > 1.1 else "")


if __name__ == "__main__":
    _peers.start(main, answer, names="optimizers, or all")
