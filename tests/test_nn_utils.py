"""Clipping, and parameters as one vector."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn


def with_gradients(*gradients):
    parameters = [nn.Parameter(np.zeros(np.shape(g))) for g in gradients]
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = tg.Tensor(np.asarray(gradient, "float64"))
    return parameters


def near(tensor, expected, tolerance=1e-12):
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=tolerance)


GRADIENTS = [3.0, -4.0], [[12.0]]


@pytest.mark.parametrize("norm_type, total", [(2.0, 13), (1, 19), (float("inf"), 12), (3.0, 1819 ** (1 / 3))])
def test_gradients_are_scaled_together_to_the_norm(norm_type, total):
    parameters = with_gradients(*GRADIENTS)
    before = nn.utils.clip_grad_norm_(parameters, 2.0, norm_type)
    assert type(before) is float and before == pytest.approx(total, rel=1e-12)
    for parameter, gradient in zip(parameters, GRADIENTS):
        near(parameter.grad, np.array(gradient) * (2 / (total + 1e-6)))
    assert nn.utils.clip_grad_norm_(parameters, 2.5, norm_type) == pytest.approx(2, rel=1e-5)
    near(parameters[1].grad, [[12 * 2 / (total + 1e-6)]])
    assert nn.utils.get_total_norm([p.grad for p in parameters], norm_type) == pytest.approx(2, rel=1e-5)


def test_clipping_takes_tensors_lists_generators_mappings_and_pairs():
    for convert in (list, iter, lambda p: dict(zip("ab", p)), lambda p: zip("ab", p)):
        parameters = with_gradients(*GRADIENTS)
        assert nn.utils.clip_grad_norm_(convert(parameters), 1.0) == 13
        near(parameters[1].grad, [[12 / 13]], 1e-6)
    lonely, = with_gradients([6.0, 8.0])
    assert nn.utils.clip_grad_norm_(lonely, 5) == 10
    near(lonely.grad, [3.0, 4.0], 1e-6)
    assert nn.utils.clip_grad_norm_([lonely, nn.Parameter([1.0])], 100) == pytest.approx(5, rel=1e-6)
    assert nn.utils.clip_grad_norm_([], 1.0) == nn.utils.clip_grad_norm_([nn.Parameter([1.0])], 1.0) == 0.0
    with pytest.warns(UserWarning, match="used up"):
        assert nn.utils.clip_grad_norm_(iter([]), 1.0) == 0.0


def test_clipping_writes_into_the_gradients_own_memory_and_no_other():
    layer = nn.Linear(2, 2, bias=False)
    layer(tg.ones(1, 2)).sum().backward()
    memory = layer.weight._grad
    nn.utils.clip_grad_norm_(layer.parameters(), 0.1)
    assert layer.weight._grad is memory
    seen = layer.weight.grad
    values = seen.tolist()
    nn.utils.clip_grad_value_(layer.parameters(), 0.01)
    assert seen.tolist() == values and layer.weight.grad.numpy().max() == np.float32(0.01)

    x = nn.Parameter([2.0])
    (x ** 3).sum().backward(create_graph=True)
    slope = x.grad
    nn.utils.clip_grad_norm_([x], 1.0)
    assert tg.grad(slope.sum(), x)[0].item() == 12.0 and x.grad.item() == pytest.approx(1, rel=1e-6)


def test_norms_beyond_float32_are_measured_in_float64():
    for size in (1e30, 1e-30):
        assert nn.utils.get_total_norm([tg.full((4,), size)]) == pytest.approx(2 * size, rel=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("convert, name", [(list, "1"), (lambda p: dict(zip("ab", p)), "'b'")])
def test_a_gradient_that_is_not_finite_is_named_and_nothing_is_scaled(bad, convert, name):
    parameters = with_gradients([30.0], [1.0, bad])
    with pytest.warns(RuntimeWarning, match=f"gradient of parameter {name} has NaN or infinite"):
        total = nn.utils.clip_grad_norm_(convert(parameters), 1.0)
    assert not np.isfinite(total) and parameters[0].grad.tolist() == [30.0]
    with pytest.raises(RuntimeError, match=f"gradient of parameter {name} has NaN or infinite"):
        nn.utils.clip_grad_norm_(convert(parameters), 1.0, error_if_nonfinite=True)
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        nn.utils.get_total_norm([p.grad for p in parameters], error_if_nonfinite=True)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan")])
def test_limits_are_above_zero(bad):
    parameters = with_gradients(*GRADIENTS)
    for act, name in [(lambda: nn.utils.clip_grad_norm_(parameters, bad), "max_norm"),
                      (lambda: nn.utils.clip_grad_norm_(parameters, 1.0, bad), "norm_type"),
                      (lambda: nn.utils.clip_grads_with_norm_(parameters, bad, 13.0), "max_norm"),
                      (lambda: nn.utils.clip_grad_value_(parameters, bad), "clip_value")]:
        with pytest.raises(ValueError, match=f"{name} must be above 0, got {bad}"):
            act()
    assert parameters[0].grad.tolist() == GRADIENTS[0]
    with pytest.raises(ValueError, match="total_norm must be finite"):
        nn.utils.clip_grads_with_norm_(parameters, 1.0, float("nan"))
    with pytest.raises(TypeError, match="parameter 0 must be a Tensor, got int"):
        nn.utils.clip_grad_norm_([1], 1.0)


def test_the_steps_of_clipping_are_there_one_by_one():
    whole, steps = with_gradients(*GRADIENTS), with_gradients(*GRADIENTS)
    nn.utils.clip_grad_norm_(whole, 1.0)
    nn.utils.clip_grads_with_norm_(steps, 1.0, nn.utils.get_total_norm([p.grad for p in steps]))
    for a, b in zip(whole, steps):
        assert a.grad.tolist() == b.grad.tolist()
    bent, = with_gradients([3.0, -4.0, float("nan")])
    with pytest.warns(RuntimeWarning, match="gradient of parameter 0 has NaN or infinite"):
        nn.utils.clip_grad_value_(bent, 3.5)
    np.testing.assert_array_equal(bent.grad.numpy(), [3.0, -3.5, np.nan])


def test_parameters_become_a_vector_and_return():
    layer = nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(layer.parameters())
    (vector * tg.arange(8.0)).sum().backward()
    assert layer.bias.grad.tolist() == [6.0, 7.0]
    other = nn.Linear(3, 2)
    nn.utils.vector_to_parameters(vector, other.parameters())
    assert other.weight.tolist() == layer.weight.tolist() and other.bias.tolist() == layer.bias.tolist()
    with pytest.raises(ValueError, match=r"shape \(8,\), got \(9,\)"):
        nn.utils.vector_to_parameters(tg.ones(9), other.parameters())
