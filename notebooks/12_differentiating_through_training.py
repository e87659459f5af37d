# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Differentiating through training
#
# You try a learning rate of 0.1, then 0.03, then 0.3, and keep the best. Nobody would search for a million *weights* in
# this way: for them there is a gradient. Why not for the rate?
#
# The loss at the end of a training is a number. It was computed from the rate, by steps that are nothing but sums and
# products. **So what is its derivative?** You will take it, check it, descend along it, and find out where it stops to
# mean anything.

# %%
import math

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled
from tinygrad_opt.optim import functional

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## Two steps, by hand
#
# One weight $w$, the loss $\frac12 w^2$, and descent: $w \leftarrow w - \eta\, w = (1 - \eta)\, w$. From $w = 1$, after
# $T$ steps,
#
# $$L = \tfrac12 (1 - \eta)^{2T}, \qquad \frac{dL}{d\eta} = -T\,(1 - \eta)^{2T - 1}.$$
#
# An ordinary optimizer writes its result over the old weights, and what is overwritten cannot be differentiated.
# `tg.optim.functional` makes the same rule a function that overwrites nothing: weights and state go in, and new ones
# come out. The gradients of each step must be on the tape themselves, so that it knows how they depend on the weights:
# `create_graph=True`.

# %%
sgd = functional(tg.optim.SGD)

lr = tg.tensor(0.1, dtype="float64", requires_grad=True)
w0 = tg.tensor([1.0], dtype="float64", requires_grad=True)
w = [w0]
state = sgd.init(w)
for _ in range(2):
    grads = tg.grad((w[0] ** 2).sum() / 2, w, create_graph=True)
    w, state = sgd.update(grads, state, w, lr=lr)
end = (w[0] ** 2).sum() / 2

by_rate, by_start = tg.grad(end, [lr, w0], retain_graph=True)
print(f"dL/dlr {by_rate.item():.4f}, by the formula {-2 * 0.9 ** 3:.4f}")
tg.lab.draw_graph(end, names={"w0": w0, "lr": lr}, shapes=False)

# %% [markdown]
# A training run is a graph like any other. White is the rule, green the first step's gradient, pink the second's. (The
# product with 0 is the weight decay of SGD.) Look at `lr`: two arrows leave it, one to each step, and each step brings
# back -0.729. Where ways meet, they add.
#
# ## A network
#
# Two half moons, a network with eight units, all in double precision, so that differences can be the judge: train with
# a rate a bit above, and a bit below. First, a prediction.
#
# **Guess.** Twenty steps are taken with rate 0.1. Is the slope of the final loss in the rate positive or negative? And
# with rate 5?

# %%
points, classes = tg.data.moons(80, noise=0.15, generator=0)
points = points.astype("float64")


def start(seed=0):
    random = np.random.default_rng(seed)
    arrays = random.standard_normal((2, 8)), np.zeros(8), random.standard_normal((8, 2)) / 8 ** 0.5, np.zeros(2)
    return [tg.tensor(a, requires_grad=True) for a in arrays]


def loss_of(w):
    return tg.cross_entropy(tg.tanh(points @ w[0] + w[1]) @ w[2] + w[3], classes)


def trained(w, lr, steps=20, create_graph=True):
    """Return the weights after some steps of SGD, as a function of the first ones and of the rate."""
    state = sgd.init(w)
    for _ in range(steps):
        grads = tg.grad(loss_of(w), w, create_graph=create_graph)
        w, state = sgd.update(grads, state, w, lr=lr)
    return w


def slope_at(rate, **options):
    """Return the final loss, and its derivative in the rate."""
    lr = tg.tensor(rate, dtype="float64", requires_grad=True)
    end = loss_of(trained(start(), lr, **options))
    return end.item(), tg.grad(end, lr)[0].item()


def difference_at(rate, h=1e-5):
    ends = [loss_of(trained(start(), rate * (1 + side), create_graph=False)).item() for side in (h, -h)]
    return (ends[0] - ends[1]) / (2 * h * rate)


checked = {rate: (*slope_at(rate), difference_at(rate)) for rate in (0.1, 0.5, 2.0, 5.0)}
for rate, (end, slope, difference) in checked.items():
    print(f"lr {rate:<4} loss {end:.4f}   slope: tape {slope:10.6f}, differences {difference:10.6f}")

# %% [markdown]
# Negative at 0.1: a larger rate would have been better. Positive at 5: too large. And the tape is right. It takes one
# more walk back, for however many options, where differences take two trainings for each.
#
# ## What `create_graph` is for
#
# What if you leave it out? The gradients of the steps then count as constants: as if they did not depend on the
# weights, and through them on the rate.
#
# **Guess.** Is that slope too small, too large, or can it even point the wrong way?

# %%
first_order = {rate: slope_at(rate, create_graph=False)[1] for rate in (0.1, 1.0, 2.0, 3.0)}
whole = {rate: slope_at(rate)[1] for rate in first_order}
for rate in whole:
    print(f"lr {rate:<4} slope {whole[rate]:9.5f}, with constant gradients {first_order[rate]:9.5f}")

# %% [markdown]
# At small rates it exaggerates; at 3 it has the wrong sign. It still sees that every step led downhill, and so asks for
# longer steps. What it cannot see is that a longer step changes where the next one begins. For that you need second
# derivatives: the curvature.
#
# ## Learn the learning rate
#
# A slope is made to be descended. A rate has to stay positive, so learn its logarithm, and let Adam do it: an optimizer
# whose parameter is the rate of another.

# %%
raw = tg.tensor(math.log(0.05), dtype="float64", requires_grad=True)
teacher = tg.optim.Adam([raw], lr=0.25 * tg.optim.schedule.cosine(30))
path = []
for _ in range(30):
    end = loss_of(trained(start(), raw.exp()))
    path.append((math.exp(raw.item()), end.item()))
    teacher.zero_grad()
    end.backward()
    teacher.step()
learned_rate = math.exp(raw.item())


def plainly(rate, steps=20):
    """Return the final loss of an ordinary training, with the optimizer of every day."""
    w = start()
    optimizer = tg.optim.SGD(w, lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(w).backward()
        optimizer.step()
    return loss_of(w).item()


same = plainly(0.5) == loss_of(trained(start(), 0.5)).item()
print("functional and ordinary SGD end at the same bits:", same)
print(f"learned: lr {learned_rate:.2f}, loss {path[0][1]:.3f} -> {plainly(learned_rate):.3f}")

grid = np.geomspace(0.02, 20, 240)
ends = np.array([plainly(rate) for rate in grid])
colors = looks(["loss", "path", "slope"])
with styled():
    picture = figure(7.4, 4.0)
    axes = picture.add_subplot()
    axes.plot(grid, ends, color=colors["loss"].color, linewidth=1.2, label="loss after 20 steps")
    for rate, (end, slope, _) in checked.items():
        around = np.geomspace(rate / 1.5, rate * 1.5, 30)
        axes.plot(around, end + slope * (around - rate), color=colors["slope"].color, linewidth=2.4,
                  label="slopes from the tape" if rate == 0.1 else None)
    axes.plot(*zip(*path), color=colors["path"].color, marker=".", linewidth=0.8, label="learning the rate")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0.2, 0.8))
    axes.legend(loc="upper center")
picture

# %% [markdown]
# The green strokes are tangents (a straight line bends on a logarithmic axis). The red dots went down the road, from
# 0.05 into the flat part. A gradient is local: of the hollow at 4, behind a bump, it knows nothing. And to the right of
# 5 there is no road any more, only needles. You will come to that.
#
# ## A rate for every step
#
# Why the same rate for all steps? An option given to `update` holds for that step alone, so every step can have its
# own, and all are learned together. Take a ravine with the curvatures 1 and 10, and two steps.
#
# With one rate, descent is stable below $2/10$: above, the steep direction overshoots more and more.
#
# **Guess.** Will a learned rate ever be above 0.2?

# %%
def ravine(rates, curvatures):
    """Return the loss in a ravine after a step with each rate, from (1, 1, ...)."""
    curvatures = tg.tensor(curvatures, dtype="float64")
    w = [tg.ones(len(curvatures), dtype="float64", requires_grad=True)]
    state = sgd.init(w)
    for lr in rates:
        grads = tg.grad((curvatures * w[0] ** 2).sum() / 2, w, create_graph=True)
        w, state = sgd.update(grads, state, w, lr=lr)
    return (curvatures * w[0] ** 2).sum() / 2


rates = tg.tensor([0.05, 0.15], dtype="float64", requires_grad=True)
teacher = tg.optim.Adam([rates], lr=0.04 * tg.optim.schedule.cosine(400))
for _ in range(400):
    teacher.zero_grad()
    end = ravine(rates, [1.0, 10.0])
    end.backward()
    teacher.step()

best_constant = min((ravine([r, r], [1.0, 10.0]).item(), r) for r in np.linspace(0.01, 0.2, 96))
print(f"one rate for both steps: at best loss {best_constant[0]:.3f}, with {best_constant[1]:.3f}")
learned_rates = rates.tolist()
print(f"learned: {np.round(learned_rates, 4)}, loss {end.item():.1e}")

# %% [markdown]
# One of them is nearly 1, five times beyond the edge, and the loss is next to nothing. A step with rate $1/\lambda$
# finishes the direction of curvature $\lambda$ in one go: with 1 the flat one, with 1/10 the steep one. What the long
# step does to the steep direction does not matter if the short one wipes it out. The edge of stability is a law for
# *constant* rates.
#
# ## The starting weights
#
# The final loss depends on the weights you began with, too. For the ravine it is
# $L = \frac12 \sum_i \lambda_i w_i^2 (1 - \eta \lambda_i)^{2T}$.
#
# **Guess.** After twenty steps, which of the two first weights does the result still remember, the one of the flat
# direction, or the one of the steep?

# %%
curvatures = np.array([1.0, 10.0])
w0 = tg.tensor([1.0, 1.0], dtype="float64", requires_grad=True)
w, state = [w0], sgd.init([w0])
for _ in range(20):
    grads = tg.grad((tg.tensor(curvatures) * w[0] ** 2).sum() / 2, w, create_graph=True)
    w, state = sgd.update(grads, state, w, lr=0.08)
memory = tg.grad((tg.tensor(curvatures) * w[0] ** 2).sum() / 2, w0)[0].numpy()
by_formula = curvatures * (1 - 0.08 * curvatures) ** 40
print("tape   ", memory)
print("formula", by_formula)

first = start()
end = loss_of(trained(first, 0.5))
gradients = [g.numpy() for g in tg.grad(end, first)]
random = np.random.default_rng(1)
direction = [random.standard_normal(p.shape) for p in first]


def moved(h):
    w = [tg.tensor(p.numpy() + h * d, requires_grad=True) for p, d in zip(first, direction)]
    return loss_of(trained(w, 0.5, create_graph=False)).item()


along = sum(float((g * d).sum()) for g, d in zip(gradients, direction))
by_differences = (moved(1e-5) - moved(-1e-5)) / 2e-5
print(f"network, along a random direction: tape {along:.8f}, differences {by_differences:.8f}")

# %% [markdown]
# The steep direction is forgotten: its factor $(1 - 0.8)^{40}$ is nothing. The flat one is remembered. Training forgets
# where it is fast. What is left of a start, after training, lies in the directions in which nothing was learned.
#
# ## Weights that are easy to teach
#
# So one can descend along the gradient in the *starting weights*. But why would one, if training changes them anyway?
# Because one start can serve many tasks.
#
# Each task here is a sine of its own height and phase, of which ten points are known. Two networks, the same 24-24
# units and the same 500 rounds on other sines:
#
# - **joint**: weights that are good *as they are*, for all tasks on average;
# - **through a step**: weights that are good *after one step* on the ten points of a task. The gradient goes through
#   that step. This is MAML (Finn, Abbeel & Levine, 2017).
#
# **Guess.** Before any step, which has the lower loss on new sines? And after a step?

# %%
def sines(random, tasks=25):
    """Return ten points that a step may see, and ten to judge by, for each task."""
    height, phase = random.uniform(0.5, 2.0, (tasks, 1, 1)), random.uniform(0, np.pi, (tasks, 1, 1))
    x = random.uniform(-3, 3, (tasks, 20, 1))
    x, y = (tg.tensor(a.astype("float32")) for a in (x, height * np.sin(x - phase)))
    return (x[:, :10], y[:, :10]), (x[:, 10:], y[:, 10:])


def predict(w, x):
    return tg.tanh(tg.tanh(x @ w[0] + w[1]) @ w[2] + w[3]) @ w[4] + w[5]


def errors(w, x, y):
    """Return the mean square error of each task."""
    return ((predict(w, x) - y) ** 2).mean(axis=(1, 2))


def adapted(w, x, y, lr=0.1, steps=1):
    """Return weights for each task, after steps on its points."""
    w = [p.expand(len(x), *p.shape) for p in w]
    state = sgd.init(w)
    for _ in range(steps):
        w, state = sgd.update(tg.grad(errors(w, x, y).sum(), w, create_graph=True), state, w, lr=lr)
    return w


def educated(through_a_step, rounds=500):
    random = np.random.default_rng(0)
    shapes = (1, 24), (1, 24), (24, 24), (1, 24), (24, 1), (1, 1)
    w = [tg.tensor(random.standard_normal(s).astype("float32") * (s[0] > 1 or k == 0) / s[0] ** 0.5, requires_grad=True)
         for k, s in enumerate(shapes)]
    teacher = tg.optim.Adam(w, lr=3e-3)
    for _ in range(rounds):
        near, far = sines(random)
        teacher.zero_grad()
        errors(adapted(w, *near) if through_a_step else w, *far).mean().backward()
        teacher.step()
    return w


networks = {"through a step": educated(True), "joint": educated(False)}
near, far = sines(np.random.default_rng(7), tasks=300)


def tested(name, **options):
    return errors(adapted(networks[name], *near, **options), *far).mean().item()


after = {name: [tested(name, steps=k) for k in range(4)] for name in networks}
best_joint = min(tested("joint", lr=lr) for lr in (0.01, 0.02, 0.05, 0.1, 0.2))
for name, row in after.items():
    print(f"{name:<15} after 0, 1, 2, 3 steps: ", *(f"{error:.3f}" for error in row))
print(f"joint, one step with the rate that suits it best: {best_joint:.3f}")

line = tg.tensor(np.linspace(-3, 3, 100, dtype="float32").reshape(1, -1, 1))
x = tg.tensor(np.linspace(-2.7, 2.4, 10, dtype="float32").reshape(1, -1, 1))
y = 1.8 * tg.sin(x - 2.2)
with styled():
    picture = figure(8.6, 3.2)
    for axes, (name, w) in zip(picture.subplots(1, 2, sharey=True), networks.items()):
        axes.plot(x.numpy().ravel(), y.numpy().ravel(), "o", color="#888888", label="ten points")
        for (words, look), steps in zip(looks(["no step", "one step", "three"]).items(), (0, 1, 3)):
            axes.plot(line.numpy().ravel(), predict(adapted(w, x, y, steps=steps), line).numpy().ravel(),
                      color=look.color, linestyle=look.linestyle, label=words)
        axes.set_title(name)
    axes.legend(fontsize=9)
picture

# %% [markdown]
# Without a step they are equally bad: no single curve can be all sines at once, and both networks draw the mean. After
# *one* step there is a world between them, even if the joint network takes it with the rate that suits it best. The
# weights are no better. They are better *to begin with*: they lie where a single gradient leads to any sine.
#
# ## What it costs
#
# The tape keeps every step. **Guess.** How do its bytes grow with the number of steps? And if you cut it, and let the
# gradient see the last $k$ of 40 steps only, do you lose precision, or more than that?

# %%
sizes = {}
for steps in (10, 20, 40):
    with tg.Tape() as tape:
        loss_of(trained(start(), tg.tensor(3.0, dtype="float64", requires_grad=True), steps=steps))
    sizes[steps] = sum(operation.bytes for operation in tape.operations)
    print(f"{steps} steps: {len(tape)} operations, {sizes[steps] / 1e3:.0f} kB")


def short_sighted(k, rate=3.0):
    """Return the slope of the loss after 40 steps in the rate, of which the tape sees the last k."""
    lr = tg.tensor(rate, dtype="float64", requires_grad=True)
    w = [p.detach().requires_grad_() for p in trained(start(), rate, steps=40 - k, create_graph=False)]
    return tg.grad(loss_of(trained(w, lr, steps=k)), lr)[0].item()


seen = list(range(1, 41, 3))
slopes = [short_sighted(k) for k in seen]
with styled():
    picture = figure(6.4, 3.2)
    axes = picture.add_subplot()
    axes.axhline(0, color="#888888", linewidth=1)
    axes.plot(seen, slopes, color=looks(["slope"])["slope"].color, marker="o", markersize=4)
    axes.set(xlabel="steps that the tape sees", ylabel="slope in the rate", title="40 steps with rate 3")
picture

# %% [markdown]
# Memory is proportional to the steps. And a cut tape is not merely imprecise: whoever sees ten steps is told to lower
# the rate (the slope is positive), who sees all forty, to raise it. Ask the run itself.

# %%
lower, present, higher = (plainly(rate, steps=40) for rate in (2.9, 3.0, 3.1))
print(f"loss after 40 steps with 2.9: {lower:.4f}, with 3.0: {present:.4f}, with 3.1: {higher:.4f}")

# %% [markdown]
# The whole tape was right. A long step costs something now and pays later, and the short-sighted see the cost alone.
# This is called *short-horizon bias* (Wu, Ren, Liao & Grosse, 2018). To cut the tape saves memory, and makes cowards.
#
# ## Where it stops to mean anything
#
# Back to the needles. The smallest loss with two valleys is $\frac14 (w^2 - 1)^2$, with minima at $\pm 1$ and the
# gradient $w^3 - w$. Descend it with 600 rates at once, from 0.3, and look at two things: where the last of many steps
# are, and how large the slope of $w$ in the rate is after 40.

# %%
rates = tg.tensor(np.linspace(0.01, 2.0, 600), requires_grad=True)
w = tg.full((600,), 0.3, dtype="float64")
for _ in range(40):
    w = w - rates * (w ** 3 - w)
slopes_of_w = abs(tg.grad(w.sum(), rates)[0].numpy())

places, w = [], w.detach().numpy()
for k in range(300):
    w = w - rates.numpy() * (w ** 3 - w)
    places.append(w)

with styled():
    picture = figure(7.4, 5.4)
    above, below = picture.subplots(2, 1, sharex=True)
    above.plot(rates.numpy(), np.array(places[-80:]).T, ",", color="#333333")
    above.set(ylabel="w in the last of 340 steps", title="descent on (w² - 1)² / 4")
    below.plot(rates.numpy(), np.maximum(slopes_of_w, 1e-16), color=looks(["slope"])["slope"].color, linewidth=1)
    below.set(yscale="log", xlabel="learning rate", ylabel="|dw / d lr| after 40 steps")
picture

# %% [markdown]
# Up to 1 the run ends at the minimum. In the middle, where forty steps are enough to arrive, the rate does not matter
# at all: the slope is nothing. At 1 the valley's edge of stability is passed. The run swings between two places, then
# four, and from about 1.3 on it is everywhere (but for some islands of order). There the slope below explodes, to
# $10^{10}$ and beyond. The derivative is correct, and it is useless: a step along it is a step into another world.
#
# At rate 2 you can say exactly what happens. Put $w = \sqrt 2 \sin\theta$. Then
#
# $$w - 2\,(w^3 - w) = \sqrt2\,(3 \sin\theta - 4 \sin^3\theta) = \sqrt 2 \sin 3\theta.$$
#
# Each step triples an angle. **Guess.** The computer knows the starting weight to 16 digits. After how many steps is
# nothing left of them?

# %%
angle = math.asin(0.3 / math.sqrt(2))
print("steps   w by descent   w exactly   dw/dw0 by the tape     exactly")
tripled = {}
for steps in (1, 5, 10, 20, 30, 35):
    w0 = tg.tensor([0.3], dtype="float64", requires_grad=True)
    w, state = [w0], sgd.init([w0])
    for _ in range(steps):
        w, state = sgd.update(tg.grad((w[0] ** 2 - 1).square().sum() / 4, w, create_graph=True), state, w, lr=2.0)
    tripled[steps] = (w[0].item(), math.sqrt(2) * math.sin(3 ** steps * angle), tg.grad(w[0].sum(), w0)[0].item(),
                      3 ** steps * math.cos(3 ** steps * angle) / math.cos(angle))
    print("{:>5} {:>14.6f} {:>11.6f} {:>20.6g} {:>11.6g}".format(steps, *tripled[steps]))

# %% [markdown]
# The slope grows threefold at each step: $3^{20}$ is three and a half billion. What the sixteenth digit of the start
# says has become the first digit after 34 steps, $3^{34} > 10^{16}$, and both columns, the "exact" one too, are noise
# from there on.
#
# Chaos is a matter of the *run*, not of the method: differences would tell no more. If you learn options by descent,
# keep the run on this side of the edge, take few steps, clip the gradient, and look at a plot like the one above.
#
# ## Exercises
#
# Change the cell, run it again, and read what the check says.
#
# **1. Who forgot the curvature?** This slope of the weight decay, after ten steps, is wrong.

# %%
def slope_of_decay(decay):
    lam = tg.tensor(decay, dtype="float64", requires_grad=True)
    w, state = start(), sgd.init(start())
    for _ in range(10):
        grads = tg.grad(loss_of(w), w)
        w, state = sgd.update(grads, state, w, lr=1.0, weight_decay=lam)
    return tg.grad(loss_of(w), lam)[0].item()


def check_decay(slope):
    ends = []
    for decay in (0.02 + 1e-6, 0.02 - 1e-6):
        w = start()
        optimizer = tg.optim.SGD(w, lr=1.0, weight_decay=decay)
        for _ in range(10):
            optimizer.zero_grad()
            loss_of(w).backward()
            optimizer.step()
        ends.append(loss_of(w).item())
    expected, got = (ends[0] - ends[1]) / 2e-6, slope(0.02)
    print(f"differences say {expected:.5f}, you say {got:.5f}")
    return math.isclose(expected, got, rel_tol=1e-5)


check_decay(slope_of_decay);

# %% [markdown]
# **2. Three steps, three curvatures.** In a ravine with the curvatures 1, 4 and 10, three rates bring the loss to 0.
# Say which, without learning them.

# %%
my_rates = [0.1, 0.1, 0.1]


def check_rates(rates):
    end = ravine(rates, [1.0, 4.0, 10.0]).item()
    print(f"the loss is {end:.3g}", "" if end < 1e-20 else "(not yet)")
    return end < 1e-20


check_rates(my_rates);

# %% [markdown]
# **3. Momentum, learned.** Twenty steps in a ravine with the curvatures 1, 10 and 100. Without momentum the best rate
# gets the loss down to 0.248. Choose rate and momentum so that it comes below 0.05; better, let a gradient choose. A
# number between 0 and 1 is learned as `raw.sigmoid()`.

# %%
heavy = functional(tg.optim.SGD, momentum=0.5)
steep = tg.tensor([1.0, 10.0, 100.0], dtype="float64")


def rolled(lr, momentum):
    w = [tg.ones(3, dtype="float64", requires_grad=True)]
    state = heavy.init(w)
    for _ in range(20):
        grads = tg.grad((steep * w[0] ** 2).sum() / 2, w, create_graph=True)
        w, state = heavy.update(grads, state, w, lr=lr, momentum=momentum)
    return (steep * w[0] ** 2).sum() / 2


my_rate, my_momentum = 0.0177, 0.0


def check_momentum(lr, momentum):
    end = rolled(lr, momentum).item()
    print(f"lr {lr:.4f}, momentum {momentum:.3f}: loss {end:.4f}", "" if end < 0.05 else "(not yet)")
    return end < 0.05


check_momentum(my_rate, my_momentum);


# %% [markdown]
# ## Solutions
#
# 1. `tg.grad` without `create_graph=True`: the gradients counted as constants.
# 2. $1/\lambda$ for each curvature, in any order: 1, 1/4 and 1/10.
# 3. Descend on the logarithm of the rate and the logit of the momentum, in small steps: the edge of stability is near.

# %%
def slope_of_decay(decay):
    lam = tg.tensor(decay, dtype="float64", requires_grad=True)
    w, state = start(), sgd.init(start())
    for _ in range(10):
        grads = tg.grad(loss_of(w), w, create_graph=True)
        w, state = sgd.update(grads, state, w, lr=1.0, weight_decay=lam)
    return tg.grad(loss_of(w), lam)[0].item()


raws = [tg.tensor(value, dtype="float64", requires_grad=True) for value in (math.log(0.0177), 0.0)]
teacher = tg.optim.Adam(raws, lr=0.05 * tg.optim.schedule.cosine(60))
for _ in range(60):
    teacher.zero_grad()
    rolled(raws[0].exp(), raws[1].sigmoid()).backward()
    teacher.step()
solved = [check_decay(slope_of_decay), check_rates([1, 1 / 4, 1 / 10]),
          check_momentum(raws[0].exp().item(), raws[1].sigmoid().item())]

# %% [markdown]
# ## What you know now
#
# - A training run is a graph. Its result has a derivative in everything that went in: rates, momentum, decay, weights.
# - The steps' own gradients must be on the tape (`create_graph=True`). As constants they can point the wrong way.
# - Learned rates may lie beyond the edge of stability: that is a law for constant ones.
# - Training forgets its start where it is fast, and a start can be learned, so that one step suffices.
# - Memory grows with the steps. A tape that is cut short can point the wrong way too: it sees costs, not what they pay.
# - Where the run is chaotic, the derivative is correct and useless.

# %%
assert math.isclose(by_rate.item(), -2 * 0.9 ** 3)
assert all(math.isclose(slope, difference, rel_tol=1e-4) for _, slope, difference in checked.values())
assert checked[0.1][1] < 0 < checked[5.0][1]                            # longer steps, and shorter ones
assert first_order[3.0] < 0 < whole[3.0]                                # constant gradients point the wrong way
assert learned_rate > 10 * 0.05 and plainly(learned_rate) < path[0][1] - 0.05
assert np.allclose(sorted(learned_rates), [0.1, 1.0], atol=0.05)        # five times beyond the edge
assert np.allclose(memory, by_formula) and memory[0] > 1e-2 and memory[1] < 1e-20
assert math.isclose(along, by_differences, rel_tol=1e-5)
assert after["through a step"][1] < 0.7 * best_joint                    # weights that are easy to teach
assert 3.5 < sizes[40] / sizes[10] < 4.5                                # memory, in proportion to the steps
assert slopes[3] > 0 > slopes[-1] and lower > present > higher          # the short-sighted are told the opposite
assert slopes_of_w[150] < 1e-6 and slopes_of_w[-5:].min() > 1e6         # forgotten, and chaotic
assert np.allclose(tripled[10][:2], tripled[10][0]) and math.isclose(*tripled[10][2:], rel_tol=1e-6)
assert all(solved)

# %% [markdown]
# Next: `examples/learn_the_rate.py` learns all of Adam's numbers on the digits, and `examples/maml_sinusoids.py` is the
# large version of the sines. Notebook 09 uses the same second derivatives to step better.
