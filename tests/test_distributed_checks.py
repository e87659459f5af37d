"""What ranks must have alike is compared at the start; what communication has cost is told at the end."""

import json
import time

import pytest
from _mpi import needs_mpi, on_ranks

import tinygrad_opt as tg
from tinygrad_opt.distributed import check_parameters, check_same, report, simulate


class Net(tg.nn.Module):
    def __init__(self, width=4, **more):
        super().__init__()
        self.fc = tg.nn.Linear(2, width)
        self.register_buffer("mean", tg.zeros(2))
        for name, value in more.items():
            setattr(self, name, value)


def differing(check, words, size=3):
    """Assert that all ranks are told the words."""
    def rank(world):
        with pytest.raises(ValueError) as caught:
            check(world)
        return str(caught.value)
    assert simulate(size, rank) == [words] * size


ONE = "parameters must be the same on all ranks; "


@pytest.mark.parametrize("other, words", [
    (lambda: Net(3), "fc.weight of ranks 0, 1: (4, 2) float32; rank 2: (3, 2) float32; "
                     "fc.bias of ranks 0, 1: (4,) float32; rank 2: (3,) float32"),
    (lambda: Net().double(), "fc.weight of ranks 0, 1: (4, 2) float32; rank 2: (4, 2) float64; fc.bias of ranks 0, 1: "
                             "(4,) float32; rank 2: (4,) float64; mean of ranks 0, 1: (2,) float32 without gradient; "
                             "rank 2: (2,) float64 without gradient"),
    (lambda: Net(more=tg.nn.Linear(1, 1)), "more.weight of ranks 0, 1: nothing; rank 2: (1, 1) float32; "
                                           "more.bias of ranks 0, 1: nothing; rank 2: (1,) float32"),
    (lambda: {"fc.bias": tg.zeros(4), **{name: p for name, p in Net().named_parameters() if name != "fc.bias"}},
     "fc.weight of")], ids=["shape", "dtype", "name", "what"])
def test_parameters_that_differ_are_named(other, words):
    def check(world):
        check_parameters(Net() if world.rank < 2 else other(), world)
    if words == "fc.weight of":
        with pytest.raises(ValueError, match="mean of ranks 0, 1: .*rank 2: nothing"):
            simulate(3, check)
    else:
        differing(check, ONE + words)


def test_order_and_frozen_parameters_and_many():
    names = ["a", "b", "c", "d", "e"]
    named = [(name, tg.zeros(1, requires_grad=True)) for name in names]
    differing(lambda world: check_parameters(named if world.rank else named[::-1], world),
              ONE + "the order of rank 0: e, d, c, b, a; ranks 1, 2: a, b, c, d, e")
    differing(lambda world: check_parameters({"a": tg.zeros(1, requires_grad=world.rank == 1)}, world),
              ONE + "a of ranks 0, 2: (1,) float32 without gradient; rank 1: (1,) float32")
    differing(lambda world: check_same("settings", dict.fromkeys(names, world.rank), world), (
        "settings must be the same on all ranks; a of rank 0: 0; rank 1: 1; b of rank 0: 0; rank 1: 1; "
        "c of rank 0: 0; rank 1: 1; and 2 more"), size=2)


def test_what_is_alike_passes():
    def rank(world):
        check_parameters(Net())
        check_same("settings", {"lr": 0.1, "betas": (0.9, 0.99), "seed": None})
        check_same("nothing", {})
    simulate(3, rank)
    rank(tg.distributed.world())


def test_one_bit_is_a_difference():
    differing(lambda world: check_same("lr", 0.1 + 0.2 if world.rank else 0.3, world),
              "lr must be the same on all ranks; rank 0: 0.3; rank 1: 0.30000000000000004", size=2)


# ---- report --------------------------------------------------------------------------------------------------------


def costs(world):
    """Make some calls, and check what is reported on them."""
    world.all_reduce(tg.ones(1000))
    work = world.begin_all_reduce(tg.ones(1000))
    time.sleep(0.05)
    work.wait()
    world.broadcast(tg.ones(10))
    part = world.split(world.rank)
    part.all_reduce(tg.ones(500))
    if world.rank == 0:
        world.send(tg.ones(3), to=0)
        world.receive(tg.ones(3), source=0)
    made = report()
    n = world.size
    assert made.ranks == n and "report" not in made.verbs and "gather_objects" not in made.verbs
    assert made.verbs["all_reduce"]["calls"] == [3] * n and made.verbs["all_reduce"]["bytes"] == [10_000] * n
    assert made.verbs["broadcast"]["bytes"] == [40] + [0] * (n - 1)
    assert made.verbs["send"]["calls"] == [1] + [0] * (n - 1)
    assert all(0 < share < 1 for share in made.verbs["all_reduce"]["hidden"])
    assert all(a >= b + 0.05 for a, b in zip(made.verbs["all_reduce"]["seconds"], made.verbs["all_reduce"]["waited"]))
    assert json.loads(json.dumps(made.to_dict()))["verbs"]["send"]["bytes"] == {"mean": 12 / n, "max": 12}
    assert report(part).verbs["all_reduce"]["bytes"] == [2000]
    return made


def test_what_communication_has_cost():
    made = simulate(4, costs)[0]
    lines = repr(made).splitlines()
    assert lines[0].startswith("4 ranks by threads") and lines[1].split() == ["mean", "max"] * 5
    assert [line.split()[0] for line in lines[2:]] == ["all_reduce", "broadcast", "receive", "send", "split"]
    assert lines[2].split()[1:5] == ["3", "3", "10,000", "10,000"] and lines[2].endswith("%")
    assert len({len(line) for line in lines[1:]}) == 1 and len(lines[0]) <= len(lines[1])
    assert "1 rank by threads" in repr(simulate(1, costs)[0])


@needs_mpi
def test_what_communication_has_cost_by_mpi():
    on_ranks(2, costs)
