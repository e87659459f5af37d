"""The package carries its own oracles: every optimizer goes where its reference implementation went."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.optim import verify
from tinygrad_opt.optim.verify import ORACLES, PROBLEMS, closed_form, driver, recorded, records
from tinygrad_opt.rule import sign


@pytest.mark.parametrize("name", recorded())
def test_an_optimizer_goes_where_its_reference_went(name, capsys):
    result = verify(name)
    assert result.ok, str(result)
    assert [r.record.id for r in result] == [record.id for record in records(name)]
    assert result.largest == max(r.largest for r in result)
    assert capsys.readouterr().out == f"{result}\n"


def test_a_wrong_constant_is_found(capsys):
    class MyAdam(optim.Adam):
        def __init__(self, params, betas=(0.9, 0.99), **options):
            super().__init__(params, betas=betas, **options)

    result = verify(MyAdam, "adam")
    assert [r.ok for r in result] == ["betas" in r.record.settings for r in result]
    assert not result.ok and result.largest > 1e-4
    assert "MyAdam: largest difference" in str(result) and "NOT within tolerance" in str(result)
    assert "ok=False" in repr(result)


def test_a_class_of_ones_own_may_be_right(capsys):
    @optim.from_rule(lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0)
    def MyLion(p, g, m, lr, beta1, beta2, weight_decay):
        p = p - lr * weight_decay * p - lr * sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        return p, m

    assert verify(MyLion, "Lion").ok


@pytest.mark.filterwarnings("ignore:.*has become NaN")
def test_what_is_no_number_is_not_within_tolerance(capsys):
    class Broken(optim.SGD):
        def __init__(self, params, **options):
            super().__init__(params, **{**options, "lr": 1e200})

    result = verify(Broken, "SGD")
    assert not result.ok and not np.isfinite(result.largest)


def test_the_table_says_what_was_run(capsys):
    verify("adan")
    title, reference, row, *_, verdict = capsys.readouterr().out.splitlines()
    assert title.split() == ["record", "problem", "steps", "largest", "difference", "tolerance", "ok", "settings"]
    assert reference == "by sail-sg/Adan commit 2c65beaf:"
    assert row.startswith("Adan-P1-0  tanh layer     60") and row.endswith("1.0e-09  yes  the defaults")
    assert verdict.startswith("Adan: largest difference") and verdict.endswith("in 6 runs, all within tolerance")


@pytest.mark.parametrize("name, against, words", [
    ("adann", None, "no optimizer named 'adann'; the nearest are Adan, "),
    ("Adam", "adann", "no optimizer with recorded runs named 'adann'; the nearest are Adan, "),
])
def test_an_unknown_name_is_answered_with_the_nearest(name, against, words):
    with pytest.raises(ValueError, match=words):
        verify(name, against)


def test_the_file_is_small_and_complete():
    assert ORACLES.stat().st_size < 200_000
    assert len(recorded()) == 42 and sum(len(records(name)) for name in recorded()) == 248
    for name in recorded():
        for record in records(name):
            assert record.reference and record.tolerance < 1e-5 and 0 not in record.steps
            curves = [values for curve in record.curves.values() for values in curve.values()]
            assert all(len(values) == len(record.steps) for values in curves)


def test_the_closed_formulas_are_the_gradients_of_their_losses():
    seen = {record.problem: record for name in recorded() for record in records(name)}
    assert set(seen) == set(PROBLEMS)
    for record in seen.values():
        at = {key: tg.Tensor(value) for key, value in record.start.items()}
        closed_form(record, at)
        random = np.random.default_rng(0)
        way = {key: random.standard_normal(value.shape) for key, value in record.start.items()}

        def loss(step, record=record, way=way):
            return closed_form(record, {k: tg.Tensor(v + step * way[k]) for k, v in record.start.items()}).item()
        slope = sum((at[key].grad.numpy() * way[key]).sum() for key in way)
        assert (loss(1e-6) - loss(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-7)


class Recorder:
    """An optimizer that only writes down how it is driven."""

    def __init__(self, *arguments, **options):
        self.calls = [("made", *[a for a in arguments if not isinstance(a, list)], options)]

    def __getattr__(self, name):
        return lambda *arguments, **options: self.calls.append((name, *arguments, *options.items()))


@pytest.mark.parametrize("name, settings, made, calls", [
    ("SGD", dict(lr=1), ("made", dict(lr=1)), ["gradients", "step"] * 3),
    ("SAM", dict(base_optimizer="sgd", rho=0.1, lr=1), ("made", optim.SGD, dict(rho=0.1, lr=1)),
     ["gradients", "first_step", "gradients", "second_step"] * 3),
    ("ScheduleFreeSGD", {}, ("made", {}), ["train"] + ["gradients", "step"] * 3),
    ("SophiaG", dict(bs=7, update_every=2), ("made", {}),
     ["update_hessian", "gradients", "step", "gradients", "step", "update_hessian", "gradients", "step"]),
])
def test_how_an_optimizer_is_driven(name, settings, made, calls):
    p = tg.ones(2, 3, requires_grad=True, dtype="float64")
    optimizer, step = driver(name)(Recorder, [p], settings, lambda: optimizer.gradients())
    for t in (1, 2, 3):
        step(t)
    assert optimizer.calls[0] == made
    assert [call[0] for call in optimizer.calls[1:]] == calls
    assert ("step", ("bs", 7)) in optimizer.calls if name == "SophiaG" else True


def test_lookahead_is_given_an_optimizer_and_closures_are_called():
    p = tg.ones(2, requires_grad=True)
    seen = []
    driver("Lookahead")(lambda inner, **own: seen.append((type(inner), inner.lr, own)), [p],
                        dict(base_optimizer="Adam", k=4, alpha=0.8, lr=0.25), None)
    assert seen == [(optim.Adam, 0.25, dict(k=4, alpha=0.8))]
    optimizer, step = driver("PolyakSGD")(Recorder, [p], {}, len)
    step(1)
    assert optimizer.calls[1] == ("step", len)
