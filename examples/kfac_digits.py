"""K-FAC against the best Adam of a grid, on the digits: a classifier, and a deep autoencoder.

Both take the same batches, all training images at once, from the same initial weights. Counted are the steps until the
loss on them is first at or below a goal, and the seconds of those steps; the median of three seeds. Adam's rate and
betas are the best of the grid by the median of steps. A setting is given up as soon as it is behind the best.

    python examples/kfac_digits.py --out kfac.png
"""

import argparse
import statistics
import time

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.optim.second_order.kfac import KFAC

SEEDS = 3, 4, 5                     # K-FAC's default options were chosen on these two tasks, with seeds 0 to 2
GRID = [(lr, betas) for lr in (0.01, 0.03, 0.003, 0.1, 0.001) for betas in ((0.9, 0.999), (0.9, 0.99), (0.95, 0.999))]
LIMIT = 1500                        # steps after which a run is given up
IMAGES, LABELS = tg.data.digits()[0].tensors


def classifier(generator):
    sizes = 64, 128, 64, 10
    return network(sizes, nn.ReLU, generator, lambda layer: None)


def autoencoder(generator):
    sizes = 64, 100, 50, 25, 6, 25, 50, 100, 64
    return network(sizes, nn.Tanh, generator, lambda layer: nn.init.xavier_uniform_(layer.weight, generator=generator))


def network(sizes, activation, generator, prepare):
    modules = []
    for before, after in zip(sizes, sizes[1:]):
        layer = nn.Linear(before, after, generator=generator)
        prepare(layer)
        modules += [layer, activation()]
    return nn.Sequential(*modules[:-1])


TASKS = {
    "classifier 64-128-64-10": (classifier, "softmax", lambda model: tg.cross_entropy(model(IMAGES), LABELS), 1e-4),
    "autoencoder 64-100-50-25-6-..": (autoencoder, "squared", lambda model: tg.mse_loss(model(IMAGES), IMAGES), 0.012),
}


def train(task, seed, start, limit):
    """Train until the goal; return the losses and the seconds after each step."""
    make, likelihood, loss_of, goal = TASKS[task]
    model = make(tg.Generator(seed))
    tg.manual_seed(seed)
    step = start(model, likelihood, lambda: loss_of(model))
    losses, seconds, begin = [], [], time.perf_counter()
    while len(losses) < limit and (not losses or losses[-1] > goal):
        losses.append(step().item())
        seconds.append(time.perf_counter() - begin)
    return losses, seconds


def adam(lr, betas):
    def start(model, likelihood, closure):
        optimizer = tg.optim.Adam(model.parameters(), lr=lr, betas=betas)

        def backward():
            optimizer.zero_grad()
            loss = closure()
            loss.backward()
            return loss
        return lambda: optimizer.step(backward)
    return start


def kfac(model, likelihood, closure):
    optimizer = KFAC(model, likelihood=likelihood)
    return lambda: optimizer.step(closure)


def race(task, start, limit):
    """Return the runs of all seeds and their median steps, or None when more than half miss the limit."""
    goal, runs = TASKS[task][-1], []
    for seed in SEEDS:
        runs.append(train(task, seed, start, limit))
        if 2 * sum(losses[-1] > goal for losses, _ in runs) > len(SEEDS):
            return None
    return runs, statistics.median(len(losses) if losses[-1] <= goal else LIMIT for losses, _ in runs)


def best_adam(task):
    """Return the fastest setting of the grid, and its runs."""
    best, limit = None, LIMIT
    for lr, betas in GRID:
        found = race(task, adam(lr, betas), limit)
        if found is not None and (best is None or found[1] < best[1][1]):
            best, limit = ((lr, betas), found), int(found[1])
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="kfac_digits.png", help="where the picture goes")
    options = parser.parse_args()
    train(next(iter(TASKS)), 0, kfac, 3)            # compiles the kernels
    print(f"{len(IMAGES)} images a step, median of {len(SEEDS)} seeds, Adam the best of {len(GRID)} lr and betas")
    print(f"{'':32}{'goal':>8}  {'':28}{'steps':>8}{'seconds':>10}")
    results = {}
    for task, (*_, goal) in TASKS.items():
        (lr, betas), _ = best_adam(task)
        contestants = {f"Adam lr={lr}, betas={betas}": adam(lr, betas), "KFAC, its defaults": kfac}
        results[task] = {name: race(task, start, LIMIT) for name, start in contestants.items()}
        for k, (name, (runs, steps)) in enumerate(results[task].items()):
            seconds = statistics.median(times[-1] for _, times in runs)
            head = " " * 40 if k else f"{task:32}{goal:>8}"
            print(f"{head}  {name:28}{steps:8.0f}{seconds:10.2f}", flush=True)
    draw(results, options.out)


def draw(results, path):
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(len(results), 2, figsize=(10, 3.6 * len(results)), layout="constrained", sharey="row")
    for row, (task, contestants) in zip(rows, results.items()):
        for colour, (name, (runs, _)) in zip(("tab:gray", "tab:red"), contestants.items()):
            for k, (losses, seconds) in enumerate(runs):
                label = None if k else name
                row[0].semilogy(range(1, len(losses) + 1), losses, color=colour, label=label, lw=1.2)
                row[1].semilogy(seconds, losses, color=colour, label=label, lw=1.2)
        for axes, words in zip(row, ("steps", "seconds")):
            axes.axhline(TASKS[task][-1], color="black", lw=0.8, ls=":")
            axes.set_xlabel(words)
        row[0].set_ylabel("training loss")
        row[0].set_title(task, loc="left")
        row[1].legend(frameon=False)
    figure.savefig(path, dpi=120)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
