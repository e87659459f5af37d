"""MAML (Finn, Abbeel & Levine, ICML 2017, arXiv 1703.03400): weights from which one step learns a sine.

    python examples/maml_sinusoids.py --out maml_sinusoids.png

Every task is a sine of its own amplitude in [0.1, 5] and phase in [0, pi]; ten points of it are known. The loss that
is descended is that after a step of SGD on these ten, so its gradient goes through the step and holds second
derivatives. Beside it the same network is trained on all tasks jointly: it becomes the mean of all sines, from which
a step does not lead far. A batch of tasks is one network with a copy of the weights for each.
"""

import argparse

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.optim.differentiable import functional

TASKS, POINTS, HIDDEN, ROUNDS, RATE = 25, 10, 40, 12_000, 0.01

def sample(random, tasks=TASKS, points=POINTS):
    """Return the points of two sets for each task: what a step may see, and what it is judged by."""
    amplitude, phase = random.uniform(0.1, 5, (tasks, 1, 1)), random.uniform(0, np.pi, (tasks, 1, 1))
    x = random.uniform(-5, 5, (tasks, 2 * points, 1))
    y = amplitude * np.sin(x - phase)
    x, y = (tg.tensor(a.astype("float32")) for a in (x, y))
    return (x[:, :points], y[:, :points]), (x[:, points:], y[:, points:])


def network(seed):
    """Return the weights of a network, 1 - HIDDEN - HIDDEN - 1."""
    random, w = np.random.default_rng(seed), []
    for rows, columns in ((1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)):
        w += [random.standard_normal((rows, columns)) * (2 / rows) ** 0.5, np.zeros((1, columns))]
    return [tg.tensor(a.astype("float32"), requires_grad=True) for a in w]


def predict(w, x):
    h = tg.relu(x @ w[0] + w[1])
    h = tg.relu(h @ w[2] + w[3])
    return h @ w[4] + w[5]


def losses(w, x, y):
    """Return the mean square of each task."""
    return ((predict(w, x) - y) ** 2).mean(axis=(1, 2))


SGD = functional(tg.optim.SGD)


def adapted(w, x, y, rate=RATE, steps=1):
    """Return a copy of the weights for each task, after a step on its points."""
    w = [p.expand(len(x), *p.shape) for p in w]
    state = SGD.init(w)
    for _ in range(steps):
        w, state = SGD.update(tg.grad(losses(w, x, y).sum(), w, create_graph=True), state, w, lr=rate)
    return w


def trained(through_a_step, seed=0):
    """Return weights trained for what they are after a step, or jointly for what they are; and the losses."""
    w, random, curve = network(seed), np.random.default_rng(1), []
    teacher = tg.optim.Adam(w, lr=1e-3)
    for _ in range(ROUNDS):
        near, far = sample(random)
        loss = losses(adapted(w, *near) if through_a_step else w, *far).mean()
        teacher.zero_grad()
        loss.backward()
        teacher.step()
        curve.append(loss.item())
    return w, curve


def tested(w, rate=RATE, steps=5):
    """Return the mean loss on 600 new tasks after 0, 1, 2, ... steps."""
    near, far = sample(np.random.default_rng(2), tasks=600)
    return [losses(adapted(w, *near, rate, k), *far).mean().item() for k in range(steps + 1)]


def draw(found, file):
    from matplotlib.figure import Figure

    figure = Figure((11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    line = np.linspace(-5, 5, 200)
    x = np.array([-4.5, -3.6, -2.9, -2.2, -1.4, -0.7, -0.2, 0.6, 1.1, 1.9])
    near = [tg.tensor(a.reshape(1, -1, 1).astype("float32")) for a in (x, 3 * np.sin(x - 1))]
    for (name, (w, rate, curve, after)), color in zip(found.items(), ("C0", "C1")):
        left.semilogy(np.arange(100, ROUNDS - 99) / 1000, np.convolve(curve, np.ones(200) / 200, "valid"), color=color,
                      label=name)
        middle.semilogy(after, "o-", color=color, label=f"{name}, steps of {rate:g}")
        for steps, style in ((0, ":"), (1, "-")):
            y = predict(adapted(w, *near, rate, steps), tg.tensor(line.reshape(1, -1, 1).astype("float32")))
            right.plot(line, y.numpy().ravel(), style, color=color, label=f"{name}, {('no step', 'one step')[steps]}")
    right.plot(line, 3 * np.sin(line - 1), color="0.7", zorder=0, label="the sine")
    right.plot(x, 3 * np.sin(x - 1), "k.", label="known points")
    left.set(title="training", xlabel="round, thousands", ylabel="loss that is descended, mean of 200")
    middle.set(title="on 600 new sines", xlabel="steps", ylabel="loss on other points")
    right.set(title="a new sine", xlabel="x", ylim=(-7, 4))
    for axes in (left, middle, right):
        axes.legend(fontsize=6, ncols=1 + (axes is right))
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="where to draw the picture")
    arguments = parser.parse_args()
    found = {}
    for name, through_a_step in (("MAML", True), ("jointly trained", False)):
        w, curve = trained(through_a_step)
        # The joint network was made for no rate: it is given the best one.
        rate = RATE if through_a_step else min((0.0003, 0.001, 0.003, 0.01), key=lambda rate: tested(w, rate, 1)[1])
        after = tested(w, rate)
        print(f"{name:<16} loss on new sines, without a step {after[0]:.3f}, after one of {rate:g} {after[1]:.3f}, "
              f"after five {after[5]:.3f}")
        found[name] = w, rate, curve, after
    if arguments.out:
        draw(found, arguments.out)


if __name__ == "__main__":
    main()
