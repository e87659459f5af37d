"""What a user gets wrong: each an error that says what came, what was expected and what to do."""

import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.nn.functional import cross_entropy, mse_loss


def twice():
    loss = (tg.ones(3, requires_grad=True) ** 2).sum()
    loss.backward()
    loss.backward()


def overwritten():
    x = tg.ones(3, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    with tg.no_grad():
        y += 1
    z.backward()


def weight():
    return tg.ones(2, requires_grad=True)


# What is done, the error, and what its message must say: what came, what was expected, the way out.
TABLE = {
    "matmul shapes": (lambda: tg.ones(2, 3) @ tg.ones(2, 3), ValueError, ["(2, 3) and (2, 3)", "must be as long as"]),
    "linear features": (lambda: tg.nn.Linear(3, 2)(tg.ones(5, 4)), ValueError, ["4 features", "takes 3", "(2, 3)"]),
    "broadcasting": (lambda: tg.ones(2, 3) + tg.ones(4), ValueError, ["(2,3)", "(4,)"]),
    "mse that would broadcast": (lambda: mse_loss(tg.ones(3, 1), tg.ones(3)), ValueError,
                                 ["(3,)", "(3, 1)", ".squeeze()"]),
    "whole numbers with gradient": (lambda: tg.tensor([1, 2], requires_grad=True), TypeError,
                                    ["int64", "dtype=tg.float32"]),
    "text": (lambda: tg.tensor("abc"), TypeError, ["real numbers", "str"]),
    "float labels": (lambda: cross_entropy(tg.ones(2, 3), [0.0, 1.0]), TypeError, ["float", "(2,)", "integers"]),
    "label too large": (lambda: cross_entropy(tg.ones(2, 3), [0, 3]), IndexError, ["target[1] is 3", "from 0 to 2"]),
    "label below zero": (lambda: cross_entropy(tg.ones(2, 3), [-1, 0]), IndexError, ["target[0] is -1"]),
    "labels of another length": (lambda: cross_entropy(tg.ones(2, 3), [0]), ValueError, ["(1,)", "(2,)"]),
    "lr nan": (lambda: tg.optim.SGD([weight()], lr=math.nan), ValueError, ["SGD: lr", "[0, inf)", "nan"]),
    "lr infinite": (lambda: tg.optim.Adam([weight()], lr=math.inf), ValueError, ["Adam: lr", "inf"]),
    "lr negative": (lambda: tg.optim.RMSprop([weight()], lr=-1e-3), ValueError, ["-0.001"]),
    "backward of many": (lambda: (weight() * 2).backward(), RuntimeError, ["(2,)", ".sum()", "gradient="]),
    "backward of a constant": (lambda: tg.ones(1).backward(), RuntimeError, ["requires_grad=True", "no_grad()"]),
    "backward twice": (twice, RuntimeError, ["retain_graph=True"]),
    "overwritten": (overwritten, RuntimeError, ["written to", ".clone()"]),
    "parameter twice": (lambda: tg.optim.SGD([w := weight(), w]), ValueError, ["twice", "number 1"]),
    "no parameters": (lambda: tg.optim.SGD([]), ValueError, ["no parameters", "model.parameters()"]),
    "a bare parameter": (lambda: tg.optim.SGD(weight()), TypeError, ["put a single one in a list"]),
    "misspelt option": (lambda: tg.optim.SGD([{"params": [weight()], "learning_rate": 1}]), ValueError, ["lr"]),
    "truth of many": (lambda: bool(tg.ones(2)), ValueError, ["(2,)", ".any()"]),
    "item of many": (lambda: tg.ones(2).item(), ValueError, ["(2,)", ".tolist()"]),
    "leaf in place": (lambda: weight().add_(1), RuntimeError, ["no_grad"]),
    "misshapen data": (lambda: setattr(weight(), "data", np.ones(3, "f4")), ValueError, ["(2,)", "(3,)"]),
    "misshapen gradient": (lambda: setattr(weight(), "grad", np.ones(3, "f4")), ValueError, ["(2,)", "(3,)"]),
    "unknown weights": (lambda: tg.nn.Linear(2, 1).load_state_dict({"w": [1.0]}), Exception, ["weight", "bias", "w"]),
    "negative shape": (lambda: tg.zeros(2, -1), ValueError, ["at least 0", "-1"]),
    "batch of nothing": (lambda: tg.data.DataLoader([1, 2], batch_size=0), ValueError, ["at least 1", "0"]),
    "clipping to nothing": (lambda: tg.nn.utils.clip_grad_norm_([weight()], 0.0), ValueError, ["max_norm", "0.0"]),
    "no checkpoint": (lambda: tg.load(__file__), tg.CheckpointError, ["test_bad_input.py"]),
}


@pytest.mark.parametrize("case", TABLE)
def test_bad_input_is_told(case):
    action, error, words = TABLE[case]
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message


def test_nan_in_training_is_one_warning_and_training_goes_on():
    model = tg.nn.Linear(2, 1)
    optimizer = tg.optim.SGD(model.named_parameters(), lr=0.1)
    x = tg.tensor([[1.0, math.nan]])
    with pytest.warns(RuntimeWarning, match="parameter weight, shape .* has become NaN at step .* lower lr") as caught:
        for _ in range(70):                         # a GPU is looked at once in a while
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
    assert len(caught) == 1
