"""The errors of the elementwise optimizers, and what is special about some."""

import numpy as np
import pytest
from _optimizers import NAMES, WHOLE, each_of, make, parameters, same

import tinygrad_opt as tg
from tinygrad_opt import optim

ERRORS = [
    ("ASGD", dict(lambd=-1), r"ASGD: lambd must lie in \[0, inf\), got -1"), ("ASGD", dict(t0=-1), "t0"),
    ("ASGD", dict(alpha=-1), "alpha"), ("ASGD", dict(weight_decay=-1), "weight_decay"),
    ("Adagrad", dict(lr_decay=-1), "lr_decay"), ("Adagrad", dict(eps=-1), "eps"),
    ("Adagrad", dict(initial_accumulator_value=-1), "initial_accumulator_value"),
    ("Adadelta", dict(rho=1.5), r"rho must lie in \[0, 1\]"),
    ("Adadelta", dict(eps=-1), "eps"), ("Rprop", dict(etas=(0, 1.2)), r"eta1 must lie in \(0, 1\), got 0"),
    ("Rprop", dict(etas=(0.5, 1)), r"eta2 must lie in \(1, inf\)"), ("Rprop", dict(etas=0.5), "etas needs 2 numbers"),
    ("Rprop", dict(step_sizes=(0, 1)), "step_size1"),
    ("Rprop", dict(step_sizes=(2, 1)), "the smallest and the largest"),
    ("Adamax", dict(betas=(0.9, 1)), "beta2"), ("NAdam", dict(momentum_decay=-1), "momentum_decay"),
    ("RAdam", dict(eps=-1), "eps"), ("AdaBelief", dict(betas=(1, 0.9)), "beta1"), ("Yogi", dict(eps=-1), "eps"),
    ("Lion", dict(betas=(0.9, 1)), "beta2"), ("Signum", dict(momentum=1), r"momentum must lie in \[0, 1\)"),
    ("Adan", dict(betas=(0.9, 0.9)), "betas needs 3 numbers"), ("Adan", dict(betas=(0.9, 0.9, 1)), "beta3"),
    ("AdEMAMix", dict(betas=(0, 0.9, 0.99), beta3_warmup=5), "beta1 and beta3 above 0"),
    ("AdEMAMix", dict(alpha_warmup=-1), "alpha_warmup"), ("AdEMAMix", dict(alpha=-1), "alpha"),
    ("MADGRAD", dict(momentum=1), "momentum"), ("ADOPT", dict(eps=0), r"eps must lie in \(0, inf\)"),
    ("AdaBound", dict(gamma=0), r"gamma must lie in \(0, 1\)"), ("AdaBound", dict(final_lr=-1), "final_lr"),
    ("QHM", dict(momentum=0.9, nu=float("nan")), "nu must lie"), ("QHM", dict(momentum=1, nu=0.7), "momentum"),
    ("QHM", dict(momentum=0.9, nu=0.7, weight_decay_type="l2"), "'grad' or 'direct', got 'l2'"),
    ("QHAdam", dict(nus=(1, 2)), "nu2"), ("AggMo", dict(betas=()), r"betas needs one or more numbers, got \(\)"),
    ("AggMo", dict(betas=(0.9, 1)), "beta2"), ("AggMo", dict(betas=0.9), "betas needs one or more numbers"),
]


@pytest.mark.parametrize("name, options, words", ERRORS, ids=[f"{name}-{words}" for name, _, words in ERRORS])
def test_options_out_of_range_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        make(name, options, parameters())


def step(optimizer, p, *gradients):
    for g in gradients:
        p.grad = tg.Tensor(np.full(p.shape, g, p.dtype))
        optimizer.step()


def weight(*shape):
    return tg.ones(*shape, dtype="float64", requires_grad=True)


def test_the_state_of_adagrad_begins_with_the_optimizer():
    p = weight(2)
    optimizer = optim.Adagrad([p], initial_accumulator_value=0.5)
    saved = optimizer.state_dict()["state"][0]
    assert saved["step"] == 0 and saved["sum"].tolist() == [0.5, 0.5]
    optimizer.add_param_group({"params": [q := weight(3)], "initial_accumulator_value": 2})
    assert optimizer.state[q]["sum"].tolist() == [2, 2, 2]


def test_rprop_reads_lr_once():
    p = weight()
    optimizer = optim.Rprop([p], lr=0.5)
    step(optimizer, p, 1.0)
    assert p.item() == 0.5
    optimizer.lr = 100
    step(optimizer, p, 1.0, -1.0, -1.0)
    assert p.item() == pytest.approx(0.5 - 0.6 + 0.3) and optimizer.state[p]["step_size"].item() == 0.3


def test_the_average_of_asgd_is_that_of_the_path():
    p, path = weight(), []
    optimizer = optim.ASGD([p], lr=0.1, t0=2)
    for g in (1.0, -2.0, 3.0, 0.5, 0.25):
        step(optimizer, p, g)
        path.append(p.item())
    assert optimizer.state[p]["ax"].item() == pytest.approx(np.mean(path[3:]), rel=1e-14)
    assert optimizer.state[p]["mu"] == 1 / 3 and isinstance(optimizer.state[p]["eta"], float)


def test_adopt_only_looks_at_first():
    p = weight(2)
    optimizer = optim.ADOPT([p], lr=0.1)
    step(optimizer, p, 3.0)
    assert p.tolist() == [1, 1] and optimizer.state[p]["exp_avg_sq"].tolist() == [9, 9]


@pytest.mark.parametrize("rectify", [False, True])
def test_eps_gathers_in_the_mean_square_of_adabelief(rectify):
    p = weight()
    optimizer = optim.AdaBelief([p], betas=(0, 0), eps=0.25, rectify=rectify)
    step(optimizer, p, 3.0, 4.0)
    assert optimizer.state[p]["exp_avg_var"].item() == 0.25


def test_both_means_of_yogi_start_at_a_millionth():
    p = weight()
    optimizer = optim.Yogi([p], betas=(0.5, 0.5))
    step(optimizer, p, 0.0)
    assert optimizer.state[p]["exp_avg"].item() == 5e-7 and optimizer.state[p]["exp_avg_sq"].item() == 1e-6


def test_aggmo_has_a_buffer_for_each_of_its_betas():
    p = weight(2)
    optimizer = optim.AggMo([p], betas=(0.5,))
    step(optimizer, p, 1.0)
    optimizer.param_groups[0]["betas"] = (0.5, 0.9)
    step(optimizer, p, 1.0)
    assert optimizer.state[p]["b1"].tolist() == [1.5, 1.5] and optimizer.state[p]["b2"].tolist() == [1, 1]


def test_a_warm_up_ends_where_the_rule_without_begins():
    """After the last step of both warm-ups only the state tells the difference."""
    p = weight()
    optimizer = optim.AdEMAMix([p], beta3_warmup=3, alpha_warmup=2, lr=0.1)
    q = weight()
    other = optim.AdEMAMix([q], lr=0.1)
    step(optimizer, p, 1.0, 2.0)
    step(other, q, 1.0, 2.0)
    assert p.item() != q.item()
    with tg.no_grad():
        q.data[...] = p.data
    other.load_state_dict({**optimizer.state_dict(), "param_groups": other.state_dict()["param_groups"]})
    step(optimizer, p, 3.0, -1.0)
    step(other, q, 3.0, -1.0)
    assert p.item() == q.item()


@pytest.mark.parametrize("name", ["ASGD", "NAdam"])
def test_numbers_in_the_state_are_numbers_and_pytorchs_are_read(name):
    torch = pytest.importorskip("torch")
    start = np.arange(3.0)
    q = torch.tensor(start, requires_grad=True)
    theirs = getattr(torch.optim, name)([q], lr=0.1)
    q.grad = torch.ones(3, dtype=torch.float64)
    theirs.step()
    mine = getattr(optim, name)([p := tg.Tensor(q.detach().numpy(), requires_grad=True)])
    mine.load_state_dict(theirs.state_dict())
    step(mine, p, 1.0, 1.0)
    for _ in range(2):
        theirs.step()
    np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-6)         # theirs are single precision
    assert all(isinstance(mine.state[p][key], float) for key in {"eta", "mu", "mu_product"} & mine.state[p].keys())


@pytest.mark.filterwarnings("ignore:.*has become NaN")
@pytest.mark.parametrize("bad", [np.inf, np.nan])
@each_of(set(NAMES) - WHOLE)
def test_a_bad_gradient_spoils_its_own_entries_only(name, options, bad):
    p, q = weight(2), weight(2)
    one, other = make(name, options, [p]), make(name, options, [q])
    for first in (bad, 1.0, bad):
        p.grad, q.grad = tg.Tensor(np.array([first, 0.5])), tg.Tensor(np.array([1.0, 0.5]))
        one.step()
        other.step()
    same([p.numpy()[1:]], [q.numpy()[1:]])
