"""What the loops of the seeds train on: problems small enough to be learned in a moment."""

import inspect
from typing import NamedTuple

import tinygrad_opt as tg


class Batch(NamedTuple):
    """A batch whose parts are read as `batch.input` or as `batch.inputs`."""

    input: tg.Tensor
    target: tg.Tensor

    inputs = property(lambda self: self.input)
    targets = property(lambda self: self.target)


def line(n=32, inputs=4):
    """Return inputs and targets of a linear relation, as columns."""
    x = tg.randn(n, inputs, generator=tg.Generator(0))
    return x, x @ tg.arange(1.0, inputs + 1.0).reshape(inputs, 1) / inputs


def clouds(n=96):
    """Return a dataset of points in the plane, in three classes."""
    return tg.data.TensorDataset(*tg.data.blobs(n, generator=0))


def batches(n=96, size=32):
    """Return the points as a list of batches."""
    return [Batch(*parts) for parts in tg.data.DataLoader(clouds(n), batch_size=size)]


def classifier(seed=0):
    """Return a network for the points, the same for the same seed."""
    tg.manual_seed(seed)
    return tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.ReLU(), tg.nn.Linear(16, 3))


def loss_of(model, n=96):
    """Return the loss of a classifier on all points."""
    with tg.no_grad():
        points, labels = clouds(n).tensors
        return tg.nn.CrossEntropyLoss()(model(points), labels).item()


def numbers(model):
    """Return the parameters of a model as nested lists, to be compared exactly."""
    return [p.tolist() for p in model.parameters()]


def weight(*values, grad=None):
    """Return a parameter in float64, with a gradient if one is given."""
    p = tg.tensor(list(values), dtype=tg.float64, requires_grad=True)
    if grad is not None:
        p.grad = tg.tensor(list(grad), dtype=tg.float64)
    return p


def defaults(callable_, first, names):
    """Return the defaults of arguments, after checking that `first` is the first of all."""
    parameters = inspect.signature(callable_).parameters
    assert next(iter(parameters)) == first
    return {name: parameters[name].default for name in names}
