"""K-FAC: its factors are the Fisher block where the paper says so; its damping, its precautions, its bad input."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.optim.second_order.kfac import KFAC, Quadratic


def data(n=12, inputs=4, classes=3, seed=0):
    random = np.random.default_rng(seed)
    return tg.Tensor(random.standard_normal((n, inputs))), tg.Tensor(random.integers(0, classes, n))


def network(*sizes, seed=0, activation=nn.Tanh):
    generator = tg.Generator(seed)
    modules = []
    for a, b in zip(sizes, sizes[1:]):
        modules += [nn.Linear(a, b, dtype="float64", generator=generator), activation()]
    return nn.Sequential(*modules[:-1])


def homogeneous(x):
    return np.concatenate([x.numpy(), np.ones((len(x), 1))], 1)


def exact_fisher(layer, x):
    """Return the mean over the examples of (diag(p) - p p') kron a a', by the model's probabilities."""
    a, z = homogeneous(x), layer(x).numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    return np.mean([np.kron(np.diag(q) - np.outer(q, q), np.outer(b, b)) for q, b in zip(p, a)], axis=0)


def factors(optimizer, layer):
    state = optimizer.state[layer.weight]
    return state["A"].numpy(), state["G"].numpy()


@pytest.mark.parametrize("case", ["one example", "equal predictions"])
def test_factors_are_the_exact_fisher_block_where_the_expectation_factorises(case):
    """The mean of a product is that of means for one example, and where G is the same for all."""
    x, y = data(1 if case == "one example" else 12)
    layer = network(4, 3)[0]
    if case == "equal predictions":
        nn.init.zeros_(layer.weight)
    wanted = exact_fisher(layer, x)
    optimizer = KFAC(layer, fisher="exact")
    optimizer.step(lambda: tg.cross_entropy(layer(x), y))
    A, G = factors(optimizer, layer)
    np.testing.assert_allclose(np.kron(G, A), wanted, rtol=0, atol=1e-12)


def test_factors_are_not_the_fisher_block_in_general():
    x, y = data()
    layer = network(4, 3)[0]
    wanted = exact_fisher(layer, x)
    optimizer = KFAC(layer, fisher="exact")
    optimizer.step(lambda: tg.cross_entropy(layer(x), y))
    A, G = factors(optimizer, layer)
    np.testing.assert_allclose(A, homogeneous(x).T @ homogeneous(x) / len(x), atol=1e-14)
    assert 1e-3 < np.abs(np.kron(G, A) - wanted).max() < 0.3


def test_drawn_labels_have_the_exact_factor_as_their_mean():
    x, y = data()
    layer = network(4, 3)[0]
    z = layer(x).numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    wanted = np.mean([np.diag(q) - np.outer(q, q) for q in p], axis=0)
    optimizer = KFAC(layer, lr=0, momentum=0, rescale=False, adapt_damping_every=0, curvature_ema=0.9999,
                     generator=tg.Generator(0))
    for _ in range(3000):
        optimizer.step(lambda: tg.cross_entropy(layer(x), y))
    np.testing.assert_allclose(factors(optimizer, layer)[1], wanted, atol=0.01)


def test_the_scale_of_the_loss_counts():
    x, y = data()
    found = []
    for reduction in ("mean", "sum"):
        layer = network(4, 3)[0]
        optimizer = KFAC(layer, fisher="exact")
        optimizer.step(lambda: tg.cross_entropy(layer(x), y, reduction=reduction))
        found.append(factors(optimizer, layer)[1])
    np.testing.assert_allclose(found[1], len(x) * found[0], rtol=1e-10)


def test_empirical_factors_are_of_the_labels_that_are_there():
    x, y = data()
    layer = network(4, 3)[0]
    z = layer(x).numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True) - np.eye(3)[y.numpy()]
    optimizer = KFAC(layer, fisher="empirical")
    optimizer.step(lambda: tg.cross_entropy(layer(x), y))
    np.testing.assert_allclose(factors(optimizer, layer)[1], p.T @ p / len(x), atol=1e-12)


def test_one_example_is_a_damped_newton_step_in_the_limit():
    """Squared errors of one example: the gradient lies where the Kronecker product is exact, so one step solves it."""
    x, target = tg.Tensor(np.array([[1.0, -2.0]])), tg.Tensor(np.array([[0.5, 2.0, -1.0]]))
    layer = network(2, 3)[0]
    optimizer = KFAC(layer, damping=1e-9, fisher="exact", likelihood="squared")
    optimizer.step(lambda: tg.mse_loss(layer(x), target))
    np.testing.assert_allclose(layer(x).numpy(), target.numpy(), atol=1e-6)
    assert optimizer.report.accepted and optimizer.report.numbers["ratio"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("options", [{}, dict(fisher="exact"), dict(fisher="empirical"), dict(momentum=0),
                                     dict(rescale=False, lr=0.3, momentum=0.5), dict(adapt_damping_every=0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_learns(options, dtype):
    x, y = data(40)
    x = x.astype(dtype)
    model = network(4, 8, 3).to(dtype)
    optimizer = KFAC(model, generator=tg.Generator(0), **options)
    losses = [optimizer.step(lambda: tg.cross_entropy(model(x), y)).item() for _ in range(25)]
    assert losses[-1] < 0.6 * losses[0]
    assert {str(p.dtype) for p in model.parameters()} == {dtype}
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("likelihood", ["squared", "bernoulli"])
def test_other_likelihoods(likelihood):
    x, _ = data(40)
    model, target = network(4, 8, 2), tg.Tensor((x.numpy()[:, :2] > 0).astype("float64"))
    loss = tg.mse_loss if likelihood == "squared" else tg.binary_cross_entropy_with_logits
    optimizer = KFAC(model, likelihood=likelihood, generator=tg.Generator(0))
    losses = [optimizer.step(lambda: loss(model(x), target)).item() for _ in range(15)]
    assert losses[-1] < 0.3 * losses[0]


def test_a_closure_that_calls_backward_works_as_well():
    x, y = data()
    ends = []
    for backward in (False, True):
        model = network(4, 5, 3)
        optimizer = KFAC(model, generator=tg.Generator(0))

        def closure():
            optimizer.zero_grad()
            loss = tg.cross_entropy(model(x), y)
            if backward:
                loss.backward()
            return loss
        for _ in range(4):
            optimizer.step(closure)
        ends.append([p.numpy().copy() for p in model.parameters()])
    for a, b in zip(*ends):
        np.testing.assert_array_equal(a, b)


def test_state_continues_bit_for_bit():
    x, y = data()
    model, other = network(4, 5, 3), network(4, 5, 3, seed=1)
    optimizer = KFAC(model, generator=tg.Generator(0))
    again = KFAC(other, generator=tg.Generator(1))
    for _ in range(7):
        optimizer.step(lambda: tg.cross_entropy(model(x), y))
    other.load_state_dict(model.state_dict())
    again.load_state_dict(optimizer.state_dict())
    again.generator.set_state(optimizer.generator.get_state())
    for _ in range(6):
        optimizer.step(lambda: tg.cross_entropy(model(x), y))
        again.step(lambda: tg.cross_entropy(other(x), y))
    assert again.param_groups[0]["damping"] == optimizer.param_groups[0]["damping"] != 0.1
    for p, q in zip(model.parameters(), other.parameters()):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_step_that_raises_the_loss_is_taken_back():
    x, y = data()
    model = network(4, 5, 3)
    before = [p.numpy().copy() for p in model.parameters()]
    optimizer = KFAC(model, lr=1e3)
    optimizer.step(lambda: tg.cross_entropy(model(x), y))
    assert optimizer.report.accepted is False and "rose" in optimizer.report.reason
    assert optimizer.param_groups[0]["damping"] == pytest.approx(0.4)
    for p, old in zip(model.parameters(), before):
        np.testing.assert_array_equal(p.numpy(), old)


def test_a_loss_that_is_no_number_is_refused_before_anything_moves():
    x, y = data()
    model = network(4, 5, 3)
    nn.init.constant_(model[0].bias, float("nan"))
    before = model[2].weight.numpy().copy()
    with pytest.raises(ValueError, match="not finite"):
        KFAC(model).step(lambda: tg.cross_entropy(model(x), y))
    np.testing.assert_array_equal(model[2].weight.numpy(), before)


def test_the_best_multiples_of_two_directions():
    random = np.random.default_rng(0)
    F, g = random.standard_normal((5, 5)), random.standard_normal(5)
    F, D = F @ F.T + np.eye(5), np.stack([g, random.standard_normal(5)])
    model = Quadratic((D @ F @ D.T).tolist(), (D @ g).tolist())
    steps = np.array(model.lowest(True))
    np.testing.assert_allclose(D @ (F @ (D.T @ steps) - g), 0, atol=1e-12)
    move = D.T @ steps
    assert model.progress(tuple(steps)) == pytest.approx(g @ move - move @ F @ move / 2)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(self.layer(x))


def test_models_that_it_does_not_know():
    with pytest.raises(ValueError, match="there is none"):
        KFAC(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="1.weight, 1.bias belong to none"):
        KFAC(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    with pytest.raises(TypeError, match="takes the model itself"):
        KFAC(nn.Linear(2, 2).parameters())
    partly = nn.Linear(2, 2)
    partly.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="frozen in part"):
        KFAC(partly)
    twice = Twice()
    with pytest.raises(ValueError, match="called twice"):
        KFAC(twice).step(lambda: tg.cross_entropy(twice(tg.zeros(2, 4)), [0, 1]))


def test_a_frozen_layer_stays():
    x, y = data()
    model = network(4, 5, 3)
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    before = model[0].weight.numpy().copy()
    KFAC(model).step(lambda: tg.cross_entropy(model(x), y))
    np.testing.assert_array_equal(model[0].weight.numpy(), before)


def test_bad_input():
    x, y = data()
    model = network(4, 3)
    with pytest.raises(TypeError, match="returned float"):
        KFAC(model).step(lambda: tg.cross_entropy(model(x), y).item())
    with pytest.raises(TypeError, match="closure"):
        KFAC(model).step()
    with pytest.raises(ValueError, match="does not fit the loss"):
        KFAC(model).step(lambda: tg.mse_loss(model(x), tg.zeros(12, 3)))
    with pytest.raises(ValueError, match="called 0 times"):
        KFAC(model).step(lambda: (model[0].weight ** 2).sum())
    with pytest.raises(ValueError, match="is called twice"):
        KFAC(model).step(lambda: tg.cross_entropy(model(x), y) + tg.cross_entropy(model(x), y))
    with pytest.raises(ValueError, match="takes \\(batch, features\\)"):
        KFAC(model).step(lambda: tg.cross_entropy(model(x.reshape(3, 4, 4)).reshape(12, 3), y))
    with pytest.raises(ValueError, match="fisher must be one of"):
        KFAC(model, fisher="true")
    with pytest.raises(ValueError, match="damping must lie in"):
        KFAC(model, damping=0)
    with pytest.raises(ValueError, match="curves down"):
        KFAC(model).step(lambda: -tg.cross_entropy(model(x), y))
