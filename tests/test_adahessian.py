"""AdaHessian: recorded runs of the reference, the estimate, bad input."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim.second_order.adahessian import AdaHessian
from tinygrad_opt.optim.verify import PROBLEMS, records


@pytest.mark.parametrize("record", records("AdaHessian"), ids=lambda record: record.id)
@pytest.mark.parametrize("way", ["closure", "update_hessian"])
def test_recorded_trajectories(record, way):
    """The Hessian is diagonal there, so that every draw gives it exactly."""
    params = {key: tg.Tensor(value, requires_grad=True) for key, value in record.start.items()}
    data = {key: tg.Tensor(value) for key, value in record.data.items()}
    optimizer = AdaHessian(params.values(), **record.settings)

    def loss():
        return PROBLEMS[record.problem](data, **params)[0]

    for t in range(1, record.steps[-1] + 1):
        if way == "closure":
            optimizer.step(loss)
        else:
            optimizer.update_hessian(loss)
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        if t in record.steps:
            for key, values in record.curves["params"].items():
                wanted = values[record.steps.index(t)]
                np.testing.assert_allclose(params[key].numpy(), wanted, rtol=1e-9, atol=record.tolerance)


def test_the_estimate_is_of_the_diagonal():
    """Not of the sums of rows, [7, 8], which z of -1 alone would give."""
    H = tg.Tensor(np.array([[2.0, 5.0], [5.0, 3.0]]))
    w = tg.Tensor(np.ones(2), requires_grad=True)
    optimizer = AdaHessian([w], generator=tg.Generator(0))
    draws = []
    for _ in range(400):
        optimizer.update_hessian(lambda: w @ H @ w / 2)
        draws.append(optimizer.state[w]["hessian"].numpy().copy())
    assert {tuple(draw) for draw in draws} == {(7.0, 8.0), (-3.0, -2.0)}
    np.testing.assert_allclose(np.mean(draws, axis=0), [2, 3], atol=0.6)


def test_a_closure_that_calls_backward_works_as_well():
    ends = []
    for backward in (False, True):
        w = tg.Tensor(np.array([1.0, -2.0]), requires_grad=True)
        optimizer = AdaHessian([w])

        def closure():
            optimizer.zero_grad()
            loss = (w ** 4).sum()
            if backward:
                loss.backward()
            return loss
        for _ in range(5):
            optimizer.step(closure)
        ends.append(w.numpy())
    np.testing.assert_array_equal(*ends)


def test_state_continues_bit_for_bit():
    a, b = (tg.Tensor(np.array([1.0, -2.0]), requires_grad=True) for _ in range(2))
    one, two = AdaHessian([a], generator=tg.Generator(0)), AdaHessian([b], generator=tg.Generator(5))
    mix = tg.Tensor(np.array([[2.0, 1.0], [1.0, 3.0]]))
    for _ in range(3):
        one.step(lambda: a @ mix @ a + (a ** 4).sum())
    b.data = a.data
    two.load_state_dict(one.state_dict())
    two.generator.set_state(one.generator.get_state())
    for _ in range(3):
        one.step(lambda: a @ mix @ a + (a ** 4).sum())
        two.step(lambda: b @ mix @ b + (b ** 4).sum())
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_unused_parameters_stay():
    a, b = (tg.ones(2, requires_grad=True) for _ in range(2))
    optimizer = AdaHessian([a, b])
    optimizer.step(lambda: (a ** 2).sum())
    assert b.tolist() == [1.0, 1.0] and b.grad is None and a.tolist() != [1.0, 1.0]


def test_bad_input():
    w = tg.ones(2, requires_grad=True)
    w.grad = tg.ones(2)
    with pytest.raises(RuntimeError, match="not been estimated"):
        AdaHessian([w]).step()
    with pytest.raises(TypeError, match="returned float"):
        AdaHessian([w]).step(lambda: (w ** 2).sum().item())
    with pytest.raises(TypeError, match="returned one without"):
        AdaHessian([w]).step(lambda: (w ** 2).sum().detach())
    with pytest.raises(ValueError, match="hessian_power must lie in"):
        AdaHessian([w], hessian_power=0)


def test_it_reports_what_a_step_cost():
    w = tg.ones(2, requires_grad=True)
    optimizer = AdaHessian([w])
    assert str(optimizer.report).startswith("no step yet")
    optimizer.step(lambda: (w ** 2).sum())
    report = optimizer.report
    assert (report.functions, report.gradients, report.products, report.accepted) == (1, 1, 1, True)


@pytest.mark.parametrize("closure", [lambda: 1.0, lambda: tg.ones(())])
def test_sophia_refuses_the_same_closures(closure):
    with pytest.raises(TypeError, match="SophiaH: the closure returns the loss with its graph"):
        tg.optim.SophiaH([tg.ones(2, requires_grad=True)]).update_hessian(closure)
