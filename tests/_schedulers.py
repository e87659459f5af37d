"""What the tests of the schedulers share: the table of all of them, and how they are made and run."""

import copy

import tinygrad_opt as tg
from tinygrad_opt.optim import lr_scheduler as ls
from tinygrad_opt.optim import schedule

LRS = (0.1, 0.03)


def ours(name="SGD", lrs=LRS, started=True, **options):
    groups = [{"params": [tg.zeros(2, requires_grad=True)], "lr": lr} for lr in lrs]
    optimizer = getattr(tg.optim, name)(groups, **({"momentum": 0.9} if name == "SGD" else {}) | options)
    if started:
        optimizer.step()
    return optimizer


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def momenta(optimizer):
    return [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]


def run(scheduler, n):
    """The values in force now and after each of n steps."""
    values = [scheduler.get_last_lr()]
    for _ in range(n):
        scheduler.step()
        values.append(scheduler.get_last_lr())
    return values


TORCH = [
    ("LambdaLR", dict(lr_lambda=lambda t: 0.99 ** t)),
    ("LambdaLR", dict(lr_lambda=[lambda t: min(1, t / 30), lambda t: 1 / (1 + t)])),
    ("MultiplicativeLR", dict(lr_lambda=lambda t: 0.995)),
    ("MultiplicativeLR", dict(lr_lambda=[lambda t: 1 - 1 / (t + 3), lambda t: 1.001])),
    ("StepLR", dict(step_size=30)), ("StepLR", dict(step_size=7, gamma=0.97)),
    ("MultiStepLR", dict(milestones=[30, 80, 80, 500])), ("MultiStepLR", dict(milestones=[5, 1], gamma=0.5)),
    ("ConstantLR", {}), ("ConstantLR", dict(factor=0.3, total_iters=100)), ("ConstantLR", dict(factor=1.0)),
    ("LinearLR", {}), ("LinearLR", dict(start_factor=0.01, end_factor=0.7, total_iters=300)),
    ("LinearLR", dict(start_factor=1.0, end_factor=0.0, total_iters=500)),
    ("ExponentialLR", dict(gamma=0.99)), ("ExponentialLR", dict(gamma=1.002)),
    ("PolynomialLR", {}), ("PolynomialLR", dict(total_iters=900, power=2.5)),
    ("CosineAnnealingLR", dict(T_max=1000)), ("CosineAnnealingLR", dict(T_max=37, eta_min=1e-3)),
    ("CosineAnnealingLR", dict(T_max=1)),
    ("CosineAnnealingWarmRestarts", dict(T_0=13)), ("CosineAnnealingWarmRestarts", dict(T_0=5, T_mult=2, eta_min=1e-4)),
    ("CosineAnnealingWarmRestarts", dict(T_0=1, T_mult=3)),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.1, step_size_up=20)),
    ("CyclicLR", dict(base_lr=[0.0, 0.01], max_lr=[0.1, 0.2], step_size_up=7, step_size_down=30, mode="triangular2")),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.1, step_size_up=11, mode="exp_range", gamma=0.99,
                      base_momentum=[0.5, 0.6])),
    ("CyclicLR", dict(base_lr=0.1, max_lr=0.01, step_size_up=11, cycle_momentum=False)),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.1, step_size_up=11, scale_fn=lambda x: 1 / x)),
    ("CyclicLR", dict(base_lr=0.01, max_lr=0.1, step_size_up=11, scale_fn=lambda x: 1 / (1 + x),
                      scale_mode="iterations")),
    ("OneCycleLR", dict(max_lr=0.1, total_steps=1000)),
    ("OneCycleLR", dict(max_lr=[0.1, 0.5], epochs=10, steps_per_epoch=100, anneal_strategy="linear", pct_start=0.45)),
    ("OneCycleLR", dict(max_lr=0.1, total_steps=1000, three_phase=True, div_factor=10.0, final_div_factor=100.0)),
    ("OneCycleLR", dict(max_lr=0.1, total_steps=1000, cycle_momentum=False, pct_start=0.0)),
    ("SWALR", dict(swa_lr=0.05)), ("SWALR", dict(swa_lr=[0.05, 0.5], anneal_epochs=300, anneal_strategy="linear")),
    ("SWALR", dict(swa_lr=0.05, anneal_epochs=0)),
]
MORE = [
    ("HyperScheduler", dict(key="lr", fn=lambda t: 1 / (1 + t))),
    ("HyperScheduler", dict(key="lr", fn=[schedule.warmup(5) >> schedule.cosine(30), schedule.exponential(0.9)])),
    ("InverseSqrt", dict(warmup_steps=10)), ("InverseSqrt", dict(warmup_steps=0, timescale=5)),
    ("InverseTimeDecay", dict(decay_steps=5, decay_rate=0.5)),
    ("InverseTimeDecay", dict(decay_steps=5, decay_rate=0.5, staircase=True)),
    ("LinearToZero", dict(total_steps=30)), ("Noam", dict(model_dim=64, warmup_steps=10)),
    ("CosineRestarts", dict(first_decay_steps=5)),
    ("CosineRestarts", dict(first_decay_steps=5, t_mul=1.5, m_mul=0.5, alpha=0.1)),
    ("PiecewiseConstant", dict(points={5: 0.5, 20: 0.1})), ("PiecewiseLinear", dict(points={0: 0, 5: 1, 20: 0.1})),
    ("PiecewiseCosine", dict(points={0: 0.2, 5: 1, 20: 0.1})),
    ("PolynomialWithEnd", dict(total_steps=20, power=2, end_lr=[1e-3, 1e-2])),
    ("PolynomialWithEnd", dict(total_steps=7, cycle=True)),
    ("REX", dict(total_steps=30)), ("REX", dict(total_steps=30, min_lr_ratio=0.1)),
    ("WSD", dict(warmup_steps=5, stable_steps=10, decay_steps=20)),
    ("WSD", dict(warmup_steps=5, stable_steps=10, decay_steps=20, min_lr_ratio=0.1, decay="1-square")),
    ("WarmupCosine", dict(warmup_steps=5, total_steps=30)),
    ("WarmupCosine", dict(warmup_steps=5, total_steps=30, min_lr=0.01, num_cycles=1.5)),
    ("WarmupLR", dict(warmup_steps=5)),
    ("WarmupLR", dict(warmup_steps=5, start_factor=0.1, mode="exp", after=schedule.cosine(20))),
]
SINGLE = TORCH + MORE
CONTAINERS = {
    "sequential": lambda o, m=ls: m.SequentialLR(o, [
        m.ConstantLR(o, factor=0.1, total_iters=3), m.LinearLR(o, total_iters=8), m.ExponentialLR(o, gamma=0.95)],
        milestones=[5, 20]),
    "sequential of closed": lambda o, m=ls: m.SequentialLR(o, [
        m.LambdaLR(o, lambda t: (t + 1) / 10), m.CosineAnnealingWarmRestarts(o, T_0=7, eta_min=1e-4),
        m.LambdaLR(o, lambda t: 0.9 ** t)], milestones=[9, 25]),
    "sequential, empty first": lambda o, m=ls: m.SequentialLR(o, [
        m.StepLR(o, 3), m.CosineAnnealingLR(o, T_max=40, eta_min=1e-3), m.PolynomialLR(o, total_iters=50)],
        milestones=[0, 30]),
    "sequential into multiplicative": lambda o, m=ls: m.SequentialLR(o, [
        m.LinearLR(o, total_iters=8), m.MultiplicativeLR(o, lambda t: 1 - 1 / (t + 5)), m.StepLR(o, 4)],
        milestones=[6, 30]),
    "sequential into one cycle": lambda o, m=ls: m.SequentialLR(o, [
        m.LinearLR(o, start_factor=0.1, total_iters=10), m.OneCycleLR(o, max_lr=0.3, total_steps=2000),
        m.ExponentialLR(o, gamma=0.99)], milestones=[10, 300]),
    "sequential from cyclic": lambda o, m=ls: m.SequentialLR(o, [
        m.CyclicLR(o, base_lr=0.01, max_lr=0.2, step_size_up=6), m.MultiStepLR(o, [4, 20])], milestones=[13]),
    "chained": lambda o, m=ls: m.ChainedScheduler([
        m.ConstantLR(o, factor=0.1, total_iters=2), m.ExponentialLR(o, gamma=0.99)]),
    "chained many": lambda o, m=ls: m.ChainedScheduler([
        m.LinearLR(o, total_iters=9), m.StepLR(o, 20, gamma=0.8), m.MultiStepLR(o, [3, 30], gamma=0.7),
        m.MultiplicativeLR(o, lambda t: 1.003), m.PolynomialLR(o, total_iters=1500, power=0.5)]),
    "chained floor": lambda o, m=ls: m.ChainedScheduler([
        m.CosineAnnealingLR(o, T_max=1200, eta_min=1e-3), m.StepLR(o, 100, gamma=0.9)]),
    "chained wave": lambda o, m=ls: m.ChainedScheduler([
        m.LinearLR(o, start_factor=0.1, total_iters=5), m.CosineAnnealingLR(o, T_max=100)], o),
}
OURS_ALONE = {
    "sequential of chained": lambda o: ls.SequentialLR(o, [    # torch's children take a step too many at the start
        ls.ChainedScheduler([ls.LinearLR(o, total_iters=9), ls.ExponentialLR(o, gamma=0.9)]),
        ls.StepLR(o, 20, gamma=0.8)], milestones=[15]),
    "sequential of sequential": lambda o: ls.SequentialLR(o, [
        ls.LinearLR(o, total_iters=9),
        ls.SequentialLR(o, [ls.StepLR(o, 2), ls.ExponentialLR(o, gamma=0.9)], [5])], [10]),
    "sequential into chained": lambda o: ls.SequentialLR(o, [
        ls.LinearLR(o, total_iters=9),
        ls.ChainedScheduler([ls.StepLR(o, 20, gamma=0.8), ls.ExponentialLR(o, gamma=0.9)]),
        ls.WSD(o, 2, 3, 9)], milestones=[15, 25]),
    "sequential into SWALR": lambda o: ls.SequentialLR(o, [
        ls.CosineAnnealingLR(o, T_max=30), ls.SWALR(o, swa_lr=0.05, anneal_epochs=8)], milestones=[12]),
    "warm-up of a scheduler": lambda o: ls.WarmupLR(o, 6, after=ls.StepLR(o, 7)),
}
ALL = [(f"{name} {k}", (lambda o, name=name, options=options: getattr(ls, name)(o, **copy.deepcopy(options))))
       for k, (name, options) in enumerate(SINGLE)] + [*CONTAINERS.items(), *OURS_ALONE.items()]
