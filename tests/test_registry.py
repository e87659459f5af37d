"""Optimizers by name."""

import inspect

import pytest

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim import create, list_optimizers, optimizer_info


def test_the_list_is_that_of_the_suite():
    assert sorted(list_optimizers()) == sorted([*optim.OPTIMIZERS, *optim.SECOND_ORDER])
    assert [name.lower() for name in list_optimizers()] == sorted(map(str.lower, list_optimizers()))


@pytest.mark.parametrize("pattern", ["ada*", "ADA*", "Ada*"])
def test_patterns_do_not_look_at_case(pattern):
    found = list_optimizers(pattern)
    assert {"AdaBelief", "Adagrad", "Adam", "AdamW", "Adan"} <= set(found)
    assert all(name.lower().startswith("ada") for name in found)


def test_patterns():
    assert list_optimizers("adam?") == ["AdamW"]
    assert list_optimizers("[qy]*") == ["QHAdam", "QHM", "Yogi"]
    assert list_optimizers("no such thing") == []


@pytest.mark.parametrize("spelling, name", [("adamw", "AdamW"), ("ada_grad", "Adagrad"), ("AdaGrad", "Adagrad"),
                                            ("RMSProp", "RMSprop"), ("Ada Belief", "AdaBelief"), ("qh-adam", "QHAdam")])
def test_names_in_any_spelling(spelling, name):
    optimizer = create(spelling, [tg.ones(2, requires_grad=True)], lr=0.25)
    assert type(optimizer) is optim.OPTIMIZERS[name] and optimizer.lr == 0.25


def test_no_two_names_are_one_spelling():
    assert all(create(name.lower(), [tg.ones(2, requires_grad=True)]).__class__.__name__ == name
               for name in ("Adam", "AdamW", "Adamax"))
    assert len({name.lower() for name in optim.OPTIMIZERS}) == len(optim.OPTIMIZERS)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no optimizer named 'rmspropp'; the nearest are RMSprop, .*list_optimizers"):
        create("rmspropp", [])
    with pytest.raises(ValueError, match="the nearest are "):
        create("?", [])
    with pytest.raises(TypeError, match="a name is a string, that of one optimizer here; got type"):
        create(optim.Adam, [])


def test_what_the_class_refuses_is_refused():
    with pytest.raises(ValueError, match="Adam: lr must lie in"):
        create("adam", [tg.ones(2, requires_grad=True)], lr=-1)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_of_every_optimizer_there_is_something_to_say(name):
    info = optimizer_info(name)
    assert info.name == name and len(info.description) > 10 and "\n" not in info.description
    assert info.papers and all("20" in paper or "19" in paper for paper in info.papers)
    assert set(info.defaults) <= set(inspect.signature(optim.OPTIMIZERS[name].__init__).parameters)
    assert all(size > 0 for size in info.state.values())
    assert repr(info) == str(info) and len(str(info).splitlines()) == 3


def test_what_is_said_of_adam():
    info = optimizer_info("adam")
    assert info.papers == ("Kingma & Ba, ICLR 2015, arXiv 1412.6980", "Reddi, Kale & Kumar, ICLR 2018")
    assert info.defaults["betas"] == (0.9, 0.999) and info.defaults["amsgrad"] is False
    assert info.state == {"exp_avg": 4, "exp_avg_sq": 4} and info.settings == {}
    assert optimizer_info("sgd").state == {}
