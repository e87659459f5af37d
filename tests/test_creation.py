"""Tensors from nothing, and the generators that random ones are drawn from."""

import pickle

import numpy as np
import pytest

import tinygrad_opt as tg

FILLED = {"zeros": 0, "ones": 1}


@pytest.mark.parametrize("make", [tg.zeros, tg.ones, tg.empty, tg.rand, tg.randn], ids=lambda f: f.__name__)
def test_shapes_and_options(make):
    for size, shape in (((), ()), ((3,), (3,)), ((2, 3), (2, 3)), (((2, 3),), (2, 3)), (([2, 3],), (2, 3)), (((),), ()),
                        ((0,), (0,)), ((np.int64(2), tg.tensor(3)), (2, 3))):
        x = make(*size)
        assert isinstance(x, tg.Tensor) and x.shape == shape and x.dtype == "float32" and not x.requires_grad
    x = make(2, dtype=tg.float64, requires_grad=True)
    assert x.dtype == "float64" and x.requires_grad and x.is_leaf
    if make.__name__ in FILLED:
        assert make(2, dtype="int64").tolist() == [FILLED[make.__name__]] * 2
        with pytest.raises(TypeError, match="only a floating-point Tensor"):
            make(2, dtype="int64", requires_grad=True)
    for wrong in ((-1,), (2.0,), ("3",), ((2, 3), 4), (None,)):
        with pytest.raises(ValueError, match="a shape has whole numbers of at least 0, got"):
            make(*wrong)


def test_full():
    assert tg.full((2,), 1.5).tolist() == [1.5, 1.5] and tg.full((2,), 1.5).dtype == "float32"
    assert tg.full((2, 1), 3).dtype == "int64" and tg.full([1], True).dtype == "bool" and tg.full(3, 2).shape == (3,)
    assert tg.full((), np.float64(2)).dtype == "float64" and tg.full((2,), 3, dtype="float32").dtype == "float32"
    assert tg.full((2,), tg.tensor(4.0), requires_grad=True).requires_grad
    with pytest.raises(ValueError, match="whole numbers"):
        tg.full((2, -1), 0)


def test_arange():
    assert tg.arange(3).tolist() == [0, 1, 2] and tg.arange(3).dtype == "int64"
    assert tg.arange(1, 7, 2).tolist() == [1, 3, 5] and tg.arange(3, 0, -1).tolist() == [3, 2, 1]
    assert tg.arange(3.0).dtype == "float32" and tg.arange(0, 1, 0.25).tolist() == [0, 0.25, 0.5, 0.75]
    assert tg.arange(np.int64(2)).dtype == "int64" and tg.arange(3, dtype="float64", requires_grad=True).requires_grad
    assert tg.arange(end=3, start=1).tolist() == [1, 2] and tg.arange(2, 2).shape == (0,)
    with pytest.raises(TypeError, match="only a floating-point Tensor"):
        tg.arange(3, requires_grad=True)


def test_linspace_and_eye():
    assert tg.linspace(0, 1, 5).tolist() == [0, 0.25, 0.5, 0.75, 1] and tg.linspace(0, 1, steps=1).tolist() == [0]
    assert tg.linspace(0, 1, 3, dtype=tg.float64).dtype == "float64" and tg.linspace(0, 1, 2).dtype == "float32"
    assert tg.eye(2).tolist() == [[1, 0], [0, 1]] and tg.eye(1, 2).tolist() == [[1, 0]] and tg.eye(2).dtype == "float32"


@pytest.mark.parametrize("name", ["zeros", "ones", "full", "empty", "rand", "randn"])
def test_like(name):
    make = getattr(tg, name + "_like")
    more = (7,) if name == "full" else ()
    for dtype in ("float32", "float64"):
        x = tg.ones(2, 3, dtype=dtype, requires_grad=True)
        y = make(x, *more)
        assert (y.shape, y.dtype, y.requires_grad) == ((2, 3), dtype, False)
        assert make(x * 2, *more, requires_grad=True).is_leaf
    if name in ("zeros", "ones", "full"):
        n = make(tg.tensor([1, 2]), *more)
        assert n.dtype == "int64" and n.tolist() == [{"zeros": 0, "ones": 1, "full": 7}[name]] * 2
        assert make(x, *more, dtype="int64").dtype == "int64"
        assert not isinstance(make(x.data, *more), tg.Tensor)


# ---- random numbers ---------------------------------------------------------------------------------------


def test_distributions():
    draw = tg.Generator(0)
    u, z = tg.rand(20_000, generator=draw), tg.randn(20_000, generator=draw, dtype="float64")
    assert 0 <= u.min().item() and u.max().item() < 1
    assert u.mean().item() == pytest.approx(0.5, abs=0.01) and u.std().item() == pytest.approx(12 ** -0.5, abs=0.01)
    assert z.mean().item() == pytest.approx(0, abs=0.02) and z.std().item() == pytest.approx(1, abs=0.02)
    k = tg.randint(3, 6, (3000,), generator=draw)
    assert sorted(set(k.tolist())) == [3, 4, 5] and k.dtype == "int64"
    assert (k == 4).sum().item() == pytest.approx(1000, abs=100)
    p = tg.randperm(100, generator=draw)
    assert sorted(p.tolist()) == list(range(100)) != p.tolist() and p.dtype == "int64"


def test_forms_of_randint():
    assert tg.randint(5).shape == () and 0 <= tg.randint(5).item() < 5
    for call in (lambda: tg.randint(0, 5, (2, 3)), lambda: tg.randint(5, (2, 3)), lambda: tg.randint(5, size=[2, 3]),
                 lambda: tg.randint(low=0, high=5, size=(2, 3))):
        x = call()
        assert x.shape == (2, 3) and 0 <= x.min().item() and x.max().item() < 5
    assert tg.randint(5, size=4).shape == (4,) and tg.randint(5, (2,), dtype="uint8").dtype == "uint8"
    with pytest.raises(ValueError):
        tg.randint(5, 5)


DRAWS = [lambda g: tg.rand(3, 4, generator=g), lambda g: tg.randn(7, generator=g),
         lambda g: tg.randn(7, generator=g, dtype="float64"), lambda g: tg.randint(100, (5,), generator=g),
         lambda g: tg.randperm(10, generator=g), lambda g: tg.rand_like(tg.zeros(3), generator=g),
         lambda g: tg.randn_like(tg.zeros(3), generator=g)]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_seed_gives_the_same_bits(draw):
    a, b, c = (draw(tg.Generator(seed)).tolist() for seed in (1, 1, 2))
    assert a == b != c
    tg.manual_seed(1)
    first, second = draw(None).tolist(), draw(None).tolist()
    tg.manual_seed(1)
    assert draw(None).tolist() == first == a and draw(None).tolist() == second != first


def test_the_bits_are_those_of_numpy():
    ours, theirs = tg.Generator(0), np.random.default_rng(0)
    assert tg.randint(1000, (4,), generator=ours).tolist() == theirs.integers(1000, size=4).tolist()
    assert tg.rand(2, generator=ours, dtype="float64").tolist() == theirs.random(2).tolist()
    assert tg.randn(2, generator=ours).tolist() == theirs.standard_normal(2, "float32").tolist()


def test_a_generator_goes_on_from_its_state():
    draw = tg.Generator(3)
    tg.rand(5, generator=draw)
    state = draw.get_state()
    wanted = tg.rand(5, generator=draw).tolist()
    draw.set_state(state)
    assert tg.rand(5, generator=draw).tolist() == wanted
    other = tg.Generator()
    other.set_state(state)
    assert tg.rand(5, generator=other).tolist() == wanted
    again = pickle.loads(pickle.dumps(tg.Generator(4)))
    wanted = tg.rand(2, generator=tg.Generator(4)).tolist()
    assert tg.rand(2, generator=again).tolist() == wanted
    assert draw.manual_seed(4) is draw and tg.rand(2, generator=draw).tolist() == wanted
    assert isinstance(draw.permutation(4), np.ndarray)


def test_generators_are_independent():
    tg.manual_seed(0)
    wanted = tg.rand(3).tolist()
    draw = tg.manual_seed(0)
    assert draw is tg.default_generator()
    tg.rand(100, generator=tg.Generator(0))
    assert tg.rand(3).tolist() == wanted
    assert tg.rand(3, generator=tg.Generator()).tolist() != tg.rand(3, generator=tg.Generator()).tolist()
    with pytest.raises(ValueError):
        tg.manual_seed(-1)


def test_a_generator_of_one_thread_gives_way_to_an_inner_one_and_comes_back():
    from tinygrad_opt.random import default_generator, own_generator
    outside = default_generator()
    with own_generator(1) as outer:
        with own_generator(2) as inner:
            assert default_generator() is inner
        assert default_generator() is outer
    assert default_generator() is outside
