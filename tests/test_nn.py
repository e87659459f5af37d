"""Modules: what registers itself, names, state, hooks, containers; the layers."""

import copy
import pickle
from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.nn import functional as F


def tensor(*shape, seed=0, dtype="float64", requires_grad=False):
    return tg.Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad, dtype)


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a.numpy() if isinstance(a, tg.Tensor) else a,
                               b.numpy() if isinstance(b, tg.Tensor) else b, rtol=tolerance, atol=tolerance)


class Net(nn.Module):
    """A parameter, a shared layer, a buffer that is saved and one that is not."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.scale = nn.Parameter([1.0, 2.0, 3.0])
        self.block = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(3, 2), nn.Tanh())})
        self.again = self.first
        self.register_buffer("count", tg.tensor(0))
        self.register_buffer("scratch", tg.zeros(2), persistent=False)
        self.note = "text"

    def forward(self, x, shift=0.0):
        return self.block["inner"](self.again(self.first(x)) * self.scale) + shift


NAMES = ["scale", "first.weight", "first.bias", "block.inner.0.weight", "block.inner.0.bias"]


# ---- parameters and attributes ----------------------------------------------------------------------------


def test_a_parameter_is_a_leaf_in_memory_of_its_own():
    source = tg.tensor([1.0, 2.0])
    parameter = nn.Parameter(source)
    source.fill_(9.0)
    assert parameter.tolist() == [1.0, 2.0] and parameter.requires_grad and parameter.is_leaf
    assert isinstance(parameter, tg.Tensor) and not nn.Parameter([1.0], requires_grad=False).requires_grad
    assert repr(parameter) == "Parameter containing:\ntensor([1., 2.], requires_grad=True)"
    assert type(parameter * 2) is tg.Tensor
    with pytest.raises(TypeError, match="floating-point"):
        nn.Parameter([1, 2])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_parameters_and_modules_are_whole_and_independent(copied):
    parameter = copied(nn.Parameter([1.0]))
    assert type(parameter) is nn.Parameter and parameter.requires_grad

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.LeakyReLU(0.2), nn.Dropout())
    model.tied = model[0].weight
    model[0].weight.grad = tg.ones(4, 3)
    twin, x = copied(model.eval()), tensor(5, 3, dtype="float32")
    assert repr(twin) == repr(model) and not twin.training
    assert twin(x).tolist() == model(x).tolist()
    assert twin.tied is twin[0].weight and twin[0].weight is not model[0].weight
    assert twin[0].weight.grad.tolist() == np.ones((4, 3)).tolist()
    twin[0].weight.data = np.zeros((4, 3), "float32")
    assert model[0].weight.numpy().any()


def test_attributes_register_themselves_under_torchs_names_and_in_its_order():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_parameters(prefix="net", recurse=False)] == ["net.scale"]
    assert len(list(net.parameters())) == 5 and next(net.parameters()) is net.scale
    everything = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    assert everything == [*NAMES, "again.weight", "again.bias"]
    modules = ["", "first", "block", "block.inner", "block.inner.0", "block.inner.1"]
    assert [name for name, _ in net.named_modules()] == modules
    assert [name for name, _ in net.named_children()] == ["first", "block"]
    assert list(net.children()) == [net.first, net.block] and list(net.modules())[0] is net
    assert [name for name, _ in net.named_buffers()] == ["count", "scratch"] and len(list(net.buffers())) == 2
    assert net.get_parameter("block.inner.0.weight") is net.block["inner"][0].weight
    assert net.get_submodule("block.inner") is net.block["inner"] and net.get_submodule("") is net
    assert net.get_buffer("count") is net.count
    assert {"first", "scale", "count"} <= set(dir(net))


def test_attributes_can_be_replaced_and_deleted():
    net = Net()
    net.scale = None
    net.count = tg.tensor(5)
    net.first = nn.Identity()
    del net.again, net.scratch
    assert [name for name, _ in net.named_parameters()] == NAMES[3:]
    assert list(net.state_dict())[0] == "count" and net.state_dict()["count"].item() == 5
    net.count = nn.Parameter([1.0])
    assert not list(net.buffers()) and "count" in dict(net.named_parameters())
    layer = nn.Linear(2, 2, bias=False)
    layer.register_parameter("bias", nn.Parameter([0.0, 0.0]))
    assert "bias" in layer.state_dict()


def unfinished():
    class Forgetful(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)
    return Forgetful()


@pytest.mark.parametrize("act, error, words", [
    (unfinished, AttributeError, r"Forgetful: call super\(\).__init__\(\) before assigning 'layer'"),
    (lambda: Net().missing, AttributeError, "missing"),
    (lambda: delattr(Net(), "missing"), AttributeError, "missing"),
    (lambda: setattr(Net(), "scale", tg.ones(3)), TypeError, "Net.scale is a Parameter and stays one"),
    (lambda: setattr(Net(), "first", tg.ones(3)), TypeError, "Net.first is a Module"),
    (lambda: setattr(Net(), "count", 3), TypeError, "Net.count is a Tensor"),
    (lambda: Net().register_parameter("a.b", nn.Parameter([1.0])), KeyError, "'a.b'"),
    (lambda: setattr(Net(), "a.b", nn.Parameter([1.0])), KeyError, "'a.b'"),
    (lambda: Net().register_buffer("", tg.ones(1)), KeyError, "''"),
    (lambda: Net().add_module(3, nn.ReLU()), TypeError, "string, got int"),
    (lambda: Net().register_parameter("forward", nn.Parameter([1.0])), KeyError, "'forward' already"),
    (lambda: Net().register_buffer("scale", tg.ones(1)), KeyError, "'scale' already"),
    (lambda: Net().register_module("note", nn.ReLU()), KeyError, "'note' already"),
    (lambda: Net().register_parameter("w", tg.ones(1)), TypeError, "needs a Parameter or None, got Tensor"),
    (lambda: Net().register_buffer("w", [1.0]), TypeError, "needs a Tensor or None, got list"),
    (lambda: Net().register_buffer("w", nn.Parameter([1.0])), TypeError, "cannot be a Parameter"),
    (lambda: Net().add_module("w", tg.ones(1)), TypeError, "needs a Module or None"),
    (lambda: Net().get_parameter("block.outer.weight"), AttributeError, "no module 'outer' .*'block.outer'"),
    (lambda: Net().get_parameter("first.count"), AttributeError, "no parameter 'count'"),
    (lambda: Net().get_buffer("first.weight"), AttributeError, "no buffer 'weight'"),
    (lambda: nn.Module()(1), NotImplementedError, r"Module has no forward\(\)"),
    (lambda: Net().train("yes"), ValueError, "True or False, got 'yes'"),
    (lambda: Net().to("int64"), TypeError, "cannot become int64"),
    (lambda: nn.Sequential(abs), TypeError, "a container holds Modules, got builtin_function_or_method"),
    (lambda: nn.Sequential({"a.b": nn.ReLU()}), KeyError, "a.b"),
    (lambda: nn.ModuleList([nn.ReLU()])[1], IndexError, "ModuleList of 1 modules has no number 1"),
    (lambda: nn.ModuleDict()["x"], KeyError, "x"),
    (lambda: nn.ModuleDict({"training": nn.ReLU()}), KeyError, "'training' already"),
    (lambda: nn.Linear(0, 2), ValueError, "in_features must be at least 1, got 0"),
    (lambda: nn.Linear(2, 1.5), TypeError, "out_features must be a whole number, got 1.5"),
    (lambda: nn.Linear(3, 2)(tg.ones(4, 5)), ValueError, "x has 5 features .* weight takes 3"),
    (lambda: nn.Dropout(1.5), ValueError, "probability between 0 and 1, got 1.5"),
    (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, "padding_idx must be one of the 3 rows, got 3"),
    (lambda: nn.Embedding(3, 2)(tg.tensor([3])), IndexError, "3"),
    (lambda: nn.LayerNorm((2, 3))(tg.ones(3, 2)), ValueError, r"end in normalized_shape=\(2, 3\)"),
    (lambda: nn.BatchNorm1d(3)(tg.ones(2, 4)), ValueError, r"BatchNorm1d\(3\) needs"),
    (lambda: nn.BatchNorm1d(3)(tg.ones(1, 3)), ValueError, "more than one number for each channel"),
    (lambda: F.batch_norm(tg.ones(3), None, None), ValueError, "needs the axes"),
    (lambda: nn.Unflatten(1, (2, 2))(tg.ones(2, 5)), ValueError, "has length 5"),
    (lambda: nn.Unflatten(2, (2, 2))(tg.ones(2, 4)), IndexError, "only 2 axes"),
    (lambda: nn.ReLU(inplace=True), TypeError, r"ReLU\(\): got an unexpected keyword argument 'inplace'"),
    (lambda: nn.Threshold(1.0), TypeError, r"Threshold\(threshold, value\): missing"),
    (lambda: nn.PReLU(0), ValueError, "num_parameters must be at least 1"),
])
def test_bad_input_says_what_is_wrong(act, error, words):
    with pytest.raises(error, match=words):
        act()


# ---- all at once ------------------------------------------------------------------------------------------


def test_train_eval_and_apply_reach_every_module():
    net, seen = Net(), []
    assert net.training and net.eval() is net and not any(module.training for module in net.modules())
    assert all(module.training for module in net.train().modules())
    assert net.apply(seen.append) is net
    assert seen[-1] is net and seen.index(net.block["inner"][0]) < seen.index(net.block)


def test_gradients_can_be_forgotten_zeroed_and_switched_off():
    net = Net()
    net(tg.ones(2, 3)).sum().backward()
    held = net.scale.grad
    before = held.tolist()
    net.zero_grad(set_to_none=False)
    assert net.scale.grad.tolist() == [0.0, 0.0, 0.0] and held.tolist() == before
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.requires_grad_(False) is net and not net(tg.ones(2, 3)).requires_grad


def test_a_module_changes_its_dtype_and_keeps_its_parameters():
    net, x = Net(), tensor(4, 3)
    net(tg.ones(2, 3)).sum().backward()
    weight, values, slopes = net.first.weight, net.first.weight.numpy(), net.first.weight.grad.numpy()
    assert net.double() is net and net.first.weight is weight and weight.dtype == tg.float64
    assert net.count.dtype == tg.int64 and net.scratch.dtype == tg.float64
    close(weight, values)
    close(weight.grad, slopes)
    net.zero_grad()
    net(x).sum().backward()
    assert weight.grad.dtype == tg.float64
    assert net.float().first.weight.dtype == tg.float32 and net.to("float64").scale.dtype == tg.float64

    loss = net(x).sum()
    net.float()
    with pytest.raises(RuntimeError, match="written to"):
        loss.backward()


# ---- state ------------------------------------------------------------------------------------------------


def test_the_state_is_shared_memory_under_every_name():
    net = Net()
    state = net.state_dict()
    assert list(state) == ["scale", "count", "first.weight", "first.bias", "block.inner.0.weight",
                           "block.inner.0.bias", "again.weight", "again.bias"]
    assert not any(value.requires_grad for value in state.values())
    state["scale"].fill_(7.0)
    assert net.scale.tolist() == [7.0, 7.0, 7.0]


@pytest.mark.parametrize("convert", [lambda t: t, lambda t: t.numpy(), lambda t: t.numpy().astype("float64"),
                                     lambda t: np.ma.array(t.numpy())])
def test_a_state_loads_from_tensors_and_arrays_into_the_memory_that_is_there(convert):
    source, net = Net(), Net()
    weight, memory = net.first.weight, net.first.weight.detach()
    state = {name: convert(value) for name, value in source.state_dict().items() if name != "count"}
    keys = net.load_state_dict(MappingProxyType({**state, "count": np.int32(4)}))
    assert keys == ([], []) and keys.missing_keys == keys.unexpected_keys == []
    assert net.first.weight is weight and memory.tolist() == weight.tolist() == source.first.weight.tolist()
    assert net.count.item() == 4 and weight.dtype == tg.float32 and weight.requires_grad


def test_a_state_that_does_not_fit_changes_nothing_and_everything_wrong_is_listed():
    net = Net()
    before = {name: value.tolist() for name, value in net.state_dict().items()}
    state = {name: value.numpy() + 1 for name, value in net.state_dict().items()}
    del state["first.bias"]
    state |= {"extra": np.ones(2), "scale": np.ones((3, 1)), "again.bias": "text", "count": np.float32(1.0)}
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    assert str(caught.value) == """\
Net was left as it is; the state does not fit (strict=False passes over missing and unexpected names):
    missing: first.bias
    unexpected: extra
    scale: expected the shape (3,), got (3, 1)
    count: expected the dtype int64, got float32
    again.bias: expected an array, got str"""
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state, strict=False)
    assert "missing" not in str(caught.value) and "scale: expected the shape" in str(caught.value)
    assert {name: value.tolist() for name, value in net.state_dict().items()} == before
    with pytest.raises(TypeError, match="state_dict must map names to arrays, got list"):
        net.load_state_dict([1])
    keys = net.load_state_dict({"scale": np.zeros(3), "extra": np.ones(2)}, strict=False)
    assert keys.unexpected_keys == ["extra"] and "first.bias" in keys.missing_keys
    assert net.scale.tolist() == [0.0, 0.0, 0.0]


def test_parameters_may_change_places_through_a_state():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    state, first = model.state_dict(), model[0].weight.tolist()
    model.load_state_dict({**state, "0.weight": state["1.weight"], "1.weight": state["0.weight"]})
    assert model[1].weight.tolist() == first != model[0].weight.tolist()


def test_a_backward_that_needs_the_values_from_before_loading_refuses():
    layer = nn.Linear(2, 1)
    loss = (layer(tg.ones(1, 2)) ** 2).sum() + (layer.weight ** 2).sum()
    layer.load_state_dict({"weight": np.ones((1, 2)), "bias": np.ones(1)})
    with pytest.raises(RuntimeError, match="written to"):
        loss.backward()


# ---- calls ------------------------------------------------------------------------------------------------


def test_hooks_see_and_replace_arguments_and_results_until_removed():
    layer, seen = nn.Identity(), []
    handles = [layer.register_forward_pre_hook(lambda module, args: seen.append(args)),
               layer.register_forward_pre_hook(lambda module, args: args[0] * 2),
               layer.register_forward_hook(lambda module, args, result: seen.append((args, result))),
               layer.register_forward_hook(lambda module, args, result: result + 1)]
    assert layer(3) == 7 and seen == [(3,), ((6,), 6)]
    assert nn.Identity()(3) == 3
    for handle in handles:
        handle.remove()
        handle.remove()
    assert layer(3) == 3 and len(seen) == 2


def test_gradients_reach_every_parameter_and_keyword_arguments_the_forward():
    net, x = Net(), tg.ones(2, 3)
    close(net(x, shift=1.0).detach(), net(x).detach() + 1, 1e-6)
    net(x).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


# ---- containers -------------------------------------------------------------------------------------------


def test_sequential_is_a_list_of_modules_that_call_each_other():
    layers = [nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)]
    model = nn.Sequential(*layers)
    x = tg.ones(4, 2)
    assert model(x).tolist() == layers[2](layers[1](layers[0](x))).tolist()
    assert list(model) == layers and model[-1] is layers[2] and len(model) == 3 and layers[1] in model
    assert type(model[1:]) is nn.Sequential and list(model[1:].state_dict()) == ["2.weight", "2.bias"]
    model[1] = relu = nn.ReLU()
    assert model.append(nn.Sigmoid()) is model and model.insert(0, nn.Flatten()) is model
    assert [name for name, _ in model.named_children()] == list("01234") and model[2] is relu
    del model[0]
    del model[2:]
    assert list(model) == [layers[0], relu] and list(model.state_dict()) == ["0.weight", "0.bias"]
    assert model.pop() is relu and model.extend([nn.Tanh(), nn.Tanh()]) is model and len(model) == 3
    twice = nn.Sequential(relu, relu)
    assert len(twice) == 2 and len(list(twice.children())) == 1 and len(nn.Sequential()) == 0


def test_sequential_takes_names_and_never_overwrites_a_module():
    model = nn.Sequential(OrderedDict(encode=nn.Linear(2, 2), act=nn.ReLU()))
    assert list(model.state_dict()) == ["encode.weight", "encode.bias"] and model.act is model[1]
    assert [name for name, _ in model.append(nn.Tanh()).named_children()] == ["encode", "act", "2"]
    part = nn.Sequential(nn.Tanh(), nn.ReLU(), nn.Sigmoid())[1:]
    assert [name for name, _ in part.append(nn.Tanh()).named_children()] == ["1", "2", "3"]


def test_module_list_and_dict_register_what_they_hold():
    layers = nn.ModuleList([nn.Linear(2, 2)])
    layers += [nn.Linear(2, 3)]
    layers.insert(1, nn.ReLU())
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert type(layers[1:]) is nn.ModuleList and list(layers[1:].state_dict()) == ["1.weight", "1.bias"]
    layers.reverse()
    assert layers[0].out_features == 3

    heads = nn.ModuleDict([("a", nn.Linear(2, 2)), ("b", nn.ReLU())])
    heads["a"] = linear = nn.Linear(2, 1)
    heads.update(c=nn.Tanh())
    assert list(heads) == ["a", "b", "c"] == list(heads.keys()) and "b" in heads and len(heads) == 3
    assert heads.a is linear and list(heads.values())[0] is linear and heads.pop("a") is linear
    assert "a" not in heads and not list(heads.parameters())
    assert heads == heads and heads != nn.ModuleDict(heads)
    assert len({heads, nn.ModuleDict()}) == 2


def test_the_repr_is_laid_out_as_torchs():
    net = Net()
    net.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU()])
    assert repr(net) == """\
Net(
  (first): Linear(in_features=3, out_features=3, bias=True)
  (block): ModuleDict(
    (inner): Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): Tanh()
    )
  )
  (again): Linear(in_features=3, out_features=3, bias=True)
  (layers): ModuleList(
    (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)
    (2): ReLU()
  )
)"""


@pytest.mark.parametrize("module, text", [
    (nn.Linear(2, 3, bias=False), "Linear(in_features=2, out_features=3, bias=False)"),
    (nn.Sequential(), "Sequential()"), (nn.ModuleList(), "ModuleList()"), (nn.Identity(1, b=2), "Identity()"),
    (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
    (nn.Unflatten(1, [2, 3]), "Unflatten(dim=1, unflattened_size=(2, 3))"),
    (nn.Embedding(5, 2, padding_idx=-1), "Embedding(5, 2, padding_idx=4)"),
    (nn.Dropout(0.1), "Dropout(p=0.1)"),
    (nn.LayerNorm(4, bias=False), "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=False)"),
    (nn.RMSNorm([2, 3]), "RMSNorm((2, 3), eps=None, elementwise_affine=True)"),
    (nn.BatchNorm1d(3),
     "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)"),
    (nn.GELU(), "GELU(approximate='none')"), (nn.Softmax(dim=1), "Softmax(axis=1)"),
    (nn.PReLU(), "PReLU(num_parameters=1)"), (nn.Threshold(0.1, 20), "Threshold(threshold=0.1, value=20)"),
    (nn.MSELoss(), "MSELoss()"), (nn.HuberLoss(delta=2.0), "HuberLoss(delta=2.0)"),
])
def test_the_repr_shows_the_arguments(module, text):
    assert repr(module) == text


# ---- layers -----------------------------------------------------------------------------------------------


def test_linear_starts_from_torchs_distribution_and_a_seed_fixes_it():
    layer = nn.Linear(16, 500, generator=tg.Generator(3))
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert np.abs(values).max() <= 0.25 and np.abs(values).max() > 0.24
        assert abs(values.std() - 0.25 / 3 ** 0.5) < 0.01 and abs(values.mean()) < 0.02
    same, double = (nn.Linear(16, 500, dtype=d, generator=tg.Generator(3)) for d in ("float32", "float64"))
    assert same.weight.tolist() == layer.weight.tolist() and same.bias.tolist() == layer.bias.tolist()
    close(double.weight, layer.weight, 1e-7)
    tg.manual_seed(5)
    first = nn.Linear(2, 2).weight.tolist()
    tg.manual_seed(5)
    assert nn.Linear(2, 2).weight.tolist() == first


def test_linear_computes_x_times_the_transposed_weight_plus_the_bias():
    layer, x = nn.Linear(3, 2, dtype="float64"), tensor(4, 5, 3)
    close(layer(x).detach(), x.numpy() @ layer.weight.numpy().T + layer.bias.numpy())
    tg.check_grads(F.linear, [tensor(4, 3), tensor(2, 3, seed=1), tensor(2, seed=2)])


def test_flatten_and_unflatten_undo_each_other():
    x = tensor(2, 3, 4)
    flat = nn.Flatten()(x)
    assert flat.shape == (2, 12)
    assert nn.Unflatten(-1, (3, -1))(flat).tolist() == x.tolist()
    assert nn.Unflatten(0, (1, 2))(flat).shape == (1, 2, 12)


@pytest.mark.parametrize("shape, size", [((4, 3), (3,)), ((2, 3, 4), (3, 4)), ((5,), (5,))])
def test_layer_and_rms_norm_are_their_formulas_and_differentiate_twice(shape, size):
    x, weight, bias = tensor(*shape), tensor(*size, seed=1), tensor(*size, seed=2)
    a, w, b, axes = x.numpy(), weight.numpy(), bias.numpy(), tuple(range(-len(size), 0))
    centred, var = a - a.mean(axes, keepdims=True), a.var(axes, keepdims=True)
    close(F.layer_norm(x, size, weight, bias), centred / np.sqrt(var + 1e-5) * w + b)
    close(F.layer_norm(x, size, eps=1.0), centred / np.sqrt(var + 1))
    close(F.rms_norm(x, size, weight, eps=0.1), a / np.sqrt((a * a).mean(axes, keepdims=True) + 0.1) * w)
    tg.check_grads(lambda x, w, b: F.layer_norm(x, size, w, b), [x, weight, bias], order=2)
    tg.check_grads(lambda x, w: F.rms_norm(x, size, w), [x, weight], order=2)
    assert nn.RMSNorm(size)(tg.zeros(*shape)).tolist() == np.zeros(shape).tolist()
    assert list(nn.LayerNorm(size).state_dict()) == ["weight", "bias"]
    assert not list(nn.RMSNorm(3, elementwise_affine=False).parameters())


@pytest.mark.parametrize("shape, axes", [((6, 3), (0,)), ((4, 3, 5), (0, 2))])
def test_batch_norm_uses_the_batch_in_training_and_its_running_statistics_in_use(shape, axes):
    norm, along = nn.BatchNorm1d(3, dtype="float64"), (1, 3, *[1] * (len(shape) - 2))
    mean, var = np.zeros(3), np.ones(3)
    for k in range(3):
        x = tensor(*shape, seed=k)
        a = x.numpy()
        centred = a - a.mean(axes, keepdims=True)
        close(norm(x).detach(), centred / np.sqrt(a.var(axes, keepdims=True) + 1e-5))
        mean = 0.9 * mean + 0.1 * a.mean(axes)
        var = 0.9 * var + 0.1 * a.var(axes, ddof=1)
    close(norm.running_mean, mean)
    close(norm.running_var, var)
    assert norm.num_batches_tracked.item() == 3
    norm.eval()
    close(norm(x).detach(), (a - mean.reshape(along)) / np.sqrt(var.reshape(along) + 1e-5))
    assert norm.num_batches_tracked.item() == 3
    statistics, points = (norm.running_mean, norm.running_var), [x, tensor(3, seed=8), tensor(3, seed=9)]
    tg.check_grads(lambda x, w, b: F.batch_norm(x, *statistics, w, b), points, order=2)
    tg.check_grads(lambda x, w, b: F.batch_norm(x, *statistics, w, b, training=True), points, order=2)


def test_batch_norm_averages_all_batches_or_keeps_none():
    mean_of_all = nn.BatchNorm1d(2, momentum=None, dtype="float64")
    batches = [tensor(4, 2, seed=k) for k in range(3)]
    for batch in batches:
        mean_of_all(batch)
    close(mean_of_all.running_mean, np.mean([batch.numpy().mean(0) for batch in batches], 0))
    mean_of_all.reset_parameters()
    assert mean_of_all.running_mean.tolist() == [0, 0] and mean_of_all.num_batches_tracked.item() == 0

    plain = nn.BatchNorm1d(2, affine=False, track_running_stats=False, dtype="float64")
    assert not plain.state_dict()
    close(plain(batches[0]), plain.eval()(batches[0]))
    assert list(nn.BatchNorm1d(2).state_dict()) == ["weight", "bias", "running_mean", "running_var",
                                                    "num_batches_tracked"]


def test_an_embedding_learns_its_rows_but_not_the_padding():
    words = nn.Embedding(4, 2, padding_idx=-4, generator=tg.Generator(0))
    assert words.weight.numpy()[0].tolist() == [0, 0] and words.weight.numpy()[1:].all()
    words(tg.tensor([[0, 1], [1, 3]])).sum().backward()
    assert words.weight.grad.tolist() == [[0, 0], [2, 2], [0, 0], [1, 1]]
    table = nn.Embedding(2000, 5, generator=tg.Generator(1)).weight.numpy()
    assert abs(table.std() - 1) < 0.02 and abs(table.mean()) < 0.02
    frozen = nn.Embedding.from_pretrained(np.eye(3))
    assert frozen([2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]] and not frozen.weight.requires_grad
    assert nn.Embedding.from_pretrained(np.eye(3), freeze=False).weight.requires_grad
    with pytest.raises(ValueError, match="padding_idx"):
        F.embedding([0], frozen.weight, 3)


def test_dropout_keeps_the_mean_and_rests_in_use():
    drop, x = nn.Dropout(0.3, generator=tg.Generator(0)), tg.ones(10000)
    y = drop(x).numpy()
    assert abs((y == 0).mean() - 0.3) < 0.02 and np.allclose(y[y != 0], 1 / 0.7)
    assert drop.eval()(x) is x
    again = nn.Dropout(0.3, generator=tg.Generator(0))
    assert again(x).tolist() == y.tolist()


ACTIVATIONS = {
    "CELU": F.celu, "ELU": F.elu, "GELU": F.gelu, "GLU": F.glu, "Hardshrink": F.hardshrink,
    "Hardsigmoid": F.hardsigmoid, "Hardswish": F.hardswish, "Hardtanh": F.hardtanh, "LeakyReLU": F.leaky_relu,
    "LogSigmoid": F.logsigmoid, "LogSoftmax": F.log_softmax, "Mish": F.mish, "ReLU": F.relu, "ReLU6": F.relu6,
    "SELU": F.selu, "Sigmoid": F.sigmoid, "SiLU": F.silu, "Softmax": F.softmax, "Softmin": F.softmin,
    "Softplus": F.softplus, "Softshrink": F.softshrink, "Softsign": F.softsign, "Tanh": F.tanh,
    "Tanhshrink": F.tanhshrink,
}


@pytest.mark.parametrize("name, function", ACTIVATIONS.items())
def test_every_activation_is_a_module(name, function):
    module, x = getattr(nn, name)(), tensor(3, 4) * 3
    assert module(x).tolist() == function(x).tolist()
    assert pickle.loads(pickle.dumps(module))(x).tolist() == module(x).tolist()
    assert name in repr(module) and type(module).__name__ == name and not list(module.parameters())


@pytest.mark.parametrize("module, expected", [
    (nn.LeakyReLU(0.5), [-2.0, 4.0]), (nn.Hardtanh(-1, max_val=3), [-1.0, 3.0]),
    (nn.Threshold(0, 9), [9.0, 4.0]),
    (nn.Softmax(dim=0), [1 / (1 + np.exp(8)), 1 / (1 + np.exp(-8))]), (nn.PReLU(init=0.1), [-0.4, 4.0]),
])
def test_the_arguments_of_activations_arrive(module, expected):
    close(module(tg.tensor([-4.0, 4.0])).detach(), np.float32(expected), 1e-6)


def test_options_are_attributes_and_prelu_learns():
    module = nn.LeakyReLU(0.5)
    module.negative_slope = 0.25
    assert module(tg.tensor(-4.0)).item() == -1.0
    layer = nn.PReLU(3)
    layer(tg.tensor([[-1.0, 2.0, -3.0]])).sum().backward()
    assert layer.weight.grad.tolist() == [-1.0, 0.0, -3.0] and list(layer.state_dict()) == ["weight"]


def test_a_model_learns():
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 2))
    x = tensor(200, 2, dtype="float32")
    labels, loss = (x[:, 0] * x[:, 1] > 0).long(), nn.CrossEntropyLoss()
    optimizer = tg.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        loss(model(x), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with tg.no_grad():
        assert float((model.eval()(x).argmax(1) == labels).numpy().mean()) > 0.95
