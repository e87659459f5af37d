"""Groups: what is decayed, how fast each layer learns, and the table."""

import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.optim.groups import decay_groups, layer_decay_groups


class Block(nn.Module):
    """Two layers with a norm between, a scale of its own, and an embedding that was registered first."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.scale = nn.Parameter(np.ones((1, 4), "float32"))


def names(groups):
    return [group["param_names"] for group in groups]


def test_matrices_are_decayed_and_the_rest_is_not():
    model = Block()
    decayed, kept = groups = decay_groups(model, 0.1)
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert sorted(decayed["param_names"]) == ["embedding.weight", "inner.0.weight", "inner.2.weight", "scale"]
    assert sorted(kept["param_names"]) == ["inner.0.bias", "inner.2.bias", "norm.bias", "norm.weight"]
    own = dict(model.named_parameters())
    assert all(own[name] is p for group in groups for name, p in zip(group["param_names"], group["params"]))
    for other in (own, list(own.items()), iter(own.items())):
        assert names(decay_groups(other, 0.1)) == names(groups)


def test_more_is_skipped_by_name_and_anything_by_a_function():
    model = Block()
    assert decay_groups(model, 0.1, skip=("embedding", "scale"))[0]["param_names"] == ["inner.0.weight",
                                                                                       "inner.2.weight"]
    assert decay_groups(model, 0.1, skip="inner")[0]["param_names"] == names(decay_groups(
        model, 0.1, skip=iter(["inner"])))[0]
    everything, = decay_groups(model, 0.1, skip=lambda name, p: False)
    assert len(everything["params"]) == 8 and everything["weight_decay"] == 0.1
    square = decay_groups(model, 0.1, skip=lambda name, p: p.shape != (4, 4) or name.startswith("inner.0"))
    assert square[0]["param_names"] == ["inner.2.weight"]
    assert [group["weight_decay"] for group in decay_groups(model, 0.0)] == [0.0]


def test_the_order_is_decayed_first_also_where_a_bias_comes_first():
    pairs = [("bias", tg.ones(2)), ("weight", tg.ones(2, 2))]
    assert names(decay_groups(pairs, 0.1)) == [["weight"], ["bias"]]
    assert names(layer_decay_groups(pairs, 0.1, weight_decay=0.1)) == [["weight"], ["bias"]]


def test_an_optimizer_takes_them():
    model = nn.Linear(2, 2)
    start = model.weight.numpy().copy(), model.bias.numpy().copy()
    optimizer = tg.optim.AdamW(decay_groups(model, 0.5), lr=0.1)
    assert [(group["param_names"], group["weight_decay"], group["lr"]) for group in optimizer.param_groups] == [
        (["weight"], 0.5, 0.1), (["bias"], 0.0, 0.1)]
    for p in model.parameters():
        p.grad = tg.zeros(p.shape)
    optimizer.step()
    np.testing.assert_allclose(model.weight.numpy(), start[0] * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(model.bias.numpy(), start[1])
    saved = optimizer.state_dict()
    tg.optim.AdamW(decay_groups(model, 0.5), lr=0.2).load_state_dict(saved)


def test_each_layer_learns_slower_than_the_next():
    model = Block()                                  # scale, whose owner is the model, is named before its modules
    groups = layer_decay_groups(model, lr=0.1, layer_decay=0.5, weight_decay=0.01)
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))
    assert len(layers) == 5
    for group in groups:
        layer, = {name.rpartition(".")[0] for name in group["param_names"]}
        assert group["lr"] == 0.1 * 0.5 ** (len(layers) - 1 - layers.index(layer))
        decays = [p.ndim > 1 for p in group["params"]]
        assert [group["weight_decay"]] * len(decays) == [0.01 * decay for decay in decays]
    assert [layers.index(group["param_names"][0].rpartition(".")[0]) for group in groups] == [0, 1, 2, 3, 3, 4, 4]
    assert [group["weight_decay"] for group in groups[3:]] == [0.01, 0.0, 0.01, 0.0]
    assert [group["lr"] for group in layer_decay_groups(model, lr=1.0)] == [0.75 ** k for k in (4, 3, 2, 1, 0)]
    assert len(layer_decay_groups(model, lr=0.1, layer_decay=1)) == 1


def test_layers_move_by_their_rates():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    start = [p.numpy().copy() for p in model.parameters()]
    optimizer = tg.optim.AdamW(layer_decay_groups(model, lr=0.1, layer_decay=0.5), weight_decay=0.0)
    for p in model.parameters():
        p.grad = tg.ones(p.shape)
    optimizer.step()
    steps = [np.mean(before - p.numpy()) for before, p in zip(start, model.parameters())]
    np.testing.assert_allclose(steps, [0.025, 0.025, 0.05, 0.05, 0.1, 0.1], rtol=1e-4)
    optimizer.lr *= 0.1
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0025, 0.005, 0.01])


def test_they_print_as_a_table():
    groups = decay_groups({"w": tg.ones(30, 100), "a.long.name": tg.ones(7)}, 0.05)
    assert str(groups) == repr(groups) == (
        "name         shape      numbers  weight decay       lr\n"
        "w            (30, 100)    3,000          0.05  default\n"
        "a.long.name  (7,)             7             0  default")
    groups[0]["lr"] = 3e-4
    assert str(groups).splitlines()[1].endswith("  0.0003")
    groups[1]["lr"] = math.cos                       # a schedule
    assert "built-in function cos" in str(groups).splitlines()[2]


@pytest.mark.parametrize("act, error, says", [
    (lambda: decay_groups(Block(), -0.1), ValueError, r"decay_groups: weight_decay must lie in \[0, inf\), got -0.1"),
    (lambda: layer_decay_groups(Block(), math.nan), ValueError, r"layer_decay_groups: lr must lie in"),
    (lambda: layer_decay_groups(Block(), 0.1, 1.5), ValueError, r"layer_decay must lie in \(0, 1\], got 1.5"),
    (lambda: layer_decay_groups(Block(), 0.1, 0), ValueError, r"layer_decay must lie in"),
    (lambda: layer_decay_groups(Block(), 0.1, weight_decay=math.inf), ValueError, "weight_decay must lie in"),
    (lambda: decay_groups(Block().parameters(), 0.1), TypeError, r"got Parameter; pass the model"),
    (lambda: decay_groups([("w", 1.0)], 0.1), TypeError, r"\(name, Tensor\), got tuple"),
    (lambda: decay_groups([], 0.1), ValueError, "no parameters"),
    (lambda: layer_decay_groups(nn.ReLU(), 0.1), ValueError, "no parameters")])
def test_mistakes(act, error, says):
    with pytest.raises(error, match=says):
        act()
