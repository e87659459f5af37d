"""What a Monitor costs: the digits network 64-128-64-10 trained on batches of 32, with and without one.

A burst is as many steps as several intervals have, always from the same point; the two kinds of burst take turns, and
of each the fastest counts. Printed is the time of a step, and by how much a monitor lengthens it.
"""

import argparse
import time

import _peers

import tinygrad_opt as tg

GOAL = 1.10                                     # at the default interval


def trainer(dropout):
    """Return a model, its optimizer, and a function that takes steps over the digits."""
    tg.manual_seed(0)
    layers = []
    for inputs, outputs in ((64, 128), (128, 64)):
        layers += [tg.nn.Linear(inputs, outputs), tg.nn.ReLU(), *[tg.nn.Dropout(dropout)] * (dropout > 0)]
    model = tg.nn.Sequential(*layers, tg.nn.Linear(64, 10))
    optimizer = tg.optim.AdamW(model.named_parameters(), lr=3e-3)
    images, labels = tg.data.digits()[0].tensors
    batches = [(images[k:k + 32], labels[k:k + 32]) for k in range(0, 1440, 32)]

    def train(steps, tell=lambda loss: loss):
        for k in range(steps):
            x, y = batches[k % len(batches)]
            optimizer.zero_grad()
            loss = tell(tg.cross_entropy(model(x), y))
            loss.backward()
            optimizer.step()
    return model, optimizer, train


def burst(steps, every, dropout, **options):
    """Return the seconds a step of a new run takes, monitored if `every` says so."""
    model, optimizer, train = trainer(dropout)
    train(20)                                   # kernels, plans and buffers
    optimizer.step_count = 0
    if not every:
        return seconds(train, steps)
    with tg.lab.Monitor(model, optimizer, every, **options) as monitor:
        took = seconds(train, steps, monitor.loss)
    assert len(monitor.record) == -(-steps // every)
    return took


def seconds(train, steps, *tell):
    """Return what a step takes."""
    start = time.perf_counter()
    train(steps, *tell)
    return (time.perf_counter() - start) / steps


def compare(every, rounds, dropout=0.0, **options):
    """Return microseconds a step, without and with a monitor."""
    steps = every * max(4, 400 // every)
    times = [(burst(steps, None, dropout), burst(steps, every, dropout, **options)) for _ in range(rounds)]
    return [1e6 * min(column) for column in zip(*times)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rough answer in a few seconds")
    rounds = 3 if parser.parse_args().quick else 15
    _peers.warn_if_busy()
    default = tg.lab.Monitor.__init__.__defaults__[0]
    print(f"{'':34}{'alone':>9}{'watched':>9}   microseconds a step")
    for every in (1, 5, 10, 20, 50, default):
        for dropout in (0.0, 0.2)[:1 + (every == default)]:
            alone, watched = compare(every, rounds, dropout)
            words = f"every {every}" + ", with dropout" * (dropout > 0) + ", the default" * (every == default)
            figure = _peers.verdict(watched / alone, GOAL) if every == default else f"{watched / alone:.2f}"
            print(f"{words:34}{alone:9.1f}{watched:9.1f}   {figure}")


if __name__ == "__main__":
    main()
