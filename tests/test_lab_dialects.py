"""Dialects: each goes where its source says, checked on one number with `math` and against recorded runs."""

import math

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim.verify import records, replay

# The records of PyTorch with options that these rules have, and of the authors of Adan.
RECORDED = {name: name for name in tg.lab.DIALECTS} | {"AMSGrad": "Adam", "Nesterov": "SGD"}
FLAGS = {"AMSGrad": dict(amsgrad=True), "Nesterov": dict(nesterov=True), "SGD": {}}


def settings(record, name):
    """Return the options of a record for a rule without flags and without decay; None where they do not fit."""
    own = {key: value for key, value in record.settings.items() if key not in ("weight_decay", "amsgrad", "nesterov")}
    flags = {key: record.settings.get(key, False) for key in ("amsgrad", "nesterov", "maximize", "centered",
                                                              "decoupled_weight_decay", "no_prox")}
    fits = {key: value for key, value in flags.items() if value} == FLAGS.get(name, {})
    fits &= name == "AdamW" or not record.settings.get("weight_decay")
    fits &= name not in ("SGD", "Nesterov") or bool(record.settings.get("momentum"))
    fits &= not record.settings.keys() & {"dampening", "lr_decay", "initial_accumulator_value"}
    if name == "AdamW" and "weight_decay" in record.settings:
        own["weight_decay"] = record.settings["weight_decay"]
    return own if fits else None


@pytest.mark.parametrize("name", tg.lab.DIALECTS)
def test_the_first_goes_where_its_source_was_recorded(name):
    (dialect, *others), recorded, compared, missed = tg.lab.DIALECTS[name].values(), RECORDED[name], 0, 0
    for record in records(recorded):
        options = settings(record, name)
        if options is not None and options.keys() <= dialect.defaults.keys():
            twin = type(record)(**{**vars(record), "settings": options})
            assert replay(dialect.optimizer(), recorded, twin).ok, record.id
            compared += 1
            for other in others:
                own = type(record)(**{**vars(record), "settings": {
                    key: value for key, value in options.items() if key in other.defaults}})
                missed += other.rule is not dialect.rule and not replay(other.optimizer(), recorded, own).ok
    assert compared >= 2 or name == "Nesterov"      # whose records have decay
    assert missed or name in ("Nesterov", "SGD")    # lr inside of the momentum makes no difference while lr stays


def steps(rule, slopes, **state):
    p, path = 1.0, [1.0]
    for t, g in enumerate(slopes, start=1):
        p = rule(p, g, t, state)
        path.append(p)
    return path


def walked(cls, slopes, options):
    w = tg.tensor(np.array([1.0]), requires_grad=True)
    optimizer, path = cls([w], **{"lr": 0.1, **options}), [1.0]
    for g in slopes:
        w.grad = np.array([g])
        optimizer.step()
        path.append(w.item())
    return path


def keras_adam(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    s["m"] += (g - s["m"]) * (1 - b1)
    s["v"] += (g * g - s["v"]) * (1 - b2)
    alpha = lr * math.sqrt(1 - b2 ** t) / (1 - b1 ** t)
    return p - s["m"] * alpha / (math.sqrt(s["v"]) + eps)


def mlx_adam(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    return p - lr * s["m"] / (math.sqrt(s["v"]) + eps)


def optax_amsgrad(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    s["top"] = max(s["top"], s["v"] / (1 - b2 ** t))
    return p - lr * s["m"] / (1 - b1 ** t) / (math.sqrt(s["top"]) + eps)


def optax_adamw(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01, decay=0.2):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    return p - lr * (s["m"] / (1 - b1 ** t) / (math.sqrt(s["v"] / (1 - b2 ** t)) + eps) + decay * p)


def paper_adamw(p, g, t, s, decay=0.2):
    return optax_adamw(p, g, t, s, decay=0) - decay * p


def keras_sgd(p, g, t, s, momentum=0.9):
    s["v"] = momentum * s["v"] - (0.1 if t <= 3 else 0.01) * g
    return p + s["v"]


def keras_nesterov(p, g, t, s, momentum=0.9):
    lr = 0.1 if t <= 3 else 0.01
    s["v"] = momentum * s["v"] - lr * g
    return p + momentum * s["v"] - lr * g


def optax_rmsprop(p, g, t, s, lr=0.1, decay=0.9, eps=0.01):
    s["v"] = decay * s["v"] + (1 - decay) * g * g
    return p - lr * g / math.sqrt(s["v"] + eps)


def optax_adagrad(p, g, t, s, lr=0.1, eps=0.01):
    s["v"] += g * g
    return p - lr * g / math.sqrt(s["v"] + eps)


def optax_nadam(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    mean = b1 * s["m"] / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1 ** t)
    return p - lr * mean / (math.sqrt(s["v"] / (1 - b2 ** t)) + eps)


def keras_nadam(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    u, u_next = (b1 * (1 - 0.5 * 0.96 ** k) for k in (t, t + 1))
    s["product"] *= u
    s["m"] += (g - s["m"]) * (1 - b1)
    s["v"] += (g * g - s["v"]) * (1 - b2)
    mean = u_next * s["m"] / (1 - s["product"] * u_next) + (1 - u) * g / (1 - s["product"])
    return p - mean * lr / (math.sqrt(s["v"] / (1 - b2 ** t)) + eps)


def keras_adamax(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    s["m"] += (g - s["m"]) * (1 - b1)
    s["v"] = max(b2 * s["v"], abs(g))
    return p - lr * s["m"] / ((1 - b1 ** t) * (s["v"] + eps))


def mlx_adamax(p, g, t, s, lr=0.1, b1=0.9, b2=0.999, eps=0.01):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = max(b2 * s["v"], abs(g))
    return p - lr * s["m"] / (s["v"] + eps)


def optax_adan(p, g, t, s, lr=0.1, b1=0.98, b2=0.92, b3=0.99, eps=0.01):
    change = g - s["last"] if t > 1 else 0.0
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["d"] = b2 * s["d"] + (1 - b2) * change
    s["v"] = b3 * s["v"] + (1 - b3) * (g + (1 - b2) * change) ** 2
    s["last"] = g
    mean = s["m"] / (1 - b1 ** t) + b2 * s["d"] / (1 - b2 ** t)
    return p - lr * mean / (math.sqrt(s["v"] / (1 - b3 ** t)) + eps)


BY_HAND = [
    ("Adam", "Keras", keras_adam, {}), ("Adam", "MLX", mlx_adam, {}), ("AMSGrad", "optax", optax_amsgrad, {}),
    ("AdamW", "optax", optax_adamw, dict(weight_decay=0.2)), ("AdamW", "paper", paper_adamw, dict(weight_decay=0.2)),
    ("SGD", "Keras", keras_sgd, dict(lr=lambda t: 0.1 if t < 3 else 0.01)), ("NAdam", "optax", optax_nadam, {}),
    ("Nesterov", "Keras", keras_nesterov, dict(lr=lambda t: 0.1 if t < 3 else 0.01)),
    ("RMSprop", "optax", optax_rmsprop, {}), ("Adagrad", "optax", optax_adagrad, {}),
    ("NAdam", "Keras", keras_nadam, {}), ("Adamax", "Keras", keras_adamax, {}), ("Adamax", "MLX", mlx_adamax, {}),
    ("Adan", "optax", optax_adan, {}),
]


@pytest.mark.parametrize("name, who, rule, options", BY_HAND)
def test_the_others_go_where_their_sources_say(name, who, rule, options):
    slopes = [1.0, -0.3, 2.0, 0.1, 0.1, -0.05, 0.7]
    own = {**({"eps": 0.01} if "eps" in tg.lab.DIALECTS[name][who].defaults else {}), **options}
    path = walked(tg.lab.DIALECTS[name][who].optimizer(), slopes, own)
    start = 0.1 if name == "Adagrad" else 0.0
    by_hand = steps(rule, slopes, m=0.0, v=start, d=0.0, top=0.0, product=1.0, last=0.0)
    assert np.allclose(path, by_hand, rtol=1e-13, atol=0)
    first = next(iter(tg.lab.DIALECTS[name].values())).optimizer()
    assert (abs(walked(first, slopes, own)[-1] - path[-1]) > 1e-6) == ((name, who) != ("AdamW", "optax"))


def test_adam_shows_the_line_and_the_default_that_differ():
    found = tg.lab.compare_dialects("adam")
    assert found.first == "torch" and found.lines["torch"] == [] == found.lines["optax"] == found.lines["paper"]
    assert found.lines["Keras"] == [("p ← p − lr·m̂ / (sqrt(v̂) + ε)", "p ← p − lr·m̂ / (sqrt(v̂) + ε / sqrt(1 − β₂^t))")]
    assert found.defaults == {"torch": {}, "paper": {}, "optax": {}, "Keras": {"eps": (1e-8, 1e-7)}, "MLX": {}}
    assert found.lines["MLX"] == [("m̂ ← m / (1 − β₁^t)", "m̂ ← m"), ("v̂ ← v / (1 − β₂^t)", "v̂ ← v")]
    assert found.largest["optax"] == 0 < found.largest["Keras"] < 1e-5 < found.largest["MLX"]
    assert found.distances["MLX"].shape == (101,) and found.distances["MLX"][0] == 0
    direct = tg.lab.record("adam", "ravine", 100, lr=0.05)
    assert np.array_equal(found.traces["torch"].path, direct.path)
    text = str(found)
    assert "Keras: another rule" in text and "  + p ← p − lr·m̂ / (sqrt(v̂) + ε / sqrt(1 − β₂^t))" in text
    assert "eps=1e-07 (not 1e-08)" in text and "optax: the same rule\n  has no default lr\n  the same path" in text
    left, right = found.draw().axes
    assert [line.get_label() for line in left.get_lines()][:3] == ["torch, paper, optax", "Keras", "MLX"]
    assert np.array_equal(right.get_lines()[2].get_ydata()[1:], found.distances["MLX"][1:])


def test_sgd_differs_where_the_rate_changes_and_options_are_for_all():
    found = tg.lab.compare_dialects("SGD", steps=20)
    assert found.largest["MLX"] == 0 and found.distances["Keras"][:11].max() < 1e-12 < 1e-3 < found.largest["Keras"]
    steady = tg.lab.compare_dialects("SGD", steps=20, lr=0.005, momentum=0.5)
    assert max(steady.largest.values()) < 1e-12 and steady.traces["Keras"].options["momentum"] == 0.5
    assert tg.lab.compare_dialects("AdamW", weight_decay=0.3, steps=30).largest["optax"] < 1e-13
    chain = tg.lab.compare_dialects("NAdam", tg.lab.surface("chain", n=5), 5)
    assert len(chain.draw().axes) == 1 and chain.traces["Keras"].path.shape == (6, 5)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="no optimizer with dialects named 'Adem'; the nearest are Adam"):
        tg.lab.compare_dialects("Adem")
    with pytest.raises(TypeError, match="no dialect of RMSprop has an option rho; they have lr, alpha, eps"):
        tg.lab.compare_dialects("RMSprop", rho=0.9)
    with pytest.raises(ValueError, match="steps"):
        tg.lab.compare_dialects("Adam", steps=0)
