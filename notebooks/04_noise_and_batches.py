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
# # Noise and batches
#
# Training on batches replaces the gradient by a guess. How good is the guess, and what does a larger batch buy? What
# does the noise do to the path, why does it stop to improve, and what gets it going again: a lower rate, an average,
# momentum, or more data a step?
#
# You need the notebook before this one: what a step does along a curvature $h$.

# %%
import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled
from tinygrad_opt.optim import schedule

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## The gradient of a batch is a random vector
#
# A small network on 1024 points of two moons. Its gradient over all points is one vector of 82 numbers. The gradient
# over a batch, drawn at random, is another one, and each batch gives another.
#
# **Guess.** With batches four times as large, how much smaller is the distance of the batch's gradient from the whole
# one: sixteen times, four times, or twice?

# %%
my_guess = 4                                        # put your own here

x, y = tg.data.moons(1024, noise=0.2, generator=0)


def make_model():
    tg.manual_seed(0)
    return tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.Tanh(), tg.nn.Linear(16, 2))


def gradient(model, rows):
    slopes = tg.grad(tg.cross_entropy(model(x[rows]), y[rows]), list(model.parameters()))
    return np.concatenate([slope.numpy().reshape(-1) for slope in slopes])


model, random = make_model(), tg.Generator(1).numpy
whole = gradient(model, np.arange(1024))
sizes = [1, 4, 16, 64, 256, 1024]
ways = {"drawn with replacement": lambda size: random.integers(0, 1024, size),
        "without replacement": lambda size: random.permutation(1024)[:size]}
spread, middle = {way: [] for way in ways}, {}
for way, draw in ways.items():
    for size in sizes:
        drawn = np.stack([gradient(model, draw(size)) for _ in range(200)])
        spread[way].append(((drawn - whole) ** 2).sum(axis=1).mean() ** 0.5)
        middle[size] = np.linalg.norm(drawn.mean(axis=0) - whole)

with styled():
    fig = figure(6.6, 4.0)
    axes = fig.subplots()
    for way, look in looks(spread).items():
        axes.plot(sizes, np.maximum(spread[way], 1e-3), color=look.color, marker=look.marker,
                  linestyle=look.linestyle, label=way)
    axes.plot(sizes, spread["drawn with replacement"][0] / np.sqrt(sizes), color="#999999", linewidth=1,
              label=r"one over the root of the size")
    axes.axhline(np.linalg.norm(whole), color="#333333", linestyle=":", label="length of the whole gradient")
    axes.set(xscale="log", yscale="log", xlabel="batch size", title="distance of a batch's gradient from the whole one")
    axes.legend(fontsize=9)
print("length of the whole gradient:", np.linalg.norm(whole).round(3),
      "  distance of the mean of 200 batches of 1 from it:", middle[1].round(3))
fig

# %% [markdown]
# Twice. The *squares* of independent errors add up, so the mean of $B$ samples has $1/B$ of the variance of one and
# $1/\sqrt B$ of its spread. For ten times the accuracy you pay a hundred samples.
#
# Two more things to see. A single sample is mostly noise: its error is longer than the gradient itself. And yet the
# mean of many such gradients is the whole gradient: the noise is zero in the mean, which is why it works at all.
#
# Without replacement the curve bends down at the end: a batch of all 1024 is no guess any more (the picture cuts what
# is left, rounding, at $10^{-3}$). For the batches that one uses, the two agree.
#
# ### Far away a signal, near the minimum noise
#
# The surface `noisy_ravine` is a mean of 200 ravines with scattered centres, steeper along $y$ by 20. A step sees 8 of
# them. Here are 300 such gradients at two points.

# %%
ravine = tg.lab.surface("noisy_ravine")


def clouds(point, draws=300):
    random, slopes = tg.Generator(2).numpy, []
    for t in range(draws):
        w = tg.tensor(np.array(point), requires_grad=True)
        slopes.append(tg.grad(ravine.sample(t, random)(w), w)[0].numpy())
    return np.stack(slopes)


with styled():
    fig = figure(9.5, 3.9)
    for axes, point in zip(fig.subplots(1, 2, sharex=True, sharey=True), [(-2.5, 1.0), (0.3, -0.02)]):
        found = clouds(point)
        axes.plot(*found.T, ".", markersize=4, alpha=0.5, label="of a batch of 8")
        axes.plot(*found.mean(axis=0), "*", color="#D55E00", markersize=13, label="their mean")
        axes.axhline(0, color="#333333", linewidth=0.8)
        axes.set(title=f"gradients at {point}", xlabel="along x")
    axes.legend()
fig.axes[0].set_ylabel("along y")
fig

# %% [markdown]
# The clouds are equally wide, only their places differ. Far away every batch says "down, along $y$". Near the minimum
# about half of them point the wrong way. *Noise does not grow; the signal fades.* So what a small batch costs depends
# on where you stand.
#
# ## The path, and the floor
#
# **Guess.** SGD with a constant rate on this surface: does it converge to the minimum? And if it only comes near, what
# becomes of the loss that is left when you halve the rate?

# %%
my_guess = "a quarter"


def above(path):
    return ravine(path.T) - ravine.lowest


rates = (0.04, 0.02, 0.01, 0.005)
runs = {f"lr {lr}": tg.lab.record("SGD", ravine, 3000, lr=lr) for lr in rates}
tg.lab.draw_contour(ravine, {name: runs[name] for name in ("lr 0.04", "lr 0.005")})

# %% [markdown]
# Neither comes to rest. Each arrives at a cloud around the minimum and stays in it, and the cloud of the smaller rate
# is the smaller one. The loss that is left, in the mean over the last 2000 steps, is the **noise floor**.
#
# It can be computed. Along a curvature $h$, with gradient noise of variance $\sigma^2$, a step is
# $w \leftarrow (1 - \mathrm{lr}\,h)\,w - \mathrm{lr} \cdot \text{noise}$. The variance $s$ of $w$ stays the same once
# $s = (1 - \mathrm{lr}\,h)^2 s + \mathrm{lr}^2 \sigma^2$, and a variance of $s$ costs a loss of
#
# $$\frac{h\,s}{2} = \frac{\mathrm{lr}\,\sigma^2}{2\,(2 - \mathrm{lr}\,h)} \approx \frac{\mathrm{lr}\,\sigma^2}{4}$$

# %%
curvatures = np.array([1.0, 20.0])


def noise_of(run):
    return (run.gradients["w"] - curvatures * run.path[:-1]).var(axis=0)    # what is not the slope of the whole


floors = {}
print("lr      floor     computed   variance of the gradient's noise along x and y")
for lr in rates:
    run = runs[f"lr {lr}"]
    variance = noise_of(run)
    computed = (lr * variance / (2 * (2 - lr * curvatures))).sum()
    floors[lr] = above(run.path[1000:]).mean(), computed
    print(f"{lr:<6}  {floors[lr][0]:.4f}    {computed:.4f}     {variance.round(3)}")

# %% [markdown]
# Half the rate, half the floor (a little less than half at large rates). The rate does not only say how fast you go, it
# says how long a mean the run takes: at a small rate it takes many steps to go anywhere, and the noise of many batches
# cancels on the way.
#
# The variance falls with $1/B$, so four times the batch does to the floor what a quarter of the rate does. It is
# $\mathrm{lr}/B$ that counts, and that is why people who double the batch double the rate.
#
# ## Does momentum average the noise away?
#
# Momentum sums gradients, ten of them in effect at 0.9. A sum of ten noisy gradients should be less noisy.
#
# **Guess.** Same rate, 0.01. With a momentum of 0.9, is the floor a tenth, the same, or ten times as high?

# %%
my_guess = "a tenth"

candidates = {"plain, lr 0.01": dict(lr=0.01), "momentum 0.9, lr 0.01": dict(lr=0.01, momentum=0.9),
              "momentum 0.9, lr 0.001": dict(lr=0.001, momentum=0.9),
              "Nesterov 0.9, lr 0.001": dict(lr=0.001, momentum=0.9, nesterov=True)}


def floor_of(variance, **options):
    """Return the floor of any linear rule: the covariance S of (p, state) with S = M S M' + variance * n n'."""
    total = 0.0
    for h, sigma2 in zip(curvatures, variance):
        M = tg.lab.linear_map("SGD", h, **options)
        n = (M - tg.lab.linear_map("SGD", 0.0, **options))[:, 0] / h        # what a gradient of 1 does
        S = np.linalg.solve(np.eye(n.size ** 2) - np.kron(M, M), sigma2 * np.kron(n, n))
        total += h * S[0] / 2
    return total


moving = {}
for name, options in candidates.items():
    run = runs["lr 0.01"] if name.startswith("plain") else tg.lab.record("SGD", ravine, 3000, **options)
    moving[name] = above(run.path[1000:]).mean(), floor_of(noise_of(run), **options), run
    print(f"{name:24} floor {moving[name][0]:.4f}   computed {moving[name][1]:.4f}")

with styled():
    fig = figure(8.0, 3.2)
    axes = fig.subplots()
    for name, look in looks(("plain, lr 0.01", "momentum 0.9, lr 0.001")).items():
        axes.plot(np.arange(1000, 1200), moving[name][2].path[1000:1200, 1], color=look.color, label=name)
    axes.set(xlabel="step", title="y, near the minimum")
    axes.legend(fontsize=9)
fig

# %% [markdown]
# About ten times as *high*. Momentum sums and does not average: its steps are $1/(1-\beta)$ times as long, for signal
# and noise alike. What counts is $\mathrm{lr}/(1-\beta)$: with a tenth of the rate the floor is that of plain SGD,
# within some tens of percent, and so is the speed along $x$. Nesterov's look ahead is no remedy either.
#
# Look at the paths, though: with momentum the path is *smooth*. That looks like less noise. It goes just as far, with
# its changes spread out over ten steps. Momentum helps against a ravine, and not against noise.
#
# ## What helps: averages and falling rates
#
# A rate that is large is fast and ends high, a small one is slow and ends low. Two ways to have both: let the rate
# fall; or keep it, and average the *points* it visits (Polyak and Ruppert).
#
# **Guess.** Four runs of 2000 steps. Order them by the loss at their end: constant 0.04; constant 0.01; 0.04 falling
# along a cosine to 0; constant 0.04, but with the mean of all points from step 100 on as the result.

# %%
my_order = ["0.01", "cosine", "mean", "0.04"]

kept = []


def with_average(params):
    optimizer = tg.optim.SGD(params, lr=0.04)
    kept.append(tg.optim.EMA(optimizer, decay=0.99, warmup=False))
    return optimizer


large = tg.lab.record(with_average, ravine, 2000)
asgd = tg.lab.record("ASGD", ravine, 2000, lr=0.04, lambd=0, t0=100)
results = {
    "constant 0.04": above(large.path[1:]),
    "constant 0.01": above(tg.lab.record("SGD", ravine, 2000, lr=0.01).path[1:]),
    "0.04 falling by a cosine": above(tg.lab.record("SGD", ravine, 2000, lr=0.04 * schedule.cosine(2000)).path[1:]),
    "mean of the points of 0.04": above(asgd.state["w"]["ax"]),
}
with styled():
    fig = figure(7.5, 4.4)
    axes = fig.subplots()
    for name, look in looks(results).items():
        smooth = np.convolve(results[name], np.ones(50) / 50, "valid")      # the mean of 50 steps, to see something
        axes.plot(np.arange(50, 2001), smooth, color=look.color, linestyle=look.linestyle, label=name)
    axes.set(yscale="log", xlabel="step", title="loss above the minimum (mean of 50 steps)")
    axes.legend(fontsize=9)
for name, curve in results.items():
    print(f"{name:28} mean over the last 200 steps {curve[-200:].mean():.5f}")
fig

# %% [markdown]
# The mean of the points is the best, hundreds of times below the very run that it is made of, at no gradient more.
# `tg.optim.ASGD` keeps it in its state as `ax`. The falling rate comes second, and has to know when the end is.
#
# The mean must not begin too early: the way from the start is in it for good. An exponential mean forgets:
# `tg.optim.EMA` follows any optimizer, by $\text{average} \leftarrow d \cdot \text{average} + (1 - d) \cdot w$ after
# each step.

# %%
average = large.path[0].copy()
for w in large.path[1:]:
    average = 0.99 * average + 0.01 * w
library, = kept[0].averages.values()
print("by hand", average, "  tg.optim.EMA", library, f"  loss {above(average[:, None].T)[0]:.5f}")

# %% [markdown]
# **Guess.** How does the error of the long mean depend on the learning rate of the run?

# %%
ends = {}
for lr in (0.08, 0.04, 0.02):
    ends[lr] = [above(tg.lab.record("ASGD", ravine, 600, lr=lr, lambd=0, t0=300, seed=seed).state["w"]["ax"])[-1]
                for seed in range(3)]
    print(f"lr {lr}   " + "   ".join(f"{end:.6f}" for end in ends[lr]))

# %% [markdown]
# Hardly at all: each column is one sequence of batches, and within it the rates end near the same loss, while the
# points themselves are at floors that differ many times. The wandering around cancels, and what is left is the mean of
# the minima of all batches seen. No method can know more than that: it is the error of statistics, which falls with the
# number of samples. The rate only decides how fast you forget the start.
#
# ## How large a batch?
#
# Back to the moons. For batches from 2 to 512: how many steps until the loss over all data is below 0.15? Each size
# gets its best rate, of a grid that ends where descent on the whole data would be unstable: at $2/h$ for the largest
# curvature.
#
# **Guess.** From which size on does a larger batch save no steps any more?

# %%
my_guess = 128

goal, model = 0.15, make_model()
optimizer = tg.optim.SGD(model.parameters(), lr=0.8)
for step in range(160):                             # on all data, to the goal
    optimizer.zero_grad()
    tg.cross_entropy(model(x), y).backward()
    optimizer.step()
problem = tg.autograd.Problem.of_model(model, tg.cross_entropy, x, y)
edge = 2 / tg.autograd.power_iteration(problem, problem.parameters)[0].item()
single = np.stack([gradient(model, np.array([row])) for row in range(1024)])
variance, length2 = single.var(axis=0).sum(), (single.mean(axis=0) ** 2).sum()
floor_is_goal = edge * variance / (4 * goal)
print(f"at the goal, loss {problem(*problem.parameters).item():.3f}: stable up to lr {edge:.2f}; variance of the "
      f"gradients of single samples {variance:.2f}, squared length of the whole gradient {length2:.4f}")
print(f"at the largest stable rate the floor, lr * variance / (4 B), is the goal itself for B = {floor_is_goal:.1f}")


def steps_until(size, lr, most):
    model, random = make_model(), tg.Generator(1).numpy
    optimizer = tg.optim.SGD(model.parameters(), lr=lr)
    for step in range(1, most + 1):
        rows = random.integers(0, 1024, size)
        optimizer.zero_grad()
        tg.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        if step % 5 == 0 and tg.cross_entropy(model(x), y).item() < goal:
            return step
    return most + 1


batches, needed, chosen = [2, 4, 8, 16, 32, 64, 128, 256, 512], [], []
for size in batches:
    best, lr_best = 2000, None
    for lr in edge * 0.5 ** np.arange(5):
        found = steps_until(size, lr, best)
        if found < best:
            best, lr_best = found, lr
    needed.append(best)
    chosen.append(lr_best)

# %%
with styled():
    fig = figure(10.0, 3.8)
    axes = fig.subplots(1, 3)
    axes[0].plot(batches, needed, "o-")
    axes[0].axhline(needed[-1], color="#999999", linewidth=1, label="what all data need")
    axes[0].plot(batches, needed[0] * batches[0] / np.array(batches), color="#D55E00", linestyle="--", linewidth=1,
                 label="twice the batch, half the steps")
    axes[0].set(title="steps to the goal", ylim=(60, 2000))
    axes[1].plot(batches, np.array(needed) * batches, "o-")
    axes[1].set(title="samples to the goal")
    axes[2].plot(batches, chosen, "o-")
    axes[2].set(title="best lr")
    for panel in axes:
        panel.set(xscale="log", yscale="log", xlabel="batch size")
        panel.axvline(floor_is_goal, color="#333333", linestyle=":", linewidth=1)
    axes[1].set_yticks([2e3, 5e3, 1e4, 2e4, 5e4], ["2000", "5000", "10 000", "20 000", "50 000"])
    axes[2].set_yticks(edge * 0.5 ** np.arange(3), [f"{lr:.2f}" for lr in edge * 0.5 ** np.arange(3)])
    for panel in axes[1:]:
        panel.minorticks_off()
    axes[0].legend(fontsize=8)
fig

# %% [markdown]
# Two regimes with a long bend between them. At the left, twice the batch halves the steps, and the samples stay about
# the same: a larger batch is free if you can compute its samples at once. At the right the steps no longer fall, and
# each doubling doubles the price. The bend is the **critical batch size**.
#
# You can say where it is from the floor. At the dotted line, the floor at the largest stable rate is the goal itself.
# Left of it that rate cannot get there: the rate must be smaller, in proportion to the batch, and the steps are more,
# as the third panel shows. Some way to the right of it the largest rate is fine, and a larger batch has nothing left to
# give.
#
# A well-known estimate compares the noise with the gradient in place of the floor: variance over squared length, the
# *simple noise scale* (McCandlish et al., 2018). It supposes that all directions are equally steep. Here it would say
# more than a thousand, with the two numbers printed: the gradient lies along flat directions and the noise across. So
# measure the bend, as here, before you trust a formula for it.
#
# **Which batch is best, then?** That depends on what you pay for:

# %%
def winners(budget, price):
    return [size for size, steps in zip(batches, needed) if price(size, steps) <= budget]


print("at the goal within 300 steps:   ", winners(300, lambda size, steps: steps))
print("at the goal within 3000 samples:", winners(3000, lambda size, steps: steps * size))

# %% [markdown]
# Counted in steps, the large batches win and can hardly lose; counted in samples, the small ones. A comparison that
# does not say which of the two was equal says nothing. Be careful with curves "against steps" for different batches.
#
# ## A large batch in small parts
#
# When a batch does not fit into memory, add up the gradients of its parts and step once: **accumulation**.
# `tg.optim.Accumulate` wraps any optimizer.

# %%
def train(size, parts, steps=20):
    model = make_model()
    optimizer = tg.optim.Accumulate(tg.optim.SGD(model.parameters(), lr=0.4, momentum=0.9), k=parts)
    for k in range(steps):
        for part in np.split(np.arange(k * size, (k + 1) * size) % 1024, parts):
            tg.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()                        # the real step comes with the last part
    return np.concatenate([p.numpy().reshape(-1) for p in model.parameters()])


print("largest difference after 20 steps, 64 at once or 8 times 8:", abs(train(64, 1) - train(64, 8)).max())

# %% [markdown]
# Equal but for rounding, with momentum too: the optimizer cannot tell them apart. (A layer that looks at the whole
# batch, BatchNorm, can.) Exercise 1 is what goes wrong when you write it yourself.
#
# ## With or without replacement?
#
# Training goes through shuffled data, an epoch at a time: every sample exactly once. The theory above drew each batch
# anew. In one epoch of 200 drawn with replacement, how many of the samples are never seen?
#
# **Guess.** And does shuffling lower the floor?

# %%
my_guess = "no, noise is noise"

centres = tg.tensor(tg.Generator(0).numpy.standard_normal((200, 2)))
middle_of_all = centres.numpy().mean(axis=0)
loader = tg.data.DataLoader(tg.data.TensorDataset(centres), batch_size=8, shuffle=True, generator=0)
random = tg.Generator(1).numpy


def drawn():
    for _ in range(25):
        yield centres[random.integers(0, 200, 8)],


def after_epochs(batches_of_epoch, lr, epochs=60):
    w, found = tg.tensor(np.array([3.0, -2.0]), requires_grad=True), []
    optimizer = tg.optim.SGD([w], lr=lr)
    for _ in range(epochs):
        for batch, in batches_of_epoch():
            optimizer.zero_grad()
            (((w - batch) ** 2).sum() / (2 * len(batch))).backward()
            optimizer.step()
        found.append(((w.numpy() - middle_of_all) ** 2).sum() / 2)
    return np.mean(found[20:])


missing = np.mean([200 - len(set(random.integers(0, 200, 200).tolist())) for _ in range(100)])
print(f"never seen in an epoch with replacement: {missing:.0f} of 200, that is {missing / 200:.0%}")
shuffled = {}
for lr in (0.1, 0.05, 0.025):
    shuffled[lr] = after_epochs(drawn, lr), after_epochs(lambda: loader, lr)
    print(f"lr {lr:<5}   with replacement {shuffled[lr][0]:.6f}   shuffled {shuffled[lr][1]:.6f}")

# %% [markdown]
# A share of $1/e$, 37 %, is missed. And shuffling does lower the floor, the more the smaller the rate: with replacement
# half the rate halves it, shuffled it falls many times. What the first batches of an epoch pull too far to the left,
# the others pull back: over an epoch the noise sums up to *zero* exactly. It is a reason to look at the loss at the end
# of an epoch, and to shuffle rather than to draw.
#
# ## Exercises
#
# Change a cell and run it again: its last line is the checker. Solutions are at the end.
#
# **1. Accumulate by hand.** Return the gradient of the mean loss over all rows, from parts that are computed one after
# the other. The parts need not be equally long. What stands here runs and is wrong.

# %%
def my_gradient(model, parts):
    total = 0
    for rows in parts:
        total = total + gradient(model, rows)
    return total


def check_gradient(function):
    model = make_model()
    for parts in ([np.arange(8), np.arange(8, 16), np.arange(16, 24)], [np.arange(8), np.arange(8, 10)]):
        whole, got = gradient(model, np.concatenate(parts)), function(model, parts)
        factor = float(got @ whole / (whole @ whole))
        if not np.allclose(got, factor * whole, rtol=1e-3, atol=1e-4):
            return f"parts of {[len(rows) for rows in parts]}: another direction; does each *row* count the same?"
        if abs(factor - 1) > 1e-3:
            return f"parts of {[len(rows) for rows in parts]}: the right direction, but {factor:.3g} times as long"
    return "solved"


check_gradient(my_gradient)

# %% [markdown]
# **2. A floor to order.** What is the largest constant rate (three digits will do) whose floor on `noisy_ravine` is
# 0.05? Compute it: `noise_of(runs["lr 0.01"])` is the variance.

# %%
my_rate = 0.02


def check_rate(lr):
    computed = floor_of(noise_of(runs["lr 0.01"]), lr=lr)
    return "solved" if abs(computed - 0.05) < 2e-4 else f"the floor of lr {lr} is {computed:.4f}"


check_rate(my_rate)

# %% [markdown]
# **3. Momentum as a mean.** To have momentum without longer steps, take a mean instead of a sum: that is what
# `dampening` is for. Write SGD's rule with `dampening`; a rule may take `t`, the number of the step from 1, and use
# `a if t > 1 else b`.

# %%
def my_mean(p, g, b, t, lr, momentum, dampening):
    b = momentum * b + (1 - dampening) * g
    p = p - lr * b
    return p, b


tg.lab.grade(my_mean, like="SGD", momentum=0.9, dampening=0.9)

# %% [markdown]
# ## Solutions
#
# 1\. Each part counts by its rows: dividing by the number of parts is right only for equal ones. 2\. The formula of the
# floor, solved by halving an interval. 3\. The buffer starts with the whole gradient: a mean of one gradient is that
# gradient. With a tenth of it the first steps would be too short (Adam has another cure for the same, notebook 05).

# %%
def gradient_solved(model, parts):
    rows_in_all = sum(len(rows) for rows in parts)
    return sum(len(rows) / rows_in_all * gradient(model, rows) for rows in parts)


def mean_solved(p, g, b, t, lr, momentum, dampening):
    b = momentum * b + (1 - dampening if t > 1 else 1) * g
    p = p - lr * b
    return p, b


low, high = 0.001, 0.02
for _ in range(30):
    half = (low + high) / 2
    low, high = (half, high) if floor_of(noise_of(runs["lr 0.01"]), lr=half) < 0.05 else (low, half)

assert check_gradient(gradient_solved) == check_rate(low) == "solved"
assert tg.lab.grade(mean_solved, like="SGD", momentum=0.9, dampening=0.9).passed
low

# %% [markdown]
# ## What you know now
#
# - A batch's gradient is the whole one plus noise of a spread of $1/\sqrt B$.
# - At a constant rate the loss ends at a floor, about proportional to $\mathrm{lr}/B$, and to $1/(1-\beta)$ with
#   momentum, which smooths the path and not the noise.
# - A falling rate goes below the floor. The mean of the points does too, and its error does not depend on the rate.
# - Below the critical batch size twice the batch is half the steps; above it is twice the price.
# - Accumulating parts is the large batch. Shuffling has less noise than drawing.

# %%
slope = np.polyfit(np.log(sizes), np.log(spread["drawn with replacement"]), 1)[0]
assert -0.55 < slope < -0.45 and spread["without replacement"][-1] < 1e-5
assert spread["drawn with replacement"][0] > np.linalg.norm(whole) > 3 * middle[1]

assert all(0.7 < measured / computed < 1.4 for measured, computed in floors.values())
assert 6 < floors[0.04][0] / floors[0.005][0] < 25              # eight times the rate
assert moving["momentum 0.9, lr 0.01"][0] > 5 * moving["plain, lr 0.01"][0]
assert all(0.6 < moving[name][0] / moving["plain, lr 0.01"][0] < 1.5 for name in list(moving)[2:])

last = {name: curve[-200:].mean() for name, curve in results.items()}
assert sorted(last, key=last.get) == list(results)[::-1]
assert np.allclose(average, library, atol=1e-6)
assert all(max(ends[lr][k] for lr in ends) < 3 * min(ends[lr][k] for lr in ends) + 2e-4 for k in range(3))

assert last["mean of the points of 0.04"] < last["constant 0.04"] / 200
assert needed[0] > 3 * needed[3] and needed[-2] < 1.3 * needed[-1] < needed[0] / 3
assert chosen[0] < chosen[-1] == edge and floor_is_goal < 16 < variance / length2
assert needed[-1] * batches[-1] > 10 * needed[0] * batches[0]
assert abs(train(64, 1) - train(64, 8)).max() < 1e-4
assert shuffled[0.025][1] < shuffled[0.025][0] / 10 and abs(missing / 200 - np.exp(-1)) < 0.03

# %% [markdown]
# Next: `05_from_adagrad_to_adam`, where each weight gets a rate of its own.
