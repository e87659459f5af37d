"""The optimizer page of Neural Arch, run as its users write it; only the import is ours."""
# ruff: noqa: B007 (their loops are left as they are)

import pytest
from _toy import batches, classifier, line, loss_of, weight

import tinygrad_opt as na


def train_step(model, optimizer, data):
    inputs, targets = data
    loss = na.mse_loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_basic_usage():
    inputs, targets = line(inputs=10)
    losses = []

    # Create a simple model
    model = na.Linear(10, 1)

    # Setup optimizer
    optimizer = na.Adam(model.parameters(), lr=0.001)

    # Training loop
    for epoch in range(100):
        # Forward pass
        predictions = model(inputs)
        loss = na.mse_loss(predictions, targets)
        losses.append(loss.item())

        # Backward pass
        loss.backward()

        # Update parameters
        optimizer.step()

        # Clear gradients
        optimizer.zero_grad()

    assert losses[-1] < 0.9 * losses[0]


CALLS = {
    "Adam with default parameters": lambda model: na.Adam(model.parameters(), lr=0.001),
    "Adam with custom parameters": lambda model: na.Adam(
        model.parameters(),
        lr=0.001,
        beta1=0.9,      # Momentum parameter
        beta2=0.999,    # RMSprop parameter
        eps=1e-8,       # Numerical stability
        weight_decay=0.01  # L2 regularization
    ),
    "Basic SGD": lambda model: na.SGD(model.parameters(), lr=0.01),
    "SGD with momentum": lambda model: na.SGD(
        model.parameters(),
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4
    ),
    "AdamW for better generalization": lambda model: na.AdamW(
        model.parameters(),
        lr=0.001,
        weight_decay=0.01  # Decoupled weight decay
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_constructors(call):
    model, data = na.Linear(4, 1), line()
    optimizer = call(model)
    losses = [train_step(model, optimizer, data) for _ in range(50)]
    assert losses[-1] < losses[0]


def test_betas_by_name():
    def betas(**given):
        return na.Adam([weight(1.0)], **given).param_groups[0]["betas"]
    assert betas(beta1=0.8, beta2=0.99) == (0.8, 0.99)
    assert betas(beta1=0.8) == (0.8, 0.999) and betas(beta2=0.99) == (0.9, 0.99)
    assert betas(betas=(0.8, 0.99), beta1=0.8, beta2=0.99) == (0.8, 0.99)
    with pytest.raises(TypeError, match=r"betas = \(0.9, 0.99\) and beta1 = 0.8 disagree; give one of the two"):
        betas(betas=(0.9, 0.99), beta1=0.8)
    with pytest.raises(TypeError, match="beta2 = 0.99 disagree"):
        na.Adam([weight(1.0)], 1e-3, (0.9, 0.999), beta2=0.99)
    with pytest.raises(ValueError, match=r"beta1 must lie in \[0, 1\)"):
        betas(beta1=1.0)
    with pytest.raises(TypeError, match="beta1"):
        na.SGD([weight(1.0)], beta1=0.9)


def test_learning_rate_scheduling(capsys):
    model, data = na.Linear(4, 1), line()

    # Manual learning rate scheduling
    optimizer = na.Adam(model.parameters(), lr=0.001)

    for epoch in range(100):
        # Decay learning rate every 30 epochs
        if epoch % 30 == 0 and epoch > 0:
            optimizer.lr *= 0.1

        # Training step
        loss = train_step(model, optimizer, data)

        print(f"Epoch {epoch}, LR: {optimizer.lr}, Loss: {loss}")

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 100 and printed[29].startswith("Epoch 29, LR: 0.001, ")
    assert optimizer.lr == optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


def test_lr_scales_groups_alike_and_sets_them_where_they_agree():
    optimizer = na.SGD([{"params": [weight(1.0)], "lr": 0.1}, {"params": [weight(1.0)], "lr": 0.3}])
    optimizer.lr *= 0.1
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.03])
    optimizer = na.SGD([{"params": [weight(1.0)]}, {"params": [weight(1.0)]}], lr=0.1)
    optimizer.lr = 0.5
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    with pytest.raises(ValueError, match="lr must lie in"):
        optimizer.lr = -1.0


def test_a_scheduler_keeps_a_change_of_lr():
    w = weight(1.0, grad=[1.0])
    optimizer = na.SGD([w], lr=1.0)
    scheduler = na.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    rates = []
    for epoch in range(4):
        if epoch == 1:
            optimizer.lr *= 0.1
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.lr)
    assert rates == pytest.approx([1.0, 0.05, 0.05, 0.025])


class ComplexModel(na.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = na.Linear(2, 16), na.Linear(16, 3)

    def forward(self, x):
        return self.head(na.relu(self.backbone(x)))


def test_multiple_parameter_groups():
    # Different learning rates for different parts
    model = ComplexModel()
    before = loss_of(model)

    # Get different parameter groups: named_parameters is what their parameters() is
    backbone_params = dict(model.backbone.named_parameters("backbone"))
    head_params = dict(model.head.named_parameters("head"))

    # Create optimizer with different learning rates
    all_params = {}
    all_params.update(backbone_params)
    all_params.update(head_params)

    optimizer = na.Adam(all_params, lr=0.001)

    assert optimizer.param_groups[0]["param_names"] == [*all_params] == [name for name, _ in model.named_parameters()]
    for batch in batches() * 10:
        na.cross_entropy_loss(model(batch.inputs), batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss_of(model) < before


def test_a_parameter_may_be_called_params():
    w = weight(1.0, grad=[1.0])
    optimizer = na.SGD({"params": w}, lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["params"]
    assert na.SGD({"params": [w], "lr": 0.2}).lr == 0.2          # one group


def test_advanced_training_patterns(capsys):
    model, dataloader = classifier(), batches()
    averages = []

    # Gradient clipping example
    optimizer = na.Adam(model.parameters(), lr=0.001)

    for epoch in range(100):
        total_loss = 0
        for batch in dataloader:
            # Forward pass
            predictions = model(batch.inputs)
            loss = na.cross_entropy_loss(predictions, batch.targets)

            # Backward pass
            loss.backward()

            # Update parameters
            optimizer.step()
            optimizer.zero_grad()

            total_loss += loss.data

        avg_loss = total_loss / len(dataloader)
        print(f"Epoch {epoch}, Average Loss: {avg_loss}")
        averages.append(avg_loss)

    assert averages[-1] < 0.5 * averages[0]
    assert capsys.readouterr().out.splitlines()[99] == f"Epoch 99, Average Loss: {averages[99]}"


def test_optimizer_state(capsys):
    model, data = na.Linear(4, 1), line()

    # Access optimizer internal state
    optimizer = na.Adam(model.parameters(), lr=0.001)

    # Train for some steps
    for _ in range(10):
        train_step(model, optimizer, data)

    # Check optimizer state
    print(f"Step count: {optimizer.step_count}")
    print(f"Learning rate: {optimizer.lr}")

    # Adam-specific state
    if hasattr(optimizer, 'm'):
        print("Momentum estimates available")
    if hasattr(optimizer, 'v'):
        print("RMSprop estimates available")

    assert capsys.readouterr().out.splitlines() == ["Step count: 10", "Learning rate: 0.001",
                                                    "Momentum estimates available", "RMSprop estimates available"]


@pytest.mark.parametrize("cls", na.optim.OPTIMIZERS.values(), ids=na.optim.OPTIMIZERS.keys())
def test_moments_are_the_adam_familys_alone(cls):
    both = {"exp_avg", "exp_avg_sq"} <= {*cls.state_names.values()}
    assert hasattr(cls, "m") == hasattr(cls, "v") == both


def test_moments_by_name():
    model = na.Linear(3, 2)
    optimizer = na.Adam(model.named_parameters(), beta1=0.5, beta2=0.75)
    assert optimizer.m == optimizer.v == {}
    model(na.ones(1, 3)).sum().backward()
    optimizer.step()
    assert [*optimizer.m] == [*optimizer.v] == ["weight", "bias"]
    assert optimizer.m["bias"].tolist() == [0.5, 0.5] and optimizer.v["bias"].tolist() == [0.25, 0.25]
    assert optimizer.m["weight"] is optimizer.state[model.weight]["exp_avg"].data
    assert optimizer.v["weight"] is optimizer.state[model.weight]["exp_avg_sq"].data
    with pytest.raises(AttributeError):
        optimizer.m = {}


def test_moments_by_number_where_names_would_clash():
    groups = [{"params": [*layer.named_parameters()]} for layer in (na.Linear(1, 1), na.Linear(1, 2))]
    optimizer = na.AdamW(groups)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = na.ones(*p.shape)
    optimizer.param_groups[0]["params"][1].grad = None
    optimizer.step()
    assert {key: moment.shape for key, moment in optimizer.m.items()} == {0: (1, 1), 2: (2, 1), 3: (2,)}


def test_step_count_is_saved():
    w = weight(1.0, grad=[1.0])
    optimizer, again = na.SGD([w]), na.SGD([weight(1.0)])
    for _ in range(3):
        optimizer.step()
    again.load_state_dict(optimizer.state_dict())
    assert again.step_count == 3


def test_gradients_beyond_1e6_are_clipped_with_one_warning():
    w = weight(0.0, 0.0, 0.0)
    optimizer = na.SGD([w], lr=1e-6, grad_transforms=[na.optim.Guard()])
    w.grad = na.tensor([3e9, -3e9, 1e5], dtype=na.float64)
    with pytest.warns(RuntimeWarning, match="beyond 1e") as caught:
        optimizer.step()
        optimizer.step()
    assert len(caught) == 1 and w.grad.tolist() == [1e6, -1e6, 1e5]
    assert w.tolist() == pytest.approx([-2.0, 2.0, -0.2])


@pytest.mark.parametrize("params, error, words", [
    ([], ValueError, "no parameters"), ([1.0], TypeError, "must be a Tensor, got float"),
    ([weight(1.0) * 2], ValueError, "was computed"), ([na.tensor([1])], TypeError, "int64")])
def test_parameters_are_validated(params, error, words):
    with pytest.raises(error, match=words):
        na.Adam(params, lr=0.001)


def test_updates_are_in_place():
    w = weight(1.0, grad=[1.0])
    array = w.data
    na.Adam([w], lr=0.1).step()
    assert w.data is array and array.item() == pytest.approx(0.9)
