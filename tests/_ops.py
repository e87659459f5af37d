"""What the tests of the ops share: sample arguments, and the contracts that every op keeps."""

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import ops

SHAPES = {
    "scalar": ((), (), ()), "vector": ((4,), (4,), (4,)), "matrix": ((2, 3), (2, 3), (2, 3)),
    "row": ((2, 3), (1, 3), (3,)), "table": ((2, 1), (3,), ()), "empty": ((0, 3), (0, 3), (3,)),
}


def sample(shapes, *domains):
    """Return float64 arrays, each drawn evenly from its domain."""
    random = np.random.default_rng(0)
    return [random.uniform(*domain, shape) for shape, domain in zip(shapes, domains)]


def host(y):
    """Return a result, Tensor or array of the backend, as a NumPy array."""
    return y.numpy() if isinstance(y, tg.Tensor) else np.asarray(tg.backend.to_numpy(y))


# ---- tables of cases: {"op" or "op variant": (..., shapes, ...)} ------------------------------------------


def expand(cases, place):
    """Return a pytest parameter for each case and each entry of the list that stands at a place in it."""
    return [pytest.param(name, shape, id=f"{name}-{shape}")
            for name, case in cases.items() for shape in case[place]]


def named(cases):
    """Return the ops that a table is about."""
    return {name.partition(" ")[0] for name in cases}


def public_ops(module):
    """Return the names of a module's public ops."""
    return {name for name, op in ops.TABLE.items() if op.__module__ == module.__name__}


def ours(name, **options):
    """Return the op of a case, with options."""
    return lambda *args: getattr(tg, name.partition(" ")[0])(*args, **options)


def theirs(name, **options):
    """Return torch's function of the same name, with the same options: dim= for axis=, tensors for lists."""
    torch = pytest.importorskip("torch")
    name = name.partition(" ")[0]
    function = getattr(torch.nn.functional, name, None) or getattr(torch, name)
    options = {"dim" if key == "axis" else key: torch.tensor(value, dtype=torch.float64)
               if isinstance(value, (list, np.ndarray)) else value for key, value in options.items()}
    return lambda *args: function(*args, **options)


# ---- contracts --------------------------------------------------------------------------------------------


def check_op(op, expected, arrays, rtol=1e-12, order=2):
    """Value against NumPy, raw arrays in and out, dtypes, and gradients against differences."""
    tensors = [tg.Tensor(a) for a in arrays]
    wanted = np.asarray(expected(*arrays))
    y = op(*tensors)
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y.numpy(), wanted, rtol, rtol)
    raw = op(*[x.data for x in tensors])
    assert not isinstance(raw, tg.Tensor)
    np.testing.assert_array_equal(host(raw), y.numpy())
    check_dtypes(op, arrays)
    tg.check_grads(op, tensors, order)


def check_dtypes(op, arrays):
    """float32 stays float32; beside float64 it gives float64, and each gradient has its argument's dtype."""
    assert op(*[tg.Tensor(a, dtype="float32") for a in arrays]).dtype == "float32"
    mixed = [tg.Tensor(a, True, "float64" if k else "float32") for k, a in enumerate(arrays)]
    y = op(*mixed)
    assert y.dtype == mixed[-1].dtype
    if y.requires_grad:
        y.sum().backward()
    for x in mixed:
        assert x.grad is None or (x.grad.dtype, x.grad.shape) == (x.dtype, x.shape)


def check_torch(op, function, arrays, rtol=1e-10):
    """Value and gradients against a function of torch tensors, for a cotangent without symmetry."""
    torch = pytest.importorskip("torch")
    x = [tg.Tensor(a, requires_grad=True) for a in arrays]
    u = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, v = op(*x), function(*u)
    np.testing.assert_allclose(y.numpy(), v.detach().numpy(), rtol, rtol)
    cotangent = np.linspace(1, 2, v.numel()).reshape(tuple(v.shape))
    y.backward(cotangent)
    v.backward(torch.tensor(cotangent))
    for leaf, other in zip(x, u):
        np.testing.assert_allclose(leaf.grad.numpy(), other.grad.numpy(), rtol, rtol)
