"""The optimization page of Neurenix, run as its users write it; only the imports are ours."""
# ruff: noqa: B007 (their loops are left as they are)

import copy
import pickle

import pytest
from _toy import classifier, clouds, defaults, loss_of, weight

import tinygrad_opt as neurenix
from tinygrad_opt.data import DataLoader
from tinygrad_opt.nn import Linear, Module, ReLU
from tinygrad_opt.optim import SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp
from tinygrad_opt.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

loss_function = neurenix.nn.CrossEntropyLoss()

# ---- names, signatures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls, theirs, ours", [(RMSProp, "RMSProp", "RMSprop"), (AdaGrad, "AdaGrad", "Adagrad")])
def test_other_spellings_are_the_same_class(cls, theirs, ours):
    assert {getattr(place, name) for place in (neurenix, neurenix.optim) for name in (theirs, ours)} == {cls}
    optimizer = cls(params=[weight(1.0)], lr=0.1)
    assert repr(optimizer).startswith(ours + " (")
    assert type(pickle.loads(pickle.dumps(optimizer))) is type(copy.deepcopy(optimizer)) is cls


@pytest.mark.parametrize("name", ["SGD", "AdaGrad", "RMSProp", "Adam", "AdamW", "NAdam", "RAdam", "AdaBelief", "LAMB",
                                  "LARS"])
def test_every_first_order_method_trains(name):
    model = classifier()
    optimizer = getattr(neurenix.optim, name)(params=model.parameters(), lr=0.01)
    assert isinstance(optimizer, Optimizer)
    before = loss_of(model)
    train(model, optimizer, DataLoader(clouds(), batch_size=32), loss_function, epochs=5)
    assert loss_of(model) < before


ADAM = dict(betas=(0.9, 0.999), eps=1e-8, amsgrad=False)
SCHEDULER = "optimizer"


@pytest.mark.parametrize("callable_, first, options", [
    (Adam, "params", ADAM | dict(weight_decay=0)), (AdamW, "params", ADAM | dict(weight_decay=0.01)),
    (StepLR, SCHEDULER, dict(gamma=0.1)), (CosineAnnealingLR, SCHEDULER, dict(eta_min=0)),
    (ReduceLROnPlateau, SCHEDULER, dict(mode='min', factor=0.1, patience=10, threshold=1e-4, min_lr=0)),
    (Optimizer.step, "self", dict(closure=None)),
])
def test_signatures(callable_, first, options):
    assert defaults(callable_, first, options) == options


def test_base_class_is_subclassed_with_params_and_defaults():
    class Plain(Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, dict(lr=lr))

        def rule(p, g, lr):
            p = p - lr * g
            return p

    w = weight(1.0, grad=[2.0])
    optimizer = Plain(params=[w])
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    assert w.item() == pytest.approx(0.8) and w.grad.item() == 0.0
    optimizer.add_param_group({"params": weight(1.0), "lr": 0.3})
    again = Plain([{"params": [weight(0.0)]}, {"params": [weight(0.0)]}])
    again.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in again.param_groups] == [0.1, 0.3]


OPTIMIZERS = {
    # Stochastic Gradient Descent
    "SGD": lambda model: SGD(
        params=model.parameters(),
        lr=0.01,                # Learning rate
        momentum=0.9,           # Momentum factor
        weight_decay=1e-5,      # Weight decay (L2 penalty)
        dampening=0,            # Dampening for momentum
        nesterov=True           # Enable Nesterov momentum
    ),
    # Adam optimizer
    "Adam": lambda model: Adam(
        params=model.parameters(),
        lr=0.001,               # Learning rate
        betas=(0.9, 0.999),     # Coefficients for computing running averages of gradient and its square
        eps=1e-8,               # Term added to the denominator to improve numerical stability
        weight_decay=0,         # Weight decay (L2 penalty)
        amsgrad=False           # Whether to use the AMSGrad variant
    ),
    # AdamW optimizer
    "AdamW": lambda model: AdamW(
        params=model.parameters(),
        lr=0.001,               # Learning rate
        betas=(0.9, 0.999),     # Coefficients for computing running averages of gradient and its square
        eps=1e-8,               # Term added to the denominator to improve numerical stability
        weight_decay=0.01,      # Weight decay (decoupled from learning rate)
        amsgrad=False           # Whether to use the AMSGrad variant
    ),
    # Consider AdamW for Transformers
    "transformers": lambda model: neurenix.optim.AdamW(
        params=model.parameters(),
        lr=5e-5,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.01
    ),
    # Use SGD with Momentum for CNNs
    "CNNs": lambda model: neurenix.optim.SGD(
        params=model.parameters(),
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
        nesterov=True
    ),
}


@pytest.mark.parametrize("call", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_constructors(call):
    model = classifier()
    optimizer, before = call(model), loss_of(model)
    train(model, optimizer, DataLoader(clouds(), batch_size=32), loss_function, epochs=5)
    assert loss_of(model) < before


# ---- schedulers -------------------------------------------------------------------------------------------

SCHEDULERS = {
    # Step LR scheduler
    "StepLR": (lambda optimizer: StepLR(
        optimizer=optimizer,
        step_size=30,           # Period of learning rate decay
        gamma=0.1               # Multiplicative factor of learning rate decay
    ), 0.001 * 0.1 ** 2),
    # Cosine Annealing LR scheduler
    "CosineAnnealingLR": (lambda optimizer: CosineAnnealingLR(
        optimizer=optimizer,
        T_max=100,              # Maximum number of iterations
        eta_min=0               # Minimum learning rate
    ), 0.00034549),
    # Reduce LR On Plateau scheduler: the metric of the test falls once and then stays for 60 epochs
    "ReduceLROnPlateau": (lambda optimizer: ReduceLROnPlateau(
        optimizer=optimizer,
        mode='min',             # lr will be reduced when the quantity monitored has stopped decreasing
        factor=0.1,             # Factor by which the learning rate will be reduced
        patience=10,            # Number of epochs with no improvement after which learning rate will be reduced
        threshold=1e-4,         # Threshold for measuring the new optimum
        min_lr=0                # Lower bound on the learning rate
    ), 1e-8),
    "ExponentialLR": (lambda optimizer: ExponentialLR(optimizer, gamma=0.9), 0.001 * 0.9 ** 60),
    "OneCycleLR": (lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=61), 0.1 / 25 / 1e4),
    "CosineAnnealingWarmRestarts": (lambda optimizer: CosineAnnealingWarmRestarts(optimizer, T_0=30), 0.001),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_and_their_dispatch(name):
    scheduler_of, rate_after_60 = SCHEDULERS[name]
    optimizer = Adam([weight(1.0, grad=[0.0])], lr=0.001)
    scheduler = scheduler_of(optimizer)
    assert isinstance(scheduler, ReduceLROnPlateau) == (name == "ReduceLROnPlateau")
    for epoch in range(60):
        optimizer.step()
        val_loss = 1.0 if epoch else 2.0
        # Update learning rate
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(val_loss)
        else:
            scheduler.step()
    current_lr = optimizer.param_groups[0]['lr']
    assert current_lr == pytest.approx(rate_after_60, rel=1e-4)


def warmup_scheduler(optimizer, warmup_steps, target_lr):
    def lr_lambda(step):
        if step < warmup_steps:
            return float(step) / float(max(1, warmup_steps))
        return 1.0

    return neurenix.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda)


def test_warm_up_begins_at_a_rate_of_0():
    w = weight(1.0, grad=[1.0])
    optimizer = SGD([w], lr=0.1)
    scheduler, places = warmup_scheduler(optimizer, 4, 0.1), []
    for _ in range(6):
        optimizer.step()
        scheduler.step()
        places.append(w.item())
    assert places == pytest.approx([1.0, 0.975, 0.925, 0.85, 0.75, 0.65])


def test_step_decay_by_its_whole_name():
    optimizer = SGD([weight(1.0)], lr=0.1)
    scheduler = neurenix.optim.lr_scheduler.StepLR(
        optimizer,
        step_size=30,
        gamma=0.1
    )
    assert isinstance(scheduler, StepLR) and scheduler.get_last_lr() == [0.1]


# ---- gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip_grad_norm", "clip_grad_value"])
def test_clipping_is_found_in_three_places_under_two_names(name):
    places = (neurenix, neurenix.optim, neurenix.nn.utils)
    assert len({getattr(place, spelling) for place in places for spelling in (name, name + "_")}) == 1


def train_step(model, optimizer, inputs, targets):
    # Forward pass
    outputs = model(inputs)
    loss = loss_function(outputs, targets)

    # Backward pass
    optimizer.zero_grad()
    loss.backward()

    # Clip gradients
    neurenix.optim.clip_grad_norm_(model.parameters(), max_norm=1.0)

    # Update parameters
    optimizer.step()

    return loss.item()


def test_clipping_in_a_step():
    model = classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    losses = [train_step(model, optimizer, *clouds().tensors) for _ in range(20)]
    assert losses[-1] < losses[0] and all(type(loss) is float for loss in losses)


def train_with_accumulation(model, optimizer, data_loader, accumulation_steps=4):
    model.train()
    optimizer.zero_grad()

    for i, (inputs, targets) in enumerate(data_loader):
        # Forward pass
        outputs = model(inputs)
        loss = loss_function(outputs, targets) / accumulation_steps

        # Backward pass
        loss.backward()

        # Update weights after accumulation_steps
        if (i + 1) % accumulation_steps == 0:
            optimizer.step()
            optimizer.zero_grad()


def test_accumulation_is_one_large_batch():
    model, whole = classifier(), classifier()
    train_with_accumulation(model, SGD(model.parameters(), lr=0.1), DataLoader(clouds(), batch_size=24))
    train_with_accumulation(whole, SGD(whole.parameters(), lr=0.1), DataLoader(clouds(), batch_size=96), 1)
    for p, q in zip(model.parameters(), whole.parameters()):
        assert neurenix.abs(p - q).max().item() < 1e-6


def test_normalization_and_noise_go_into_the_optimizer():
    neurenix.manual_seed(0)
    w = weight(0.0, 0.0, grad=[3.0, 4.0])
    transforms = [neurenix.optim.Normalize(), neurenix.optim.Noise(eta=1e-6)]
    SGD([w], lr=1.0, grad_transforms=transforms).step()
    assert w.tolist() != [-0.6, -0.8] and w.tolist() == pytest.approx([-0.6, -0.8], abs=0.01)


# ---- tutorials --------------------------------------------------------------------------------------------


# Define a simple neural network
class SimpleNN(Module):
    def __init__(self, input_size, hidden_size, output_size):
        super(SimpleNN, self).__init__()  # noqa: UP008
        self.fc1 = Linear(input_size, hidden_size)
        self.relu = ReLU()
        self.fc2 = Linear(hidden_size, output_size)

    def forward(self, x):
        x = self.fc1(x)
        x = self.relu(x)
        x = self.fc2(x)
        return x


# Training loop
def train(model, optimizer, data_loader, loss_fn, epochs=10):
    model.train()

    for epoch in range(epochs):
        running_loss = 0.0
        correct = 0
        total = 0

        for inputs, targets in data_loader:
            # Zero the parameter gradients
            optimizer.zero_grad()

            # Forward pass
            outputs = model(inputs)
            loss = loss_fn(outputs, targets)

            # Backward pass and optimize
            loss.backward()
            optimizer.step()

            # Statistics
            running_loss += loss.item()
            _, predicted = outputs.max(1)
            total += targets.size(0)
            correct += predicted.eq(targets).sum().item()

        # Print epoch statistics
        accuracy = 100.0 * correct / total
        print(f"Epoch {epoch+1}/{epochs}, Loss: {running_loss/len(data_loader):.4f}, Accuracy: {accuracy:.2f}%")


@pytest.mark.parametrize("chosen", ["optimizer_sgd", "optimizer_adam"])
def test_basic_optimization(chosen, capsys):
    train_dataset, _ = neurenix.data.digits()
    neurenix.manual_seed(0)

    # Create a model
    model = SimpleNN(input_size=64, hidden_size=128, output_size=10)

    # Create a loss function
    loss_fn = neurenix.nn.CrossEntropyLoss()

    # Create an optimizer (SGD)
    optimizer_sgd = SGD(
        params=model.parameters(),
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-5,
        nesterov=True
    )

    # Create an optimizer (Adam)
    optimizer_adam = Adam(
        params=model.parameters(),
        lr=0.001,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-5
    )

    # Choose which optimizer to use
    optimizer = {"optimizer_sgd": optimizer_sgd, "optimizer_adam": optimizer_adam}[chosen]

    # Create a data loader
    train_loader = DataLoader(train_dataset, batch_size=64, shuffle=True)

    # Train the model
    train(model, optimizer, train_loader, loss_fn, epochs=10)

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 10 and printed[9].startswith("Epoch 10/10, Loss: ")
    assert float(printed[9].split("Accuracy: ")[1].rstrip("%")) > 90


# Training loop with learning rate scheduling
def train_with_scheduler(model, optimizer, scheduler, data_loader, val_loader, loss_fn, epochs=100):
    model.train()

    for epoch in range(epochs):
        # Training
        for inputs, targets in data_loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = loss_fn(outputs, targets)
            loss.backward()
            optimizer.step()

        # Validation
        model.eval()
        val_loss = 0.0
        correct = 0
        total = 0

        with neurenix.no_grad():
            for inputs, targets in val_loader:
                outputs = model(inputs)
                loss = loss_fn(outputs, targets)
                val_loss += loss.item()

                _, predicted = outputs.max(1)
                total += targets.size(0)
                correct += predicted.eq(targets).sum().item()

        val_loss /= len(val_loader)
        accuracy = 100.0 * correct / total

        # Update learning rate
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(val_loss)
        else:
            scheduler.step()

        # Print statistics
        current_lr = optimizer.param_groups[0]['lr']
        print(f"Epoch {epoch+1}/{epochs}, Val Loss: {val_loss:.4f}, Accuracy: {accuracy:.2f}%, LR: {current_lr:.6f}")

        model.train()


TUTORIAL = {
    "step": (lambda optimizer: StepLR(
        optimizer=optimizer,
        step_size=30,
        gamma=0.1
    ), "0.000001"),
    "cosine": (lambda optimizer: CosineAnnealingLR(
        optimizer=optimizer,
        T_max=100,
        eta_min=1e-6
    ), "0.000001"),
    "plateau": (lambda optimizer: ReduceLROnPlateau(optimizer=optimizer, patience=10), "0.001000"),
}


@pytest.mark.parametrize("scheduler, last", TUTORIAL.values(), ids=TUTORIAL.keys())
def test_learning_rate_scheduling(scheduler, last, capsys):
    # Create a model and optimizer
    model = classifier()
    optimizer = Adam(model.parameters(), lr=0.001)
    loader = DataLoader(clouds(), batch_size=64, shuffle=True, generator=0)
    before = loss_of(model)

    train_with_scheduler(model, optimizer, scheduler(optimizer), loader, loader, loss_function)

    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 100 and printed[99].endswith(f"LR: {last}")
    assert loss_of(model) < 0.8 * before and model.training
