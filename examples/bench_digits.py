"""The whole command `tinygrad-opt train digits` against the same training written with PyTorch.

Both are started as a user starts them and timed until they end: imports, reading the data, training with
an evaluation after each epoch. Ours also writes its picture, log and checkpoint; torch trains and
evaluates only, or, in a row of its own, draws the same kind of picture. The first run of ours has to
compile its kernels, the others find them in the cache.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
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
parser.add_argument("--dropout", type=float)
parser.add_argument("--optimizer")
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
layers = [layer for i, o in zip(sizes, sizes[1:])
          for layer in (torch.nn.Linear(i, o), torch.nn.ReLU(), torch.nn.Dropout(options.dropout))]
model = torch.nn.Sequential(*layers[:-2])
optimizers = {name.lower(): cls for name, cls in vars(torch.optim).items() if isinstance(cls, type)}
optimizer = optimizers[options.optimizer](model.parameters(), lr=options.lr, fused=True)

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

OURS = [sys.executable, "-m", "tinygrad_opt", "train", "digits"]


def torch_command(script):
    """The torch script with our command's data and defaults."""
    from tinygrad_opt.cli.training import EPOCHS
    from tinygrad_opt.train import Settings

    Path(script).write_text(TORCH_SCRIPT)
    package = Path(importlib.util.find_spec("tinygrad_opt").origin).parent
    return [sys.executable, script, str(package / "data" / "optdigits.npz"), "--epochs", str(EPOCHS),
            "--hidden", ",".join(map(str, Settings.hidden)), "--dropout", str(Settings.dropout),
            "--optimizer", Settings.optimizer,
            "--lr", str(Settings.lr), "--batch-size", str(Settings.batch_size)]


def run(command, **environment):
    """Run a command in an empty folder: its seconds, and the last line it printed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(command, check=False, cwd=folder, env=_peers.ENVIRONMENT | environment, text=True,
                              capture_output=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout.splitlines()[-1].partition(";")[0]


def first_run():
    """Ours as on a machine that has never compiled a kernel or drawn a picture."""
    with tempfile.TemporaryDirectory() as empty:
        return run(OURS, TINYGRAD_OPT_CACHE=f"{empty}/kernels", NUMBA_CACHE_DIR=f"{empty}/numba",
                   MPLCONFIGDIR=f"{empty}/matplotlib")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each is run, in turn (5)")
    parser.add_argument("--quick", action="store_true", help="one run of each, and none that draws with torch")
    options = parser.parse_args()
    _peers.warn_if_busy()
    print(__doc__)
    names = _peers.installed({"tinygrad_opt": ["tinygrad_opt"], "torch": ["torch"]})
    if "tinygrad_opt" not in names:
        raise SystemExit("Nothing to measure.")
    with tempfile.TemporaryDirectory() as folder:
        commands = {"tinygrad-opt train digits": OURS}
        if "torch" in names:
            commands["torch, trains and evaluates"] = torch_command(f"{folder}/train.py")
            if not options.quick:
                commands["torch, draws as well"] = [*torch_command(f"{folder}/train.py"), "--picture", "picture.png"]
        first = "tinygrad-opt train digits, first run"
        results = {first: [first_run()]} | {label: [] for label in commands}
        run(OURS)  # fills the cache
        for _ in range(1 if options.quick else options.runs):
            for label, command in commands.items():
                results[label].append(run(command))
    seconds = {label: statistics.median(s for s, _ in runs) for label, runs in results.items()}
    print(f"{'Seconds of the whole process':40}{'median':>8}")
    for label, runs in results.items():
        print(f"{label:40}{seconds[label]:8.2f}   {runs[-1][1]}")
    print()
    ours, torch, drawing = (seconds.get(label) for label in (
        "tinygrad-opt train digits", "torch, trains and evaluates", "torch, draws as well"))
    if torch:
        print(f"{'ours/torch':32}{_peers.verdict(ours / torch, 0.7)}")
        print(f"{'ours/torch, first run':32}{_peers.verdict(seconds[first] / torch, 1.5)}")
    if drawing:
        print(f"{'ours/torch, both draw':32}{ours / drawing:.2f}")


if __name__ == "__main__":
    main()
