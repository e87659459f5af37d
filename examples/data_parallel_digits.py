"""Data parallel training on the digits: one script, alone or as several ranks, that goes on where it was stopped.

Every rank has the whole model and its share of each batch of 144 images; the gradients are averaged. Rank 0 saves
after each epoch, and the same command again goes on from there, to the bit, with as many ranks; with more or fewer,
to rounding.

    python examples/data_parallel_digits.py
    tinygrad-opt launch -n 4 examples/data_parallel_digits.py
    tinygrad-opt launch -n 4 examples/data_parallel_digits.py --epochs 20 --checkpoint digits.ckpt
"""

import argparse
from pathlib import Path

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.distributed import DataParallel, DistributedSampler, check_same, report, world

BATCH = 144                         # of all ranks together


def network():
    return nn.Sequential(nn.Linear(64, 64, generator=tg.Generator(0)), nn.ReLU(),
                         nn.Linear(64, 10, generator=tg.Generator(1)))


def accuracy(model, dataset):
    x, y = dataset.tensors
    with tg.no_grad():
        return float((model(x).numpy().argmax(axis=1) == y.numpy()).mean())


def train(ranks, epochs, checkpoint=None):
    """Train as one of the ranks, and return the model and the loss of the last epoch, the mean over all ranks."""
    train_set, test_set = tg.data.digits()
    model = DataParallel(network(), ranks)
    optimizer = tg.optim.AdamW(model.named_parameters(), lr=0.01)
    sampler = DistributedSampler(train_set, ranks, drop_last=True)
    loader = tg.data.DataLoader(train_set, batch_size=BATCH // ranks.size, sampler=sampler, drop_last=True)
    first, loss = 0, float("nan")
    # All ranks look before any can write: rank 0 saves after an epoch, which needs the gradients of all.
    if checkpoint is not None and checkpoint.exists():
        saved = tg.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, loss = saved["epoch"], saved["loss"]
    check_same("the epoch to begin with", first, ranks)
    for epoch in range(first, epochs):
        sampler.set_epoch(epoch)
        losses = []
        for x, y in loader:
            optimizer.zero_grad()
            batch_loss = tg.cross_entropy(model(x), y)
            batch_loss.backward()
            optimizer.step()
            losses.append(batch_loss.item())
        loss = float(ranks.all_reduce([sum(losses) / len(losses)], "mean")[0])
        if ranks.rank == 0:
            print(f"epoch {epoch + 1:2}  loss {loss:.4f}  test accuracy {accuracy(model, test_set):.1%}", flush=True)
            if checkpoint is not None:
                tg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1,
                         "loss": loss}, checkpoint)
    return model, loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="how many in all, those of a checkpoint included")
    parser.add_argument("--checkpoint", type=Path, help="a file that all ranks can read, to save to and to go on from")
    options = parser.parse_args()
    ranks = world()
    if BATCH % ranks.size:
        parser.error(f"a batch of {BATCH} cannot be dealt evenly to {ranks.size} ranks")
    model, loss = train(ranks, options.epochs, options.checkpoint)
    costs = report(ranks)
    if ranks.rank == 0:
        test_set = tg.data.digits()[1]
        print(f"\nafter {options.epochs} epochs: loss {loss:.4f}, test accuracy {accuracy(model, test_set):.1%}\n")
        print(costs)


if __name__ == "__main__":
    main()
