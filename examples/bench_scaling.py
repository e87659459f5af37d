"""Data parallelism on 1, 2 and 4 ranks, measured, and what a model of it foretells for up to 1,024.

Every rank has a batch of its own, always of the same size, so with n ranks a step takes n times the samples (weak
scaling). The efficiency is the time of a step on one rank divided by that on n.

The model has two numbers, fitted to all-reduces of several sizes on as many ranks as there are cores:

    alpha   seconds for a message, however short       (latency)
    beta    seconds for a byte                         (1 / bandwidth)

A ring all-reduce of N bytes on n ranks is 2 (n - 1) messages of N / n bytes one after the other:

    T(n, N) = 2 (n - 1) alpha + 2 (n - 1) / n * N * beta

A step computes for C seconds, of which the backward pass is about two thirds. Of float32 gradients of P parameters,
N = 4 P, all is waited for, or what the backward pass does not hide:

    efficiency = C / (C + T)        or, at best,        C / (C + max(0, T - 2/3 C))

C is what a parameter and a sample cost on the larger model here, times P and the batch.

"hidden" is the share of the time from the beginning of an all-reduce to its end in which the rank computed. Without
a thread of its own MPI moves most of the bytes only when it is called again, so less than that is won.

What this is worth: the ranks are processes on one machine, so alpha and beta are those of its memory, not of a
network; more ranks than cores share cores, which says nothing of more machines; a ring of 1,024 is slow for short
messages, where MPI and NCCL take trees. Give --alpha and --beta of a network to see that one.

    python examples/bench_scaling.py
    python examples/bench_scaling.py --alpha 2e-6 --beta 4e-11 --batch 512       # 200 Gbit/s
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

MODELS = {"small": (64, 32, 10), "larger": (784, 512, 512, 10)}
BATCH = 64
RANKS = (1, 2, 4)
LENGTHS = [1 << k for k in range(8, 21, 2)]             # float32 numbers in an all-reduce
PROJECTED = (2, 4, 8, 16, 64, 256, 1024)
PARAMETERS = (10 ** 5, 10 ** 6, 10 ** 7, 10 ** 8, 10 ** 9)
BACKWARD = 2 / 3


# ---- the model --------------------------------------------------------------------------------------------


def all_reduce_seconds(ranks, size, alpha, beta):
    """Return what a ring all-reduce of `size` bytes takes."""
    return 2 * (ranks - 1) * alpha + 2 * (ranks - 1) / ranks * size * beta


def fit(ranks, sizes, seconds):
    """Return alpha and beta that fit best, by relative error, neither below 0."""
    import numpy as np
    columns = np.array([[all_reduce_seconds(ranks, size, 1, 0), all_reduce_seconds(ranks, size, 0, 1)]
                        for size in sizes]) / np.array(seconds)[:, None]
    alpha, beta = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)[0]
    return max(float(alpha), 0.0), max(float(beta), 0.0)


def efficiency(ranks, parameters, compute, alpha, beta, hidden=0.0):
    """Return the share of a step that is computing, when `hidden` seconds of waiting are computed away."""
    wait = max(0.0, all_reduce_seconds(ranks, 4 * parameters, alpha, beta) - hidden)
    return compute / (compute + wait)


# ---- measuring: what each rank runs -----------------------------------------------------------------------


def measure(seconds):
    """Measure on this rank together with the others; print what rank 0 has found."""
    import tinygrad_opt as tg
    world = tg.distributed.world()
    found = {name: steps(tg, world, sizes, seconds) for name, sizes in MODELS.items()}
    found["all_reduce"] = [collectives(tg, world, length, seconds / 10) for length in LENGTHS]
    if world.rank == 0:
        print(json.dumps(found))


def steps(tg, world, sizes, seconds):
    """Return the seconds of a step, and which share of the sending was hidden behind it."""
    tg.manual_seed(world.rank)
    layers = [layer for i, o in zip(sizes, sizes[1:]) for layer in (tg.nn.Linear(i, o), tg.nn.ReLU())]
    model = tg.distributed.DataParallel(tg.nn.Sequential(*layers[:-1]), world)
    optimizer = tg.optim.Adam(model.parameters())
    x, y = tg.randn(BATCH, sizes[0]), tg.tensor([k % sizes[-1] for k in range(BATCH)])

    def step():
        optimizer.zero_grad()
        tg.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    for _ in range(10):
        step()
    world.accounts.clear()
    times = repeat(world, step, seconds)
    account = world.accounts["all_reduce"] if world.size > 1 else None
    return {"seconds": statistics.median(times), "hidden": account.hidden if account else None,
            "parameters": sum(p.numel() for p in model.parameters())}


def collectives(tg, world, length, seconds):
    """Return the seconds of an all-reduce of so many float32 numbers."""
    x = tg.ones(length)
    return statistics.median(repeat(world, lambda: world.all_reduce(x), seconds))


def repeat(world, call, seconds):
    """Return the seconds of each of several calls, as many on each rank, for about `seconds` in all."""
    start = time.perf_counter()
    for _ in range(3):
        call()
    once = (time.perf_counter() - start) / 3
    count = max(world.gather_objects(max(5, min(2000, int(seconds / once)))))
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


# ---- the report ------------------------------------------------------------------------------------------


def run_ranks(ranks, seconds):
    """Return what `measure` finds on so many ranks."""
    from tinygrad_opt.distributed.launch import find_mpiexec, rank_environment
    if find_mpiexec() is None:
        raise SystemExit("no MPI here to start ranks with: pip install 'tinygrad-opt[mpi]'")
    command = [find_mpiexec(), "-n", str(ranks), sys.executable, "-m", "mpi4py", __file__, "--rank", str(seconds)]
    done = subprocess.run(command, env=rank_environment(), text=True, stdout=subprocess.PIPE, timeout=300)
    if done.returncode:
        raise SystemExit(f"{ranks} ranks have failed; their message is above")
    return json.loads(done.stdout.splitlines()[-1])


def report_steps(found, cores):
    print(f"{BATCH} samples on each rank, {cores} cores; a step is forward, backward, averaging and Adam\n")
    print("model    parameters  ranks  a step, ms  efficiency  hidden")
    for name in MODELS:
        for ranks, measured in found.items():
            own = measured[name]
            hidden = "" if own["hidden"] is None else f"{own['hidden']:7.0%}"
            note = f"   {ranks} ranks share {cores} cores" if ranks > cores else ""
            print(f"{name:<8} {own['parameters']:>10,}  {ranks:>5}  {1e3 * own['seconds']:>10.3f}  "
                  f"{found[1][name]['seconds'] / own['seconds']:>10.0%} {hidden}{note}")


def report_all_reduce(seconds, ranks, alpha, beta):
    print(f"\nall-reduce on {ranks} ranks: alpha = {1e6 * alpha:.2f} us a message, beta = {1e9 * beta:.3f} ns a byte "
          f"({1 / beta / 1e9 if beta else float('inf'):.1f} GB/s)\n")
    print("     bytes  measured, us  model, us")
    for length, measured in zip(LENGTHS, seconds):
        modelled = all_reduce_seconds(ranks, 4 * length, alpha, beta)
        print(f"{4 * length:>10,}  {1e6 * measured:>12.1f}  {1e6 * modelled:>9.1f}")


def report_projection(cost, batch, alpha, beta):
    print(f"\nprojected efficiency, nothing hidden / backward hides what it can; {batch} samples on each rank, "
          f"{1e9 * cost:.3f} ns for a parameter and sample\n")
    print("   parameters  compute, ms" + "".join(f"{f'{n} ranks':>14}" for n in PROJECTED))
    for parameters in PARAMETERS:
        compute = cost * parameters * batch
        pairs = [[efficiency(n, parameters, compute, alpha, beta, hidden) for hidden in (0.0, BACKWARD * compute)]
                 for n in PROJECTED]
        print(f"{parameters:>13,}  {1e3 * compute:>11.2f}" + "".join(f"{f'{a:.0%} / {b:.0%}':>14}" for a, b in pairs))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each model and number of ranks (1.5)")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"samples on each rank in the projection ({BATCH})")
    parser.add_argument("--alpha", type=float, help="seconds for a message in the projection, in place of the fit")
    parser.add_argument("--beta", type=float, help="seconds for a byte in the projection, in place of the fit")
    parser.add_argument("--rank", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        measure(options.rank)
        return
    cores = os.cpu_count() or 1
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5 * cores:
        print(f"this machine is busy, its load is {load:.1f} on {cores} cores: it could be faster than what follows\n")
    found = {ranks: run_ranks(ranks, options.seconds) for ranks in RANKS}
    report_steps(found, cores)
    ranks = max([n for n in RANKS if 1 < n <= cores], default=2)
    alpha, beta = fit(ranks, [4 * length for length in LENGTHS], found[ranks]["all_reduce"])
    report_all_reduce(found[ranks]["all_reduce"], ranks, alpha, beta)
    larger = found[1]["larger"]
    report_projection(larger["seconds"] / larger["parameters"] / BATCH, options.batch,
                      alpha if options.alpha is None else options.alpha,
                      beta if options.beta is None else options.beta)


if __name__ == "__main__":
    main()
