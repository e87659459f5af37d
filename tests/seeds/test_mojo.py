"""The optimizer page of the Mojo project, run as its users write it, in Python; only the imports are ours."""
# ruff: noqa: B007 (their loops are left as they are)

import pytest
from _toy import batches, classifier, defaults, loss_of, numbers, weight

import tinygrad_opt as tg
from tinygrad_opt import CrossEntropyLoss, Tape, clip_grad_norm, clip_grad_value
from tinygrad_opt.optim import LARS, SGD, Adam, AdamW, Optimizer, RMSprop
from tinygrad_opt.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR

create_model, criterion = classifier, CrossEntropyLoss()

# ---- constructors -----------------------------------------------------------------------------------------

ADAM = dict(lr=0.001, betas=(0.9, 0.999), eps=1e-8)


@pytest.mark.parametrize("cls, options", [
    (SGD, dict(momentum=0.0, weight_decay=0.0, nesterov=False)),
    (Adam, ADAM | dict(weight_decay=0.0)),
    (AdamW, ADAM | dict(weight_decay=0.01)),
    (RMSprop, dict(lr=0.01, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0)),
    (LARS, dict(momentum=0.9, weight_decay=0.0, trust_coefficient=0.001)),
])
def test_constructors_take_parameters_and_have_the_defaults(cls, options):
    assert defaults(cls, "params", options) == options
    w = weight(1.0)
    optimizer = cls(parameters=[w], lr=0.01, **{name: value for name, value in options.items() if name != "lr"})
    group, = optimizer.param_groups
    assert group["params"] == [w] and group["lr"] == 0.01


@pytest.mark.parametrize("call", [lambda w: SGD([w], parameters=[w]), lambda w: SGD(params=[w], parameters=[w])])
def test_parameters_or_params_and_not_both(call):
    with pytest.raises(TypeError, match="SGD: parameters is another name of params; give one of the two"):
        call(weight(1.0))


CALLS = {
    "SGD": lambda model: SGD(
        model.parameters(),
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
    ),
    "Adam": lambda model: Adam(
        model.parameters(),
        lr=0.001,
        betas=(0.9, 0.999),
    ),
    "AdamW": lambda model: AdamW(
        model.parameters(),
        lr=0.001,
        weight_decay=0.01,
    ),
    "RMSprop": lambda model: RMSprop(
        model.parameters(),
        lr=0.01,
        alpha=0.99,
    ),
    # For large batch sizes (e.g., 4096+)
    "LARS": lambda model: LARS(
        model.parameters(),
        lr=0.1,
        momentum=0.9,
        trust_coefficient=0.001,
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_training_loop_of_each(call):
    model, dataloader, num_epochs = create_model(), batches(), 5
    optimizer = call(model)
    before = loss_of(model)

    with Tape() as tape:
        # Training loop
        for epoch in range(num_epochs):
            for batch in dataloader:
                optimizer.zero_grad()
                output = model.forward(batch.input)
                loss = criterion.forward(output, batch.target)
                grads = tape.backward(loss)
                optimizer.step()

    assert loss_of(model) < before
    assert {*grads} == {*model.parameters()}


def test_all_share_an_interface():
    for call in CALLS.values():
        optimizer = call(create_model())
        assert isinstance(optimizer, Optimizer)
        assert all(callable(getattr(optimizer, name))
                   for name in ("step", "zero_grad", "state_dict", "load_state_dict"))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_state_is_saved_and_restored(call):
    def trained(model, optimizer):
        for batch in batches():
            optimizer.zero_grad()
            criterion(model(batch.input), batch.target).backward()
            optimizer.step()
        return numbers(model)
    model, other = create_model(), create_model()
    optimizer, again = call(model), call(other)
    trained(model, optimizer)

    # Save state
    state = optimizer.state_dict()

    # Load state
    again.load_state_dict(state)

    other.load_state_dict(model.state_dict())
    assert trained(model, optimizer) == trained(other, again)


# ---- the tape ---------------------------------------------------------------------------------------------


def test_gradients_come_by_leaf_and_live_on_the_parameters():
    w, x, fixed = weight(1.0, -2.0), weight(3.0, 4.0), tg.tensor([1.0, 1.0], dtype=tg.float64)
    with Tape() as tape:
        loss = (w * x * x * fixed).sum()
    grads = tape.backward(loss)
    assert [*grads] == [w, x]
    assert grads[w] is w.grad and grads[x] is x.grad
    assert grads[w].tolist() == [9.0, 16.0] and grads[x].tolist() == [6.0, -16.0]


def test_gradients_are_in_the_order_of_use():
    model = create_model()
    with Tape() as tape:
        loss = criterion(model(batches()[0].input), batches()[0].target)
    assert [*tape.backward(loss)] == [*model.parameters()]


def test_gradients_of_an_earlier_step_stay_as_they_were():
    w = weight(1.0)
    kept = []
    for factor in (2.0, 3.0):
        w.grad = None
        with Tape() as tape:
            loss = (w * factor).sum()
        kept.append(tape.backward(loss)[w])
    assert [g.item() for g in kept] == [2.0, 3.0]


def test_a_tape_records_where_nothing_else_is():
    w, tape = weight(3.0), Tape()
    with tg.no_grad():
        with tape, tape:
            loss = (w * w).sum()
        assert not (w * w).requires_grad and not tg.is_grad_enabled()
    assert tg.is_grad_enabled()
    assert tape.backward(loss)[w].item() == 6.0


def test_recording_ends_with_an_error_too():
    with tg.no_grad():
        with pytest.raises(KeyError), Tape():
            raise KeyError
        assert not tg.is_grad_enabled()


def test_a_loss_from_elsewhere_is_refused():
    w, tape = weight(3.0), Tape()
    losses = [(w * w).sum()]
    with tape:
        losses += [tg.ones(1).sum(), w, 1.0]
        first = (w * w).sum()
    losses.append((w * w).sum())
    with tape:
        second = (w * w).sum()
    for loss in [*losses, first]:
        with pytest.raises(RuntimeError, match="not on this Tape; compute it inside `with tape:`"):
            tape.backward(loss)
    assert w.grad is None
    tape.backward(second)
    with pytest.raises(RuntimeError, match="retain_graph"):
        tape.backward(second)


# ---- schedules and clipping -------------------------------------------------------------------------------


def rates(scheduler_of, steps, lr=0.1):
    """Return the learning rate of each of some steps, and the one after them."""
    optimizer = SGD([weight(1.0, grad=[0.0])], lr=lr)
    scheduler, used = scheduler_of(optimizer), [optimizer.lr]
    for step in range(steps):
        optimizer.step()
        scheduler.step()
        used.append(optimizer.lr)
    return used


def test_step_lr():
    used = rates(lambda optimizer: StepLR(optimizer, step_size=30, gamma=0.1), 100)
    assert used == pytest.approx([0.1 * 0.1 ** (epoch // 30) for epoch in range(101)])


def test_cosine_annealing_lr_ends_at_0():
    used = rates(lambda optimizer: CosineAnnealingLR(optimizer, T_max=100), 100)
    assert used[0] == 0.1 and used[50] == pytest.approx(0.05) and used[100] == pytest.approx(0, abs=1e-15)


def test_one_cycle_lr_takes_exactly_its_steps():
    used = rates(lambda optimizer: OneCycleLR(
        optimizer,
        max_lr=0.1,
        total_steps=1000,
    ), 1000)
    assert max(used) == pytest.approx(0.1) and used.index(max(used)) == 299
    assert used[0] == pytest.approx(0.1 / 25) and used[999] == pytest.approx(0.1 / 25 / 1e4)


def test_clipping_without_underscores():
    model = create_model()
    for p in model.parameters():
        p.grad = tg.ones(*p.shape)

    # Clip by value
    clip_grad_value(model.parameters(), clip_value=0.5)
    assert {g for p in model.parameters() for g in p.grad.reshape(-1).tolist()} == {0.5}

    # Clip by global L2 norm
    norm = clip_grad_norm(model.parameters(), max_norm=1.0)
    assert norm == pytest.approx(0.5 * sum(p.numel() for p in model.parameters()) ** 0.5)
    assert clip_grad_norm(model.parameters(), max_norm=1.0) == pytest.approx(1.0, rel=1e-5)


def test_complete_training_loop():
    model = create_model()
    optimizer = AdamW(model.parameters(), lr=0.001)
    scheduler = CosineAnnealingLR(optimizer, T_max=100)
    criterion = CrossEntropyLoss()
    train_loader, before = batches(), loss_of(model)

    for epoch in range(100):
        model.train()
        for batch in train_loader:
            # Forward pass
            tape = Tape()
            with tape:
                output = model.forward(batch.input)
                loss = criterion.forward(output, batch.target)

            # Backward pass
            optimizer.zero_grad()
            grads = tape.backward(loss)

            # Gradient clipping
            clip_grad_norm(model.parameters(), max_norm=1.0)

            # Update weights
            optimizer.step()

        # Update learning rate
        scheduler.step()

    assert loss_of(model) < 0.7 * before
    assert {*grads} == {*model.parameters()} and optimizer.step_count == 300
