"""The whole command `tinygrad-opt train digits` against the same training written with PyTorch.

Both are started as a user starts them and timed until they end: imports, reading the data, training with
an evaluation after each epoch. Ours also writes its picture, log and checkpoint; torch trains and
evaluates only, or, in a row of its own, draws the same kind of picture. The first run of ours has to
compile its kernels, the others find them in the cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import _peers

TORCH_SCRIPT = '''
import argparse

import numpy as np
import torch
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("data")
parser.add_argument("--hidden", type=lambda text: [int(n) for n in text.split(",")])
parser.add_argument("--optimizer", choices=["SGD", "Adam", "AdamW", "RMSprop"])
parser.add_argument("--lr", type=float)
parser.add_argument("--epochs", type=int)
parser.add_argument("--batch-size", type=int)
parser.add_argument("--picture")
options = parser.parse_args()

with np.load(options.data) as file:
    images = torch.from_numpy(file["images"].reshape(-1, 64).astype("f4") / np.float32(16))
    labels = torch.from_numpy(file["labels"].astype("i8"))
rank = torch.empty_like(labels)
for digit in range(10):
    rank[labels == digit] = torch.arange(int((labels == digit).sum()))
test = rank % 5 == 4
x, y, x_test, y_test = images[~test], labels[~test], images[test], labels[test]

torch.manual_seed(0)
sizes = [64, *options.hidden, 10]
layers = [layer for i, o in zip(sizes, sizes[1:]) for layer in (torch.nn.Linear(i, o), torch.nn.ReLU())]
model = torch.nn.Sequential(*layers[:-1])
fused = {} if options.optimizer == "RMSprop" else {"fused": True}
optimizer = getattr(torch.optim, options.optimizer)(model.parameters(), lr=options.lr, **fused)

history = []
for epoch in range(options.epochs):
    model.train()
    total = correct = 0
    for batch in torch.randperm(len(x)).split(options.batch_size):
        logits = model(x[batch])
        loss = F.cross_entropy(logits, y[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
        correct += (logits.argmax(1) == y[batch]).sum().item()
    model.eval()
    with torch.inference_mode():
        logits = model(x_test)
        accuracy = (logits.argmax(1) == y_test).float().mean().item()
        history.append((total / len(x), F.cross_entropy(logits, y_test).item(), correct / len(x), accuracy))

if options.picture:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    predicted = logits.argmax(1)
    wrong = (predicted != y_test).nonzero().ravel()
    figure = plt.figure(figsize=(12, 7), layout="constrained")
    grid = figure.add_gridspec(2, 12)
    for place, title, columns in ((grid[0, :4], "loss", (0, 1)), (grid[0, 4:8], "accuracy", (2, 3))):
        axes = figure.add_subplot(place, title=title, xlabel="epoch")
        for label, column in zip(("training", "test"), columns):
            axes.plot([row[column] for row in history], label=label)
        axes.legend()
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    confusion.index_put_((y_test, predicted), torch.tensor(1), accumulate=True)
    axes = figure.add_subplot(grid[0, 8:], title="confusion", xlabel="predicted", ylabel="true")
    axes.imshow(confusion, cmap="Blues")
    for i in range(10):
        for j in range(10):
            axes.text(j, i, int(confusion[i, j]), ha="center", va="center", fontsize=7)
    for k, index in enumerate(wrong[:12]):
        axes = figure.add_subplot(grid[1, k], title=f"{int(y_test[index])} as {int(predicted[index])}")
        axes.imshow(x_test[index].reshape(8, 8), cmap="gray_r")
        axes.set_axis_off()
    figure.savefig(options.picture, dpi=120)

print(f"test accuracy {accuracy:.4f}")
'''

GOALS = {"warm": 0.7, "first": 1.5}


def run(command, **environment):
    """Run a command in an empty folder: its seconds, and what it printed. It must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=_peers.ENVIRONMENT | environment, text=True,
                              capture_output=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def first_run(command):
    """Run a command as on a machine that has never compiled a kernel."""
    with tempfile.TemporaryDirectory() as empty:
        return run(command, TINYGRAD_OPT_CACHE=f"{empty}/kernels", NUMBA_CACHE_DIR=f"{empty}/numba")
