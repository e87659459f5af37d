"""The optimizer page of Genesis, run as its users write it; only the imports are ours."""
# ruff: noqa: B007 (their loops are left as they are)

import math

import pytest
from _toy import batches, classifier, clouds, defaults, line, loss_of, numbers, weight

import tinygrad_opt as genesis
import tinygrad_opt.nn as nn
import tinygrad_opt.optim as optim
from tinygrad_opt.optim.lr_scheduler import CosineAnnealingLR

criterion = nn.CrossEntropyLoss()
num_epochs = 10


@pytest.fixture
def autocast_off_again():
    yield
    genesis.enable_autocast = False


class Mapped(genesis.data.Dataset):
    """The points, as samples that are read by key."""

    def __len__(self):
        return len(clouds())

    def __getitem__(self, index):
        point, label = clouds()[index]
        return {"input": point, "target": label}


class Features(nn.Module):
    """A model of named parts."""

    def __init__(self):
        super().__init__()
        self.features, self.norm, self.classifier = nn.Linear(2, 16), nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x):
        return self.classifier(genesis.relu(self.norm(self.features(x))))


def train(model, optimizer, epochs=5):
    """Train as the page does and return the loss before and after."""
    before = loss_of(model)
    for batch in batches() * epochs:
        optimizer.zero_grad()
        criterion(model(batch.input), batch.target).backward()
        optimizer.step()
    return before, loss_of(model)


# ---- signatures -------------------------------------------------------------------------------------------

ADAM = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0, amsgrad=False)


@pytest.mark.parametrize("callable_, first, options", [
    (optim.SGD, "params", dict(momentum=0, dampening=0, weight_decay=0, nesterov=False)),
    (optim.Adam, "params", ADAM),
    (optim.AdamW, "params", ADAM | dict(weight_decay=0.01)),
    (optim.RMSprop, "params", dict(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False)),
    (nn.utils.clip_grad_norm_, "parameters", dict(norm_type=2.0, error_if_nonfinite=False)),
    (optim.Optimizer.step, "self", dict(closure=None)),
    (optim.Optimizer.zero_grad, "self", dict(set_to_none=True)),
])
def test_signatures(callable_, first, options):
    assert defaults(callable_, first, options) == options


# ---- the methods of the base class ------------------------------------------------------------------------


def test_step_returns_the_loss_of_a_closure():
    w = weight(3.0)
    optimizer = optim.SGD([w], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss
    assert optimizer.step(closure).item() == 9.0 and w.item() == pytest.approx(2.4)
    assert optimizer.step() is None


def test_zero_grad():
    w = weight(1.0, grad=[1.0])
    optimizer = optim.SGD([w])
    optimizer.zero_grad()
    assert w.grad is None
    w.grad = genesis.tensor([1.0], dtype=genesis.float64)
    optimizer.zero_grad(set_to_none=False)
    assert w.grad.tolist() == [0.0]


def test_state_through_a_file_continues_bit_for_bit(tmp_path):
    path = tmp_path / 'optimizer_checkpoint.pth'
    model, other = classifier(), classifier(seed=1)
    optimizer, resumed = (optim.AdamW(m.parameters(), lr=0.01, amsgrad=True) for m in (model, other))
    train(model, optimizer, epochs=2)

    # Save optimizer state
    state = optimizer.state_dict()
    genesis.save(state, path)
    other.load_state_dict(model.state_dict())

    # Restore optimizer state
    state = genesis.load(path)
    resumed.load_state_dict(state)

    assert train(model, optimizer) == train(other, resumed)
    assert numbers(model) == numbers(other)


def test_add_param_group():
    model, new_layer = classifier(), nn.Linear(3, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    # Add new layer with different learning rate
    optimizer.add_param_group({
        'params': new_layer.parameters(),
        'lr': 0.001
    })

    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.001]
    assert optimizer.param_groups[1]["params"] == [*new_layer.parameters()]


def test_adjusting_a_group_takes_effect():
    w = weight(1.0, grad=[1.0])
    optimizer = optim.SGD([w], lr=0.1)
    optimizer.step()

    # Manually adjust learning rates
    for group in optimizer.param_groups:
        group['lr'] *= 0.9

    optimizer.step()
    assert w.item() == pytest.approx(1 - 0.1 - 0.09)


# ---- the usage examples of each optimizer -----------------------------------------------------------------

CALLS = {
    # Basic SGD
    "SGD": lambda model: optim.SGD(model.parameters(), lr=0.01),
    # SGD with momentum (recommended for most tasks)
    "momentum": lambda model: optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    # SGD with weight decay
    "decay": lambda model: optim.SGD(model.parameters(), lr=0.01,
                                     momentum=0.9, weight_decay=1e-4),
    # Nesterov accelerated gradient
    "nesterov": lambda model: optim.SGD(model.parameters(), lr=0.01,
                                        momentum=0.9, nesterov=True),
    # Different learning rates for different layers
    "layers": lambda model: optim.SGD([
        {'params': model.features.parameters(), 'lr': 0.001},
        {'params': model.classifier.parameters(), 'lr': 0.01}
    ], momentum=0.9),
    # Default Adam (most common)
    "Adam": lambda model: optim.Adam(model.parameters()),
    # Custom learning rate
    "lr": lambda model: optim.Adam(model.parameters(), lr=0.001),
    # Transformer model settings
    "transformer": lambda model: optim.Adam(model.parameters(), lr=0.0001,
                                            betas=(0.9, 0.98), eps=1e-9),
    # With weight decay
    "L2": lambda model: optim.Adam(model.parameters(), lr=0.001,
                                   weight_decay=1e-5),
    # Fine-tuning with different learning rates
    "fine-tuning": lambda model: optim.Adam([
        {'params': model.features.parameters(), 'lr': 1e-5},
        {'params': model.norm.parameters(), 'lr': 1e-4},
        {'params': model.classifier.parameters(), 'lr': 1e-3}
    ]),
    # Using AMSGrad variant
    "amsgrad": lambda model: optim.Adam(model.parameters(), lr=0.001, amsgrad=True),
    # Default AdamW (recommended for Transformers)
    "AdamW": lambda model: optim.AdamW(model.parameters()),
    # BERT/GPT standard settings
    "BERT": lambda model: optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01),
    # Large model training
    "large": lambda model: optim.AdamW(model.parameters(), lr=1e-4,
                                       betas=(0.9, 0.95), weight_decay=0.1),
    "RMSprop": lambda model: optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9, centered=True),
    # The selection guide
    "ResNet": lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4),
    "recommended Adam": lambda model: optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_usage_examples(call):
    genesis.manual_seed(0)
    model = Features()
    before, after = train(model, call(model))
    assert after < before


def test_groups_with_no_global_lr():
    model = Features()
    optimizer = CALLS["layers"](model)
    assert [(group["lr"], group["momentum"]) for group in optimizer.param_groups] == [(0.001, 0.9), (0.01, 0.9)]


@pytest.mark.parametrize("amsgrad", [False, True])
def test_state_variables_of_adam(amsgrad):
    w = weight(1.0, grad=[1.0])
    optimizer = optim.Adam([w], amsgrad=amsgrad)
    optimizer.step()
    assert {*optimizer.state[w]} == {"step", "exp_avg", "exp_avg_sq"} | ({"max_exp_avg_sq"} if amsgrad else set())
    assert optimizer.state[w]["step"] == 1


@pytest.mark.parametrize("cls, decay", [(optim.Adam, 0.0), (optim.AdamW, 0.1)])
def test_formulas_of_adam_and_adamw(cls, decay):
    w, p, m, v = weight(2.0), 2.0, 0.0, 0.0
    optimizer = cls([w], lr=0.1, betas=(0.9, 0.99), weight_decay=decay)
    for t in range(1, 6):
        w.grad, g = 3 * w.detach() ** 2, 3 * p ** 2
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        p = p * (1 - 0.1 * decay) - 0.1 * (m / (1 - 0.9 ** t)) / (math.sqrt(v / (1 - 0.99 ** t)) + 1e-8)
        assert w.item() == pytest.approx(p, abs=1e-12)


def test_decay_of_adam_is_in_the_gradient():
    w = weight(2.0, grad=[1.0])
    optimizer = optim.Adam([w], weight_decay=0.5)
    optimizer.step()
    assert optimizer.state[w]["exp_avg"].item() == pytest.approx(0.1 * (1.0 + 0.5 * 2.0))


def test_exclude_bias_and_normalization_from_weight_decay():
    model = Features()

    # Exclude bias and normalization from weight decay
    decay_params = []
    no_decay_params = []
    for name, param in model.named_parameters():
        if any(nd in name for nd in ['bias', 'norm', 'ln']):
            no_decay_params.append(param)
        else:
            decay_params.append(param)

    optimizer = optim.AdamW([
        {'params': decay_params, 'weight_decay': 0.01},
        {'params': no_decay_params, 'weight_decay': 0.0}
    ], lr=1e-4)

    assert decay_params == [model.features.weight, model.classifier.weight] and len(no_decay_params) == 4
    ours = optim.decay_groups(model, weight_decay=0.01)
    assert [group["params"] for group in ours] == [group["params"] for group in optimizer.param_groups]
    before, after = train(model, optimizer)
    assert after < before


# ---- clipping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type, norm", [(2.0, 5.0), (1, 7.0), (math.inf, 4.0)])
def test_clip_grad_norm_returns_the_norm_before(norm_type, norm):
    w = weight(0.0, 0.0, grad=[3.0, -4.0])
    total = nn.utils.clip_grad_norm_(iter([w]), max_norm=1.0, norm_type=norm_type)
    assert type(total) is float and total == pytest.approx(norm)
    assert w.grad.tolist() == pytest.approx([3 / norm, -4 / norm], rel=1e-5)


def test_clip_grad_norm_and_what_is_not_finite():
    w = weight(0.0, 0.0, grad=[3.0, math.inf])
    with pytest.warns(RuntimeWarning, match="nothing was clipped"):
        assert nn.utils.clip_grad_norm_([w], max_norm=1.0) == math.inf
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        nn.utils.clip_grad_norm_([w], max_norm=1.0, error_if_nonfinite=True)


def test_clip_grad_value_returns_nothing():
    w = weight(0.0, 0.0, grad=[0.5, -4.0])
    assert nn.utils.clip_grad_value_([w], clip_value=1.0) is None
    assert w.grad.tolist() == [0.5, -1.0]


# ---- training ---------------------------------------------------------------------------------------------


def test_basic_training_loop(capsys):
    MyModel, train_loader = classifier, genesis.data.DataLoader(clouds(), batch_size=1)

    # Model and optimizer setup
    model = MyModel()
    before = loss_of(model)
    optimizer = optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()

    # Training loop
    for epoch in range(num_epochs):
        model.train()
        for batch_idx, (data, target) in enumerate(train_loader):
            # Zero gradients
            optimizer.zero_grad()

            # Forward pass
            output = model(data)
            loss = criterion(output, target)

            # Backward pass
            loss.backward()

            # Gradient clipping (optional)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

            # Update parameters
            optimizer.step()

            if batch_idx % 100 == 0:
                print(f'Epoch: {epoch}, Batch: {batch_idx}, Loss: {loss.item():.4f}')

    assert loss_of(model) < 0.5 * before
    assert len(capsys.readouterr().out.splitlines()) == num_epochs


def test_mixed_precision(autocast_off_again):
    TransformerModel, train_loader = Features, genesis.data.DataLoader(Mapped(), batch_size=32)

    # Enable mixed precision
    genesis.enable_autocast = True

    # Model setup
    model = TransformerModel()
    optimizer = optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)
    before = loss_of(model)

    for epoch in range(num_epochs):
        for batch in train_loader:
            optimizer.zero_grad()

            # Use autocast for mixed precision
            with genesis.autocast():
                outputs = model(batch['input'])
                loss = criterion(outputs, batch['target'])

            # Backward pass
            loss.backward()

            # Gradient clipping
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

            # Optimizer step
            optimizer.step()

    assert outputs.dtype == "float16" and loss.dtype == "float32"
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {genesis.float32}
    assert loss_of(model) < before


def test_the_switch_of_the_process(autocast_off_again):
    def product():
        return (genesis.ones(2, 2) @ genesis.ones(2, 2)).dtype
    assert genesis.enable_autocast is False and product() == "float32"
    genesis.enable_autocast = True
    assert genesis.enable_autocast is True and product() == "float16"
    genesis.enable_autocast = False
    assert genesis.enable_autocast is False and product() == "float32"
    with genesis.autocast():
        assert genesis.enable_autocast is True and product() == "float16"


def test_learning_rate_scheduling(capsys):
    def compute_loss(model, batch):
        return criterion(model(batch.input), batch.target)

    model, train_loader, num_epochs = classifier(), batches(size=96), 100
    before = loss_of(model)

    # Optimizer and scheduler
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = CosineAnnealingLR(optimizer, T_max=100, eta_min=1e-6)

    for epoch in range(num_epochs):
        # Training
        for batch in train_loader:
            optimizer.zero_grad()
            loss = compute_loss(model, batch)
            loss.backward()
            optimizer.step()

        # Update learning rate
        scheduler.step()
        print(f'Epoch {epoch}, LR: {scheduler.get_last_lr()[0]:.6f}')

    printed = capsys.readouterr().out.splitlines()
    assert [printed[0], printed[24], printed[99]] == ["Epoch 0, LR: 0.001000", "Epoch 24, LR: 0.000854",
                                                      "Epoch 99, LR: 0.000001"]
    assert loss_of(model) < before


def test_gradient_accumulation():
    train_loader = genesis.data.DataLoader(Mapped(), batch_size=24)
    model, whole = classifier(), classifier()
    optimizer, at_once = (optim.SGD(m.parameters(), lr=0.1) for m in (model, whole))

    # Simulate larger batch size through accumulation
    accumulation_steps = 4
    optimizer.zero_grad()

    for i, batch in enumerate(train_loader):
        # Forward pass
        outputs = model(batch['input'])
        loss = criterion(outputs, batch['target'])

        # Normalize loss by accumulation steps
        loss = loss / accumulation_steps
        loss.backward()

        # Update weights every accumulation_steps
        if (i + 1) % accumulation_steps == 0:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
            optimizer.zero_grad()

    points, labels = clouds().tensors
    criterion(whole(points), labels).backward()
    nn.utils.clip_grad_norm_(whole.parameters(), max_norm=1.0)
    at_once.step()
    assert optimizer.step_count == 1
    for p, q in zip(model.parameters(), whole.parameters()):
        assert genesis.abs(p - q).max().item() < 1e-6


def test_regression_with_the_loss_of_the_module():
    inputs, targets = line()
    model = nn.Linear(4, 1)
    optimizer = optim.RMSprop(model.parameters())
    losses = []
    for _ in range(20):
        optimizer.zero_grad(set_to_none=True)
        loss = nn.MSELoss()(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
