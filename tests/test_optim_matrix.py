"""The optimizers of matrices: what is special about each, and what all must hold although states differ in form."""

import inspect
import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim import SOAP, Adafactor, Muon, Shampoo
from tinygrad_opt.optim.matrix import eigenbases, gram, in_order, newton_schulz, rotated, rotated_back, turned
from tinygrad_opt.optim.verify import records, replay

ROWS = [
    (Adafactor, {}), (Adafactor, dict(beta2_decay=-0.5, eps=(1e-3, 0.3), d=1.5, weight_decay=0.1, lr=0.1)),
    (Muon, {}), (Muon, dict(nesterov=False, momentum=0.9, weight_decay=0.05)),
    (Muon, dict(adjust_lr_fn="match_rms_adamw", ns_steps=6, ns_coefficients=(3.0, -3.2, 1.2), eps=10.0)),
    (Shampoo, {}), (Shampoo, dict(momentum=0.9, weight_decay=0.1, eps=0.01, update_freq=3, exponent=0.3)),
    (SOAP, {}), (SOAP, dict(betas=(0.9, 0.8), shampoo_beta=0.9, precondition_frequency=3, eps=1e-4,
                            weight_decay=0.1, normalize_grads=True)),
    (SOAP, dict(correct_bias=False, precondition_1d=True, max_precond_dim=4)),
]
rows = pytest.mark.parametrize("cls, options", ROWS, ids=[f"{cls.__name__}-{'-'.join(o)}" for cls, o in ROWS])
classes = pytest.mark.parametrize("cls", [Adafactor, Muon, Shampoo, SOAP])
SHAPES = [(), (3,), (4, 4), (4, 5), (6, 2), (2, 3, 2, 2), (0, 3)]


def parameters(cls, dtype="float64"):
    random = np.random.default_rng(0)
    shapes = [shape for shape in SHAPES if cls is not Muon or len(shape) == 2]
    return [tg.Tensor(np.asarray(random.standard_normal(s)).astype(dtype), requires_grad=True) for s in shapes]


def gradients(params, steps, seed=1):
    random = np.random.default_rng(seed)
    return [[np.asarray(random.standard_normal(p.shape)) for p in params] for _ in range(steps)]


def train(optimizer, params, grads, sign=1):
    for step in grads:
        for p, g in zip(params, step):
            p.grad = None if g is None else tg.Tensor((sign * g).astype(p.dtype))
        optimizer.step()
    return [p.numpy().copy() for p in params]


def leaves(value):
    """Return the arrays and numbers of a state, those in lists too."""
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part)]
    return [] if value is None else [value.numpy() if isinstance(value, tg.Tensor) else value]


# ---- against others ---------------------------------------------------------------------------------------


@classes
def test_recorded_trajectories(cls):
    for record in records(cls.__name__):
        result = replay(cls, cls.__name__, record)
        assert result.ok, f"{record.id}: {result.largest} from the record"


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("options", [options for cls, options in ROWS if cls is Adafactor])
@pytest.mark.parametrize("maximize", [False, True])
def test_adafactor_is_torchs(options, maximize, torch):
    mine = [p for p in parameters(Adafactor) if p.shape != (0, 3)]             # on which torch divides by zero
    theirs = [torch.tensor(p.numpy(), requires_grad=True) for p in mine]
    a = Adafactor(mine, **options, maximize=maximize)
    b = torch.optim.Adafactor(theirs, **options, maximize=maximize)
    for step, grads in enumerate(gradients(mine, 50)):
        train(a, mine, [[None if k == 1 and step % 5 == 2 else g for k, g in enumerate(grads)]])
        for k, (q, g) in enumerate(zip(theirs, grads)):
            q.grad = None if k == 1 and step % 5 == 2 else torch.tensor(g)
        b.step()
    for p, q in zip(mine, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=1e-10)
        assert a.state[p].keys() == b.state[q].keys()
        for key, value in b.state[q].items():
            np.testing.assert_allclose(leaves(a.state[p][key])[0], value.numpy(), rtol=0, atol=1e-10)


def muon_by_hand(x, grads, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True, eps=1e-7, ns_steps=5,
                 ns_coefficients=(3.4445, -4.775, 2.0315), adjust_lr_fn=None):
    """The recursion on the singular values: the singular vectors stay as they are."""
    b, (rows, columns) = np.zeros_like(x), x.shape
    factor = 0.2 * math.sqrt(max(x.shape)) if adjust_lr_fn == "match_rms_adamw" else math.sqrt(max(1, rows / columns))
    for g in grads:
        b += (1 - momentum) * (g - b)
        left, s, right = np.linalg.svd(g + momentum * (b - g) if nesterov else b, full_matrices=False)
        s = s / max(np.sqrt((s * s).sum()), eps)
        for _ in range(ns_steps):
            s = sum(c * s ** power for c, power in zip(ns_coefficients, (1, 3, 5)))
        x = x * (1 - lr * weight_decay) - lr * factor * (left * s) @ right
    return x


@pytest.mark.parametrize("options", [options for cls, options in ROWS if cls is Muon])
def test_muon_is_a_recursion_on_singular_values(options):
    params = [p for p in parameters(Muon) if p.shape != (0, 3)]
    grads = gradients(params, 50)
    wanted = [muon_by_hand(p.numpy().copy(), [step[k] for step in grads], lr=0.05, **options)
              for k, p in enumerate(params)]
    for x, y in zip(train(Muon(params, lr=0.05, **options), params, grads), wanted):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [options for cls, options in ROWS if cls is Muon])
def test_muon_is_torchs_but_for_its_bfloat16(options, torch):
    mine = [p for p in parameters(Muon) if p.shape != (0, 3)]
    theirs = [torch.tensor(p.numpy(), requires_grad=True) for p in mine]
    a, b = Muon(mine, lr=0.05, **options), torch.optim.Muon(theirs, lr=0.05, **options)
    for step in gradients(mine, 10):
        train(a, mine, [step])
        for q, g in zip(theirs, step):
            q.grad = torch.tensor(g)
        b.step()
    for p, q in zip(mine, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=0, atol=2e-2)
        np.testing.assert_allclose(a.state[p]["momentum_buffer"].numpy(), b.state[q]["momentum_buffer"].numpy(),
                                   rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [Adafactor, Muon])
def test_arguments_are_torchs(cls, torch):
    theirs = inspect.signature(getattr(torch.optim, cls.__name__)).parameters
    mine = inspect.signature(cls).parameters
    shared = [name for name in theirs if name not in ("foreach", "maximize")]
    assert [name for name in mine if name != "maximize"] == shared
    assert [mine[name].default for name in shared] == [theirs[name].default for name in shared]


# ---- what the words mean ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (20, 5), (5, 20)])
def test_newton_schulz_keeps_the_vectors_and_moves_the_values_near_one(shape):
    x = tg.backend.asarray(np.random.default_rng(0).standard_normal(shape))
    y = tg.backend.to_numpy(newton_schulz(x, (3.4445, -4.775, 2.0315), 5, 1e-7))
    left, _, right = np.linalg.svd(tg.backend.to_numpy(x), full_matrices=False)
    inside = left.T @ y @ right.T
    assert np.abs(inside - np.diag(np.diag(inside))).max() < 1e-12
    assert 0.68 < np.diag(inside).min() and np.diag(inside).max() < 1.14


def test_shampoo_on_a_vector_is_full_matrix_adagrad():
    x, eps, H = tg.Tensor(np.arange(4.0), requires_grad=True), 1e-2, 1e-2 * np.eye(4)
    optimizer, wanted = Shampoo([x], lr=0.3, eps=eps), np.arange(4.0)
    for g, in gradients([x], 50):
        train(optimizer, [x], [[g]])
        H += np.outer(g, g)
        values, vectors = np.linalg.eigh(H)
        wanted = wanted - 0.3 * vectors @ ((vectors.T @ g) / np.sqrt(values))
        np.testing.assert_allclose(x.numpy(), wanted, rtol=0, atol=1e-12)


def test_shampoo_multiplies_every_axis_by_the_root_of_its_own_factor():
    x = tg.Tensor(np.zeros((2, 3, 4)), requires_grad=True)
    (g,), = gradients([x], 1)
    train(Shampoo([x], lr=1.0, eps=0.1), [x], [[g]])
    roots = []
    for axis in range(3):
        unfolded = np.moveaxis(g, axis, 0).reshape(g.shape[axis], -1)
        values, vectors = np.linalg.eigh(0.1 * np.eye(g.shape[axis]) + unfolded @ unfolded.T)
        roots.append((vectors * values ** (-1 / 6)) @ vectors.T)
    np.testing.assert_allclose(x.numpy(), -np.einsum("abc,ai,bj,ck->ijk", g, *roots), rtol=0, atol=1e-12)


def test_shampoo_computes_powers_at_the_first_step_and_then_at_every_so_many():
    x = tg.Tensor(np.ones((2, 3)), requires_grad=True)
    optimizer, powers = Shampoo([x], update_freq=3), []
    for grads in gradients([x], 7):
        train(optimizer, [x], [grads])
        powers.append(leaves(optimizer.state[x]["inv_precond"])[0])
    assert [bool((a != b).any()) for a, b in zip(powers, powers[1:])] == [False, False, True, False, False, True]


def test_soap_is_adam_where_there_are_no_bases():
    mine, theirs = (tg.Tensor(np.ones((3, 4)), requires_grad=True) for _ in range(2))
    grads = gradients([mine], 20)
    a = train(SOAP([mine], lr=0.05, weight_decay=0, max_precond_dim=0, eps=0), [mine], grads)
    b = train(tg.optim.Adam([theirs], lr=0.05, betas=(0.95, 0.95), eps=0), [theirs], grads[1:])
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_the_first_gradient_of_soap_moves_nothing_and_is_no_step():
    x, late = (tg.Tensor(np.ones((3, 2)), requires_grad=True) for _ in range(2))
    optimizer, grads = SOAP([x, late]), gradients([x, late], 3)
    train(optimizer, [x, late], [[grads[0][0], None]])
    assert optimizer.step_count == 1 and optimizer.state[x]["step"] == 0 and x.grad is not None
    np.testing.assert_array_equal(x.numpy(), 1)
    left, right = (basis.numpy() for basis in optimizer.state[x]["Q"])
    seen = left.T @ grads[0][0] @ right
    np.testing.assert_allclose(seen[np.eye(3, 2) == 0], 0, atol=1e-12)
    train(optimizer, [x, late], grads[1:2])
    assert [optimizer.state[p]["step"] for p in (x, late)] == [1, 0]
    assert (x.numpy() != 1).any() and (late.numpy() == 1).all()
    train(optimizer, [x, late], grads[2:])
    assert (late.numpy() != 1).any()


def test_bases_are_orthogonal_sorted_and_follow_their_factor():
    random = np.random.default_rng(0)
    x, v = (tg.backend.asarray(random.standard_normal((4, 3))) for _ in range(2))
    L = [gram(x, 0), None]
    Q = eigenbases(L)
    assert Q[1] is None
    np.testing.assert_allclose(tg.backend.to_numpy(rotated_back(rotated(x, Q), Q)), tg.backend.to_numpy(x), atol=1e-12)
    values = np.diag(tg.backend.to_numpy(rotated(gram(x, 0), [Q[0], Q[0]])))
    assert (np.diff(values) <= 1e-12).all()
    shuffled = [Q[0][:, [2, 0, 3, 1]], None]
    back = tg.backend.to_numpy(turned(L, shuffled)[0])
    np.testing.assert_allclose(np.abs(back.T @ tg.backend.to_numpy(Q[0]))[:3, :3], np.eye(3), atol=1e-10)
    np.testing.assert_array_equal(tg.backend.to_numpy(in_order(v[[2, 0, 3, 1]], L, shuffled))[:3],
                                  tg.backend.to_numpy(v)[:3])


def test_adafactor_keeps_rows_and_columns():
    shapes = {(): ["variance"], (3,): ["variance"], (4, 5): ["row_var", "col_var"], (2, 3, 4): ["row_var", "col_var"]}
    for shape, names in shapes.items():
        p = tg.ones(shape, requires_grad=True)
        optimizer = Adafactor([p])
        train(optimizer, [p], gradients([p], 1))
        wanted = [shape] if names == ["variance"] else [(*shape[:-1], 1), (*shape[:-2], 1, shape[-1])]
        assert [optimizer.state[p][name].shape for name in names] == wanted
        assert optimizer.state[p].keys() == {"step", *names}


def test_adafactor_gives_rows_without_gradient_no_step():
    p = tg.ones(3, 2, requires_grad=True)
    g = np.array([[1.0, -2.0], [0.0, 0.0], [3.0, 0.5]])
    train(Adafactor([p]), [p], [[g]] * 5)
    assert (p.numpy()[1] == 1).all() and (p.numpy()[[0, 2]] != 1).all()


# ---- what all hold ----------------------------------------------------------------------------------------


@rows
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_shapes_and_dtypes(cls, options, dtype):
    params = parameters(cls, dtype)
    memory, exact = [p.data for p in params], parameters(cls)
    for p, q in zip(params, exact):
        q.data[...] = p.data
    optimizer, grads = cls(params, **options), [[g.astype(dtype) for g in step] for step in gradients(params, 2)]
    wanted = train(cls(exact, **options), exact, grads)
    for p, x, y, m in zip(params, train(optimizer, params, grads), wanted, memory):
        assert p.data is m and p.dtype == dtype
        if cls is not SOAP or p.shape in ((), (4, 4)):              # a gradient of lower rank leaves bases free
            np.testing.assert_allclose(x, y, atol={"float16": 3e-3, "float32": 1e-4, "float64": 0}[dtype])
        working = "float64" if dtype == "float64" else "float32"
        assert {leaf.dtype.name for value in optimizer.state[p].values() for leaf in leaves(value)
                if not isinstance(leaf, int)} <= {working}
        assert all(np.isfinite(leaf).all() for value in optimizer.state[p].values() for leaf in leaves(value))


@rows
def test_maximize_is_the_negative_gradient(cls, options):
    mine, theirs = parameters(cls), parameters(cls)
    grads = gradients(mine, 6)
    for x, y in zip(train(cls(mine, **options, maximize=True), mine, grads),
                    train(cls(theirs, **options), theirs, grads, sign=-1)):
        np.testing.assert_array_equal(x, y)


@rows
def test_a_parameter_without_gradient_stays_and_counts_no_step(cls, options):
    mine, alone = parameters(cls), parameters(cls)
    grads = gradients(mine, 8)
    optimizer, other = cls(mine, **options), cls(alone[:1], **options)
    result = train(optimizer, mine, [[None if k == 0 and t % 3 else g for k, g in enumerate(step)]
                                     for t, step in enumerate(grads)])
    np.testing.assert_array_equal(result[0], train(other, alone[:1], [step[:1] for step in grads[::3]])[0])
    before = [p.numpy().copy() for p in mine]
    optimizer.zero_grad()
    optimizer.step()
    for p, x in zip(mine, before):
        np.testing.assert_array_equal(p.numpy(), x)


@rows
def test_a_saved_state_goes_on_to_the_last_bit(cls, options, tmp_path):
    mine = parameters(cls)
    grads = gradients(mine, 12)
    optimizer = cls(mine, **options)
    for step in (1, 4):                             # SOAP has taken none after its first gradient
        train(optimizer, mine, grads[:step])
        tg.save({"optimizer": optimizer.state_dict(), "params": mine}, tmp_path / "saved.zip")
        saved = tg.load(tmp_path / "saved.zip")
        theirs = [tg.Tensor(p.numpy().copy(), requires_grad=True) for p in saved["params"]]
        resumed = cls(theirs)
        resumed.load_state_dict(saved["optimizer"])
        for x, y in zip(train(optimizer, mine, grads[step:]), train(resumed, theirs, grads[step:])):
            np.testing.assert_array_equal(x, y)


@rows
def test_every_option_of_a_row_changes_the_result(cls, options):
    def after(**chosen):
        params = parameters(cls)
        return np.concatenate([x.ravel() for x in train(cls(params, **chosen), params, gradients(params, 12))])
    for name in options:
        assert (after(**options) != after(**{key: v for key, v in options.items() if key != name})).any(), name


@rows
def test_a_gradient_that_is_not_finite_spoils_its_parameter_alone(cls, options):
    params = [tg.ones(2, 3, requires_grad=True) for _ in range(2)]
    optimizer = cls(params, **options)
    good, bad = np.ones((2, 3)), np.array([[1.0, np.nan, 1.0], [1.0, 1.0, 1.0]])
    train(optimizer, params, [[good, good]] * 2)
    with pytest.warns(RuntimeWarning, match="has become NaN"):
        train(optimizer, params, [[bad, good]] + [[good, good]] * 64)
    assert np.isnan(params[0].numpy()).any() and np.isfinite(params[1].numpy()).all()


@rows
def test_formula_names_every_state_and_prints_as_latex(cls, options):
    p = tg.ones(2, 2, requires_grad=True)
    optimizer = cls([p], **options)
    text, latex = optimizer.formula("text"), optimizer.formula()
    for name in optimizer._rule(0).states:
        assert f"{name} ←" in text
    assert r"\theta &\leftarrow" in latex and latex.count("{") == latex.count("}") and "%" not in latex


BAD = [
    (Adafactor, dict(beta2_decay=0.1), "beta2_decay must lie in .-inf, 0., got 0.1"),
    (Adafactor, dict(d=0.5), "d must lie in .1, inf., got 0.5"),
    (Adafactor, dict(eps=(-1.0, 1e-3)), "eps1 must lie in"), (Adafactor, dict(eps=(None, -1.0)), "eps2 must lie in"),
    (Adafactor, dict(eps=1e-8), "eps is a pair"), (Adafactor, dict(weight_decay=-1), "weight_decay must lie in"),
    (Muon, dict(momentum=-0.1), "momentum must lie in"), (Muon, dict(ns_steps=100), "ns_steps must lie in"),
    (Muon, dict(ns_steps=2.5), "whole numbers"), (Muon, dict(ns_coefficients=(1, 2)), "needs 3 numbers"),
    (Muon, dict(adjust_lr_fn="adam"), "adjust_lr_fn must be 'original', 'match_rms_adamw' or None, got 'adam'"),
    (Shampoo, dict(eps=0), "eps must lie in"), (Shampoo, dict(update_freq=0), "update_freq must lie in"),
    (Shampoo, dict(exponent=-0.5), "exponent must lie in"), (SOAP, dict(betas=(0.9, 1.0)), "beta2 must lie in"),
    (SOAP, dict(shampoo_beta=1.0), "shampoo_beta must lie in"),
    (SOAP, dict(precondition_frequency=1.5), "precondition_frequency must lie in the whole numbers"),
    (SOAP, dict(max_precond_dim=-1), "max_precond_dim must lie in"),
]


@pytest.mark.parametrize("cls, options, message", BAD)
def test_options_out_of_range_are_refused(cls, options, message):
    with pytest.raises(ValueError, match=f"{cls.__name__}: .*{message}"):
        cls([tg.ones(2, 2, requires_grad=True)], **options)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_muon_refuses_what_is_no_matrix_and_says_the_way_out(shape):
    with pytest.raises(ValueError, match=r"parameter bias of shape \(.*\) is no matrix.*muon_with_adamw\(model\)"):
        Muon({"bias": tg.ones(shape, requires_grad=True)})
