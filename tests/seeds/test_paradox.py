"""The optimizer page of the Paradox framework, run as its users write it; only the imports are ours."""

import inspect

import pytest
from _toy import classifier, clouds, loss_of, numbers, weight

import tinygrad_opt as tg
from tinygrad_opt.nn import CrossEntropyLoss
from tinygrad_opt.optim import SGD, Adam, AdamW, Optimizer, clip_grad_norm_


def test_usage_example():
    model, criterion = classifier(), CrossEntropyLoss()
    points, labels = clouds().tensors
    before = loss_of(model)

    # Define parameters to optimize
    optimizer = Adam(model.parameters(), lr=0.001, weight_decay=0.01)

    # Training loop
    for _ in range(50):
        loss = criterion(model(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert loss_of(model) < 0.9 * before


@pytest.mark.parametrize("norm_type, norm", [(2, 5.0), (1, 7.0), (float("inf"), 4.0)])
def test_clipping_scales_only_beyond_the_threshold(norm_type, norm):
    parameters = [weight(0.0, grad=[3.0]), weight(0.0, grad=[-4.0])]
    assert clip_grad_norm_(parameters, 10, norm_type) == pytest.approx(norm)
    assert [p.grad.item() for p in parameters] == [3.0, -4.0]
    assert clip_grad_norm_(parameters, max_norm=1.0, norm_type=norm_type) == pytest.approx(norm)
    assert [p.grad.item() for p in parameters] == pytest.approx([3 / norm, -4 / norm], rel=1e-5)


def test_the_norm_is_euclidean_by_default():
    assert inspect.signature(clip_grad_norm_).parameters["norm_type"].default == 2
    assert clip_grad_norm_([weight(0.0, 0.0, grad=[3.0, 4.0])], 1.0) == 5.0


def test_base_class_keeps_groups_and_defaults_and_its_step_is_abstract():
    w = weight(1.0, grad=[1.0])
    optimizer = Optimizer([w], {"lr": 0.1})
    assert optimizer.param_groups[0]["params"] == [w] and optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.defaults["lr"] == 0.1
    with pytest.raises(NotImplementedError, match="has no rule"):
        optimizer.step()


def test_zero_grad_takes_no_argument_and_either_way_trains_alike():
    def trained(**how):
        model = classifier()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        for points, labels in tg.data.DataLoader(clouds(), batch_size=32):
            optimizer.zero_grad(**how)
            CrossEntropyLoss()(model(points), labels).backward()
            optimizer.step()
        return numbers(model)
    assert trained() == trained(set_to_none=False)


@pytest.mark.parametrize("set_to_none, expected", [(False, 0.7821), (True, 0.89)])
def test_what_a_zero_gradient_still_does(set_to_none, expected):
    w = weight(1.0, grad=[1.0])
    optimizer = SGD([w], lr=0.1, momentum=0.9, weight_decay=0.1)
    optimizer.step()
    optimizer.zero_grad(set_to_none)
    assert w.grad is None if set_to_none else w.grad.item() == 0.0
    optimizer.step()
    assert w.item() == pytest.approx(expected, abs=1e-12)


def test_sgd_has_momentum_and_decay_as_options():
    plain, heavy = weight(1.0), weight(1.0)
    optimizers = [SGD([plain], lr=0.1, weight_decay=0.1), SGD([heavy], lr=0.1, momentum=0.5)]
    for _ in range(2):
        plain.grad, heavy.grad = plain.detach().clone(), heavy.detach().clone()
        for optimizer in optimizers:
            optimizer.step()
    assert plain.item() == pytest.approx((1 - 0.1 * 1.1) ** 2)
    assert heavy.item() == pytest.approx(0.9 - 0.1 * (0.5 * 1.0 + 0.9))
    assert optimizers[1].state[heavy]["momentum_buffer"].item() == pytest.approx(1.4)
    assert "momentum_buffer" not in optimizers[0].state[plain]


def test_adam_keeps_two_arrays_a_parameter():
    model = classifier()
    optimizer = Adam(model.parameters())
    CrossEntropyLoss()(model(clouds().tensors[0]), clouds().tensors[1]).backward()
    optimizer.step()
    for p in model.parameters():
        kept = {name: state.shape for name, state in optimizer.state[p].items() if isinstance(state, tg.Tensor)}
        assert kept == {"exp_avg": p.shape, "exp_avg_sq": p.shape}


def test_its_adam_is_adamw_and_one_switch_away():
    def stepped(optimizer, **options):
        w = weight(2.0, -3.0)
        optimizer = optimizer([w], lr=0.1, weight_decay=0.01, **options)
        for _ in range(5):
            w.grad = w.detach() ** 3
            optimizer.step()
        return w.tolist()
    assert stepped(Adam, decoupled_weight_decay=True) == stepped(AdamW) != stepped(Adam)


def test_decay_comes_before_the_adaptive_step():
    w = weight(2.0, grad=[4.0])
    AdamW([w], lr=0.1, weight_decay=0.5).step()
    assert w.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-9)
