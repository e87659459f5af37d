"""Schedules as curves: the values that the schedules and schedulers themselves would write."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim import lr_scheduler as ls
from tinygrad_opt.optim import schedule


def sgd(*lrs):
    return tg.optim.SGD([{"params": [tg.zeros(2, requires_grad=True)], "lr": lr} for lr in lrs], momentum=0.9)


def test_of_pure_functions():
    t, values = tg.lab.schedule_values({"a": schedule.linear(4), "b": lambda t: 2.0 * t, "c": 0.5}, 3)
    assert t.tolist() == [0, 1, 2]
    assert {name: curve.tolist() for name, curve in values.items()} == {
        "a": [1.0, 0.75, 0.5], "b": [0.0, 2.0, 4.0], "c": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize("make", [
    lambda o: ls.CosineAnnealingLR(o, 7), lambda o: ls.OneCycleLR(o, max_lr=0.3, total_steps=40),
    lambda o: ls.CosineAnnealingWarmRestarts(o, 5), lambda o: ls.WarmupLR(o, 4, after=ls.StepLR(o, 3)),
    lambda o: ls.HyperScheduler(o, "momentum", schedule.cosine(9))])
def test_of_schedulers_that_stay_where_they_are(make):
    optimizer = sgd(0.1, 0.03)
    scheduler = make(optimizer)
    optimizer.step()
    scheduler.step()
    key, before = scheduler.key, scheduler.state_dict()
    _, values = tg.lab.schedule_values(scheduler, 20)
    assert scheduler.state_dict() == before
    for k in range(20):
        now = [group[key] for group in optimizer.param_groups]
        assert [curve[k] for curve in values.values()] == now[:len(values)] and len({*now}) <= len(values)
        scheduler.step()


def test_of_a_plateau():
    optimizer = sgd(0.1)
    scheduler, losses = ls.ReduceLROnPlateau(optimizer, factor=0.5, patience=1), [3.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0]
    _, values = tg.lab.schedule_values(scheduler, 8, metric=losses)
    assert np.array_equal(values["ReduceLROnPlateau"], tg.lab.schedule_values(
        scheduler, 8, metric=lambda t: losses[t])[1]["ReduceLROnPlateau"])
    assert optimizer.lr == 0.1 and scheduler.num_bad_epochs == 0
    found = [optimizer.lr]
    for loss in losses:
        scheduler.step(loss)
        found.append(optimizer.lr)
    assert values["ReduceLROnPlateau"].tolist() == found and found[-1] == 0.025


def test_names_and_picture():
    optimizer = sgd(0.1, 0.03)
    figure = tg.lab.draw_schedule([ls.StepLR(optimizer, 5), schedule.cosine(20), schedule.cosine(20)], 30)
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["StepLR, group 0", "StepLR, group 1", "cosine(20)", "cosine(20) #2"]
    assert lines[1].get_ydata()[6] == pytest.approx(0.003) and len({line.get_color() for line in lines}) == 4
    assert tg.lab.draw_schedule(schedule.cosine(5), 1).axes[0].get_ylabel() == "value"


def test_says_what_is_wrong():
    optimizer = sgd(0.1)
    plateau = ls.ReduceLROnPlateau(optimizer)
    for arguments, error, words in [
            ((schedule.cosine(3), 0), ValueError, "steps must be a whole number of at least 1, got 0"),
            (("cosine", 3), TypeError, "a schedule is a function of the step or a number, got str"),
            (([], 3), ValueError, "no schedule to look at"), ((plateau, 3), ValueError, "pass metric="),
            ((plateau, 4, [1.0, 2.0]), ValueError, "metric has 2 values; 4 steps need .* 3")]:
        with pytest.raises(error, match=words):
            tg.lab.schedule_values(*arguments)
