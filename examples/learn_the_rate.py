"""Learn the learning rate: gradients through unrolled training steps, on the digits.

    python examples/learn_the_rate.py --out learn_the_rate.png

A small network takes STEPS steps from random weights. The loss after them, on images that it has not seen, depends
on the options of the optimizer; its gradient with respect to them, the hypergradient, flows back through all steps.
Descending along it finds the learning rate of SGD, and all of Adam's numbers: lr and eps by their logarithms, the
betas by their logits, so that each stays in its range. Then both train from other weights, and are tested.
"""

import argparse
import math

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.optim.differentiable import functional

STEPS, BATCH, HIDDEN, ROUNDS = 30, 64, 32, 60
TRAIN, TEST = ([tensor.numpy() for tensor in part.tensors] for part in tg.data.digits())
SEEN = 1000                                 # images that networks train on; their options are learned on the others


def log(x):
    """Return a positive number as a Tensor to learn, and how it is read back."""
    return tg.tensor(math.log(x), dtype="float64", requires_grad=True), tg.exp


def logit(x):
    """The same for a number between 0 and 1."""
    return tg.tensor(math.log(x / (1 - x)), dtype="float64", requires_grad=True), tg.sigmoid


def network(random):
    """Return the weights of a network, 64 - HIDDEN - 10."""
    start = [random.standard_normal((64, HIDDEN)) / 8, np.zeros(HIDDEN),
             random.standard_normal((HIDDEN, 10)) / HIDDEN ** 0.5, np.zeros(10)]
    return [tg.tensor(a.astype("float32"), requires_grad=True) for a in start]


def predict(w, images):
    return tg.tanh(images @ w[0] + w[1]) @ w[2] + w[3]


def loss_of(w, images, labels):
    return tg.cross_entropy(predict(w, tg.tensor(images)), tg.tensor(labels))


def trained(optimizer, seed, curve=None, **options):
    """Return the weights after some steps, as a function of the options of the optimizer."""
    random = np.random.default_rng(seed)
    w = network(random)
    state = optimizer.init(w)
    for _ in range(STEPS):
        chosen = random.integers(0, SEEN, BATCH)
        loss = loss_of(w, TRAIN[0][chosen], TRAIN[1][chosen])
        w, state = optimizer.update(tg.grad(loss, w, create_graph=True), state, w, **options)
        if curve is not None:
            curve.append(loss.item())
    return w


def read(raw):
    """Return the options that the learned numbers stand for."""
    options = {name: back(x) for name, (x, back) in raw.items()}
    betas = [options.pop(name) for name in ("beta1", "beta2") if name in options]
    return {**options, **({"betas": tuple(betas)} if betas else {})}


def learn(optimizer, raw, rate=0.3):
    """Descend along the hypergradient; return the loss and the options of every round."""
    learned = [x for x, _ in raw.values()]
    # Where steps become too long the hypergradient explodes: it is clipped, and soon forgotten.
    teacher = tg.optim.Adam(learned, lr=rate * tg.optim.schedule.cosine(ROUNDS), betas=(0.5, 0.9),
                            grad_transforms=[tg.optim.ClipNorm(1.0)])
    losses, path = [], []
    for k in range(ROUNDS):
        path.append([back(x).item() for x, back in raw.values()])
        loss = loss_of(trained(optimizer, k, **read(raw)), *(part[SEEN:] for part in TRAIN))
        teacher.zero_grad()
        loss.backward()
        teacher.step()
        losses.append(loss.item())
    return losses, path


def tested(optimizer, options):
    """Return the mean curve of training, and loss and accuracy on the test images, over networks not learned on."""
    curves, results = [], []
    for seed in range(1000, 1010):
        curves.append([])
        w = trained(optimizer, seed, curve=curves[-1], **options)
        hits = predict(w, tg.tensor(TEST[0])).numpy().argmax(axis=1) == TEST[1]
        results.append((loss_of(w, *TEST).item(), 100 * hits.mean()))
    return np.mean(curves, axis=0), np.mean(results, axis=0)


def draw(found, file):
    from matplotlib.figure import Figure

    figure = Figure((11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for (name, (losses, path, before, after)), color in zip(found.items(), ("C0", "C1")):
        left.plot(losses, color=color, label=name)
        middle.semilogy([row[0] for row in path], color=color, label=f"{name}: lr")
        right.plot(before[0], ":", color=color, label=f"{name}, start")
        right.plot(after[0], color=color, label=f"{name}, learned")
    path = np.array(found["Adam"][1])
    for k, name in enumerate(("1 - beta1", "1 - beta2"), start=1):
        middle.semilogy(1 - path[:, k], "--" if k == 1 else ":", color="C1", label=f"Adam: {name}")
    left.set(title="learning the options", xlabel="round", ylabel=f"held-out loss after {STEPS} steps")
    middle.set(title="the options", xlabel="round")
    right.set(title="training with them", xlabel="step", ylabel="loss of the batch, mean of 10 networks")
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=120)


STARTS = {"SGD": (tg.optim.SGD, {"lr": log(0.01)}),
          "Adam": (tg.optim.Adam, {"lr": log(1e-4), "beta1": logit(0.9), "beta2": logit(0.999), "eps": log(1e-8)})}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="where to draw the picture")
    arguments = parser.parse_args()
    found = {}
    for name, (cls, raw) in STARTS.items():
        optimizer = functional(cls)
        before = tested(optimizer, read(raw))
        losses, path = learn(optimizer, raw)
        after = tested(optimizer, read(raw))
        print(f"{name}, {STEPS} steps")
        for option, x, (y, back) in zip(raw, path[0], raw.values()):
            print(f"  {option:<10} {x:10.4g}  ->  {back(y).item():10.4g}")
        for k, what in enumerate(("test loss", "accuracy %")):
            print(f"  {what:<10} {before[1][k]:10.4g}  ->  {after[1][k]:10.4g}")
        found[name] = losses, path, before, after
    if arguments.out:
        draw(found, arguments.out)


if __name__ == "__main__":
    main()
