"""What the tests of the optimizers share: the table of all of them, and how they are made and run."""

import numpy as np
import pytest
from _papers import BATCH, CURVATURE, LOSS

import tinygrad_opt as tg
from tinygrad_opt import optim
from tinygrad_opt.language import REDUCTIONS

# Every optimizer with options that reach each of its rules.
TABLE = [
    ("SGD", {}), ("SGD", dict(weight_decay=0.1)), ("SGD", dict(momentum=0.9)),
    ("SGD", dict(momentum=0.9, dampening=0.3, weight_decay=0.1)),
    ("SGD", dict(momentum=0.9, nesterov=True, weight_decay=0.1)), ("SGD", dict(maximize=True)),
    ("ASGD", {}), ("ASGD", dict(lambd=0.1, alpha=0.5, t0=3, weight_decay=0.1)),
    ("Adagrad", {}), ("Adagrad", dict(lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-3)),
    ("Adadelta", {}), ("Adadelta", dict(rho=0.8, eps=1e-5, weight_decay=0.1)),
    ("RMSprop", {}), ("RMSprop", dict(momentum=0.9, weight_decay=0.1)), ("RMSprop", dict(centered=True)),
    ("RMSprop", dict(centered=True, momentum=0.9, alpha=0.8)),
    ("Rprop", {}), ("Rprop", dict(etas=(0.4, 1.3), step_sizes=(0.01, 0.1))),
    ("Adam", {}), ("Adam", dict(weight_decay=0.1)), ("Adam", dict(amsgrad=True, betas=(0.5, 0.6))),
    ("Adam", dict(weight_decay=0.1, decoupled_weight_decay=True)), ("Adam", dict(maximize=True, eps=1e-3)),
    ("AdamW", {}), ("AdamW", dict(amsgrad=True, weight_decay=0.2)),
    ("Adamax", {}), ("Adamax", dict(betas=(0.5, 0.6), eps=1e-3, weight_decay=0.1)),
    ("NAdam", {}), ("NAdam", dict(weight_decay=0.1, momentum_decay=0.1)),
    ("NAdam", dict(weight_decay=0.1, decoupled_weight_decay=True)),
    ("RAdam", {}), ("RAdam", dict(betas=(0.9, 0.9), weight_decay=0.1)), ("RAdam", dict(betas=(0.9, 0.5))),
    ("RAdam", dict(weight_decay=0.1, decoupled_weight_decay=True)),
    ("AdaBelief", {}), ("AdaBelief", dict(weight_decay=0.1, weight_decouple=False)),
    ("AdaBelief", dict(amsgrad=True, betas=(0.5, 0.6), weight_decay=0.1)),
    ("AdaBelief", dict(rectify=True, betas=(0.9, 0.98), eps=1e-8)),
    ("AdaBelief", dict(rectify=True, amsgrad=True, weight_decouple=False, weight_decay=0.1, eps=1e-6)),
    ("Yogi", {}), ("Yogi", dict(betas=(0.5, 0.6), eps=1e-4)),
    ("Lion", {}), ("Lion", dict(betas=(0.5, 0.8), weight_decay=0.1)),
    ("Signum", {}), ("Signum", dict(momentum=0)),
    ("Adan", {}), ("Adan", dict(betas=(0.9, 0.8, 0.95), weight_decay=0.1)),
    ("Adan", dict(no_prox=True, weight_decay=0.1)),
    ("AdEMAMix", {}), ("AdEMAMix", dict(betas=(0.8, 0.95, 0.99), alpha=5.0, weight_decay=0.1)),
    ("AdEMAMix", dict(beta3_warmup=15)), ("AdEMAMix", dict(alpha_warmup=10, beta3_warmup=5, weight_decay=0.1)),
    ("MADGRAD", {}), ("MADGRAD", dict(momentum=0, weight_decay=0.1, eps=1e-3)),
    ("ADOPT", {}), ("ADOPT", dict(betas=(0.5, 0.6), eps=0.2)),
    ("AdaBound", {}), ("AdaBound", dict(gamma=0.05, final_lr=0.04, weight_decay=0.1)),
    ("AdaBound", dict(amsbound=True, betas=(0.5, 0.6), gamma=0.1)),
    ("QHM", {}), ("QHM", dict(momentum=0.9, nu=0.7, weight_decay=0.1)),
    ("QHM", dict(momentum=0.5, nu=-0.7, weight_decay=0.1, weight_decay_type="direct")),
    ("QHAdam", {}), ("QHAdam", dict(nus=(0.7, 0.8), weight_decay=0.1)),
    ("QHAdam", dict(nus=(0.7, 1.0), weight_decay=0.1, decouple_weight_decay=True)),
    ("AggMo", {}), ("AggMo", dict(betas=(0.9,))),
    ("AggMo", dict(betas=tuple(k / 11 for k in range(11)), weight_decay=0.1)),
    ("LARS", {}), ("LARS", dict(trust_coefficient=0.02, weight_decay=0.1, dampening=0.2, eps=1e-3)),
    ("LARS", dict(trust_coefficient=0.02, nesterov=True)), ("LARS", dict(momentum=0)),
    ("LARS", dict(trust_coefficient=0.02, exclude_1d=True)),
    ("LAMB", {}), ("LAMB", dict(weight_decay=0.1, betas=(0.5, 0.6), max_grad_norm=0.5)),
    ("LAMB", dict(bias_correction=False, trust_clip=True)),
    ("NovoGrad", {}), ("NovoGrad", dict(betas=(0.5, 0.6), weight_decay=0.1, eps=1e-3)),
    ("PolyakSGD", {}), ("PolyakSGD", dict(f_star=1.0, eps=0.1)),
    ("DoG", {}), ("DoG", dict(reps_rel=0.01, eps=1e-3, weight_decay=0.1)),
    ("DAdaptSGD", {}), ("DAdaptSGD", dict(momentum=0.5, weight_decay=0.1, d0=0.01, growth_rate=1.5)),
    ("DAdaptAdam", {}), ("DAdaptAdam", dict(use_bias_correction=True, decouple=True, weight_decay=0.1, d0=0.01)),
    ("DAdaptAdam", dict(weight_decay=0.1, growth_rate=1.5, d0=0.01)),
    ("Prodigy", {}), ("Prodigy", dict(use_bias_correction=True, decouple=False, weight_decay=0.1, d0=0.01)),
    ("Prodigy", dict(safeguard_warmup=True, beta3=0.9, d_coef=0.5, growth_rate=1.5, weight_decay=0.1, d0=0.01)),
    ("SophiaG", {}), ("SophiaG", dict(betas=(0.5, 0.6), rho=1e-3, weight_decay=0)),
    ("ScheduleFreeSGD", {}), ("ScheduleFreeSGD", dict(momentum=0.8, weight_decay=0.1, warmup_steps=5, r=1.0)),
    ("ScheduleFreeAdamW", {}),
    ("ScheduleFreeAdamW", dict(betas=(0.5, 0.6), weight_decay=0.1, warmup_steps=5, r=1.0, weight_lr_power=1.0)),
    ("Adafactor", {}), ("Adafactor", dict(beta2_decay=-0.5, eps=(1e-3, 0.3), d=1.5, weight_decay=0.1)),
    ("Muon", {}), ("Muon", dict(nesterov=False, momentum=0.9, weight_decay=0.05)),
    ("Muon", dict(adjust_lr_fn="match_rms_adamw", ns_steps=6, ns_coefficients=(3.0, -3.2, 1.2), eps=10.0)),
    ("Shampoo", {}), ("Shampoo", dict(momentum=0.9, weight_decay=0.1, eps=0.01, update_freq=3, exponent=0.3)),
    ("SOAP", {}), ("SOAP", dict(betas=(0.9, 0.8), shampoo_beta=0.9, precondition_frequency=3, eps=1e-4,
                                weight_decay=0.1, normalize_grads=True)),
    ("SOAP", dict(correct_bias=False, precondition_1d=True, max_precond_dim=4)),
    ("SophiaH", {}), ("SophiaH", dict(gamma=0.5, clip_threshold=0.3, weight_decay=0.1)),
]
NAMES = list(dict(TABLE))


def label(name, options):
    return f"{name}-{'-'.join(options)}"


def each_of(names):
    """Run a test with every row of the table that belongs to these optimizers."""
    rows = [row for row in TABLE if row[0] in names]
    return pytest.mark.parametrize("name, options", rows, ids=[label(*row) for row in rows])


SHAPES = [(), (3,), (4, 5), (2, 3, 2, 2), (0, 3)]
MATRICES = [(3, 3), (4, 5), (7, 2), (1, 6), (0, 3)]                     # all that Muon takes


def make(name, options, params, lr=0.05):
    optimizer = getattr(optim, name)(params, **{"max_lr" if name == "PolyakSGD" else "lr": lr, **options})
    if name.startswith("ScheduleFree"):
        optimizer.train()
    return optimizer


def step(optimizer, loss=LOSS):
    """Take a step, with what some optimizers must be told beside gradients."""
    name = type(optimizer).__name__
    if name == "SophiaG":
        optimizer.update_hessian()
        return optimizer.step(bs=BATCH)
    if name == "SophiaH":
        learned = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        optimizer.update_hessian(lambda: CURVATURE / 2 * sum((p ** 2).sum() for p in learned))
    return optimizer.step(lambda: loss) if name == "PolyakSGD" else optimizer.step()


def rule_of(name, options):
    return make(name, options, [tg.ones(2, 2, requires_grad=True)])._rule(0)


# A step of these looks at a whole tensor, or at all of them; that of the others at one element after the other.
WHOLE = {name for name, options in TABLE if rule_of(name, options).matrix or rule_of(name, options).reductions}
TOGETHER = {name for name, options in TABLE
            if any(REDUCTIONS[kind].everywhere for kind in rule_of(name, options).reductions.values())}
each = each_of(NAMES)
each_name = pytest.mark.parametrize("name", NAMES)


def parameters(dtype="float64", seed=0, name=None):
    """Return parameters of all shapes that an optimizer takes."""
    random, shapes = np.random.default_rng(seed), MATRICES if name == "Muon" else SHAPES
    return [tg.Tensor(np.asarray(random.standard_normal(s)).astype(dtype), requires_grad=True) for s in shapes]


def run(optimizer, params, steps=20, seed=1, drift=0.0):
    """Steps with the same random gradients for whoever asks with the same seed."""
    random = np.random.default_rng(seed)
    for _ in range(steps):
        for p in params:
            p.grad = tg.Tensor(np.asarray(drift + random.standard_normal(p.shape)).astype(p.dtype))
        step(optimizer)
    return [p.numpy().copy() for p in params]


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def rules():
    """Return every rule of the table, read, by a name of its own."""
    read = [rule for row in TABLE if not (rule := rule_of(row[0], {**row[1], "maximize": False})).matrix]
    return {f"{rule.name}_{k}": rule for k, rule in enumerate(dict.fromkeys(read))}
