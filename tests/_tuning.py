"""Objectives that other processes import."""

import os
import signal
import time

from tinygrad_opt import tune

SPACE = {"x": tune.uniform(-4, 4), "lr": tune.log(1e-4, 1.0),
         "method": tune.choice({"sgd": {"momentum": tune.uniform(0, 1)}, "adam": {}})}


def valley(trial):
    trial.spend(10)
    return (trial["x"] - 1) ** 2 + abs(trial["lr"] - 0.1) + trial.get("momentum", 0.5)


def staircase(trial):
    for step in range(1, 17):
        trial.spend()
        trial.report(abs(trial["x"]), step)
    return abs(trial["x"])


def slow_staircase(trial):
    time.sleep(0.02)
    return staircase(trial)


def failing(trial):
    if trial.number == 3:
        raise OSError("the disk is full")
    return trial["x"]


def dying(trial):
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return trial["x"]


def noisy_task(make_optimizer, seed, report):
    optimizer = make_optimizer(None)
    for gradients in (1, 2, 3):
        report(optimizer + seed, gradients)
    return optimizer + seed
