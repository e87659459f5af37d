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
# # Schedules and warm-up
#
# You have so many steps and no more. For each of them you may choose a learning rate. Which?
#
# Every large model of the last ten years was trained with a rate that rises first and falls later. Here you find out
# why it should fall, whether the shape of the fall matters, why it should rise before, and what to do when you do not
# want a schedule at all. Each part asks for a guess; write it down before you run the cell below it.

# %%
import warnings

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled
from tinygrad_opt.optim.lr_scheduler import CosineAnnealingLR
from tinygrad_opt.optim.schedule import cosine, exponential, hold, linear, one_cycle, restarts, step, warmup, wsd

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## A rate that stays: the noise floor
#
# The surface `noisy_ravine` is a bowl, 20 times as steep along $y$ as along $x$. Each step sees a batch of 8 of its
# 200 samples, so the gradient is right on average and wrong every time, also at the minimum, where it should be 0.
#
# **Guess.** SGD runs on it for a long time with a rate of 0.04, with 0.02, with 0.01. The loss stops falling at some
# height above the minimum. When you halve the rate, is that height the same, a half, or a quarter?

# %%
my_guess = "the same"                               # or "a half", or "a quarter"

ravine = tg.lab.surface("noisy_ravine")
runs = {lr: tg.lab.record("SGD", ravine, 1200, lr=lr) for lr in (0.04, 0.02, 0.01)}
heights = {lr: ravine(run.path.T) - ravine.lowest for lr, run in runs.items()}     # on all samples, not on a batch
for lr, height in heights.items():
    print(f"lr {lr}: height {height[0]:.1f} at the start, {height[500:].mean():.3f} on average from step 500 on")

# %% [markdown]
# About a half, for small rates. The run does not arrive, it hovers. A noisy step throws it off by something
# proportional to the rate, and the slope pulls it back; the two balance.
#
# The balance can be computed. Along a direction of curvature $h$, with gradients whose noise has the variance
# $\sigma^2$, a step is $w \leftarrow w - \mathrm{lr}\,(h w + \text{noise})$. The variance of $w$ stays the same from
# step to step when
#
# $$\operatorname{var} = (1 - \mathrm{lr}\,h)^2 \operatorname{var} + \mathrm{lr}^2 \sigma^2
#   \quad\Longrightarrow\quad
#   \tfrac{h}{2}\operatorname{var} = \frac{\mathrm{lr}\;\sigma^2}{2\,(2 - \mathrm{lr}\,h)}$$
#
# and $\frac h2 \operatorname{var}$ is the height above the minimum. The noise can be measured: stand on the minimum,
# and draw gradients.

# %%
random, slopes = np.random.default_rng(1), []
for t in range(2000):
    w = tg.tensor([0.0, 0.0], dtype="float64", requires_grad=True)
    ravine.sample(t, random)(w).backward()
    slopes.append(w.grad.numpy())
noise, curvatures = np.var(slopes, axis=0), np.array([1.0, 20.0])


def floor(lr):
    return (lr * noise / (2 * (2 - lr * curvatures))).sum()


for lr, height in heights.items():
    print(f"lr {lr}: predicted {floor(lr):.3f}, measured {height[500:].mean():.3f}")

# %% [markdown]
# For small rates the floor is proportional to the rate (at 0.04 it is more, since the step is close to the edge of
# stability, $2/h = 0.1$, and overshoots). So a small rate ends lower. But it also takes longer to get there. Must you
# choose?
#
# **Guess.** Run at 0.04 for 250 steps, then at 0.004. What does the loss do at step 250: go on as before, fall slowly,
# or fall within a few steps?

# %%
def mean_height(lr, steps=500, seeds=2):
    runs = [tg.lab.record("SGD", ravine, steps, lr=lr, seed=seed) for seed in range(seeds)]
    height = np.mean([ravine(run.path.T) - ravine.lowest for run in runs], axis=0)
    return np.convolve(height, np.ones(25) / 25, mode="valid")


curves = {f"lr {lr}": mean_height(lr) for lr in (0.04, 0.01)}
curves["0.04, from step\n250 on 0.004"] = mean_height(0.04 * step(250, 0.1))
with styled():
    fig = figure(8.4, 3.8)
    axes = fig.add_subplot()
    for (name, curve), look in zip(curves.items(), looks(curves).values()):
        axes.plot(curve, color=look.color, linestyle=look.linestyle, label=name)
    for lr in (0.04, 0.01, 0.004):
        axes.axhline(floor(lr), color="#999999", linewidth=0.9, linestyle=":")
        axes.text(482, floor(lr), f"floor of {lr}", va="bottom", fontsize=9)
    axes.set(yscale="log", xlabel="step", title="height above the minimum (2 seeds, means of 25 steps)", xlim=(0, 580))
    fig.legend(loc="outside right upper")
fig

# %% [markdown]
# It falls within a few dozen steps, to the floor of the new rate. The sudden drops in the loss curves of papers, at
# the epochs where the rate is divided by ten, are this: nothing was learned suddenly, the noise went away.
#
# So the rate has two jobs. While you are far, *distance*: the sum of all rates is how far you can get. At the end,
# *noise*: the last rates decide how high you hover. A schedule does them one after the other.
#
# ## Schedules are functions, and they compose
#
# A schedule here is a pure function of the step $t = 0, 1, 2, \dots$. Numbers scale it, `>>` puts one after another:

# %%
lr = 3e-4 * (warmup(100) >> cosine(900))
print(lr, "   ends at step", lr.length)
print(lr.sparkline())
print({t: lr(t) for t in (0, 50, 100, 550, 1000, 5000)})

# %% [markdown]
# Read it from left to right: rise from 0 to 1 in 100 steps, then fall from 1 to 0 along a cosine in 900, all of that
# times $3 \cdot 10^{-4}$. The factors have their peak at 1, so the peak rate stands in one place. An optimizer takes
# the schedule in place of a number, and asks it before each step; so there is nothing to forget in the training loop.

# %%
w = tg.tensor([1.0], requires_grad=True)
optimizer = tg.optim.AdamW([w], lr=0.1 * (warmup(2) >> cosine(4)))
used = []
for _ in range(7):
    used.append(round(optimizer.lr, 4))
    w.grad = tg.tensor([1.0])
    optimizer.step()
used

# %% [markdown]
# What has no end can have nothing after it, and says so:

# %%
try:
    hold() >> cosine(900)
except ValueError as error:
    print(error)

# %% [markdown]
# These are the shapes that people use, over the same 300 steps. WSD is warm-up, stable, decay: nearly constant, with a
# short fall at the end.

# %%
N = 300
shapes = {"constant": hold(), "step": step(N // 3, 0.1), "exponential": exponential(0.01 ** (1 / N)),
          "linear": linear(N), "cosine": cosine(N), "1-cycle": one_cycle(N), "WSD": wsd(10, 210, 80)}
tg.lab.draw_schedule(shapes, N + 1)

# %% [markdown]
# ## Which shape is best?
#
# A comparison is fair when each shape gets the same number of gradients, and *its own best peak*. `tg.lab.race` tries
# four peaks for each, over two seeds.
#
# **Guess.** How much is there between the best and the worst of the six that fall? And between those and the constant?

# %%
def sgd_with(shape):
    return lambda params, lr: tg.optim.SGD(params, lr=lr * shape)


race = tg.lab.race({name: sgd_with(shape) for name, shape in shapes.items()}, ravine, steps=N, seeds=2,
                   rates=[0.01, 0.02, 0.04, 0.08])
race

# %% [markdown]
# Whatever falls ends several times lower than the constant. Among those that fall there is a factor of about two, and
# their order changes with the seeds (try `seeds=[2, 3]`): on a bowl all that counts is how near to 0 the last thirty
# rates were. Now a network, on handwritten digits in batches of 8, which is noisy. The loop is that of notebook 02;
# what counts is the loss over all training images at the end, the mean of two seeds.

# %%
train, test = tg.data.digits()
images, labels = train.tensors


def batches(size, seed, steps):
    loader = tg.data.DataLoader(train, batch_size=size, shuffle=True, generator=seed)
    while True:
        for batch in loader:
            if steps == 0:
                return
            yield batch
            steps -= 1


def loss_on_all(model):
    with tg.no_grad():
        return tg.cross_entropy(model(images), labels).item()


def fit(model, optimizer, data):
    for x, y in data:
        optimizer.zero_grad()
        tg.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def network(seed):
    tg.manual_seed(seed)
    return tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))


def end(shape, peak, seed):
    model = network(seed)
    optimizer = tg.optim.SGD(model.parameters(), lr=peak * shape, momentum=0.9)
    return loss_on_all(fit(model, optimizer, batches(8, seed, N)))


peaks = [0.01, 0.02, 0.05, 0.1, 0.2]
reached = {name: [np.mean([end(shape, peak, seed) for seed in range(2)]) for peak in peaks]
           for name, shape in shapes.items()}

with styled():
    fig = figure(7.6, 4.0)
    axes = fig.add_subplot()
    for (name, losses), look in zip(reached.items(), looks(reached).values()):
        axes.plot(peaks, losses, color=look.color, linestyle=look.linestyle, marker=look.marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel="peak of the learning rate", title="loss after 300 steps")
    axes.set_xticks(peaks, labels=[f"{peak:g}" for peak in peaks])
    axes.minorticks_off()
    fig.legend(loc="outside right upper")
fig

# %% [markdown]
# Read the left edge first: at a small peak the *constant* rate is the best or nearly so, and every fall is a waste.
# The falling shapes win further right, since they stand larger peaks. Someone with a cautious constant rate of 0.02,
# who puts a cosine on it and tunes nothing, will report that a cosine hurts.
#
# Now compare where each curve has its lowest point. A shape spends a share of the peak, its mean; multiply the two:

# %%
print("shape         mean of the shape   best peak   their product   loss")
for name, shape in shapes.items():
    share, best = np.mean([shape(t) for t in range(N)]), int(np.argmin(reached[name]))
    print(f"{name:12}  {share:17.2f}   {peaks[best]:9g}   {share * peaks[best]:13.3f}   {reached[name][best]:.3f}")

# %% [markdown]
# The best peaks differ by a factor of four, the products by a third. To a good part the shapes are the same schedule,
# of the same total length; the peak makes up for the area. What is left is how the run ends. So:
#
# - the peak matters more than the shape, and each shape has its own;
# - a fall to (nearly) 0 matters more than its curve; linear and cosine are hard to beat;
# - a step, or an exponential, leaves little to spend in the middle; this step is even behind the constant;
# - WSD is about as good, and has a use of its own: its stable part does not know where the end is. You may train on
#   from there later, and decay when you decide to stop.
#
# ## Why the rate should rise first, 1: Adam does not know the noise yet
#
# Adam divides the mean gradient $\hat m$ by the root of the mean square $\hat v$. At the first step both are means of
# a single gradient.
#
# **Guess.** 2000 weights, and all their gradients are noise of size 0.01: there is nothing to learn. How far does Adam
# move a weight in its first step, counted in learning rates? And in step 100?

# %%
my_guess = 0.01, 0.01


def lengths(make, steps=100, size=0.01):
    random, w = np.random.default_rng(0), tg.zeros(2000, requires_grad=True)
    optimizer, moved = make([w]), []
    for _ in range(steps):
        before = w.numpy().copy()
        w.grad = tg.tensor(size * random.standard_normal(2000), dtype="float32")
        optimizer.step()
        moved.append(np.abs(w.numpy() - before).mean())
    return np.array(moved) / 1e-3


moves = {"Adam": lengths(lambda p: tg.optim.Adam(p, lr=1e-3)),
         "Adam, 50 steps of warm-up": lengths(lambda p: tg.optim.Adam(p, lr=1e-3 * (warmup(50) >> hold()))),
         "RAdam": lengths(lambda p: tg.optim.RAdam(p, lr=1e-3))}
with styled():
    fig = figure(7.6, 3.6)
    axes = fig.add_subplot()
    for (name, length), look in zip(moves.items(), looks(moves).values()):
        axes.plot(np.arange(1, 101), length, color=look.color, linestyle=look.linestyle, label=name)
    axes.axhline(np.sqrt(0.1 / 1.9 * 2 / np.pi), color="#999999", linewidth=0.9, linestyle=":")
    axes.set(xlabel="step", title="how far a weight moves on pure noise, in learning rates", ylim=(0, 1.05))
    axes.legend()
fig

# %% [markdown]
# A whole learning rate, every weight of them: $\hat m / \sqrt{\hat v} = g / \sqrt{g^2} = \pm 1$. With a single
# gradient signal and noise look alike. Only after a few tens of steps does $m$ average the noise away; then a step is
# $\sqrt{\frac{1-\beta_1}{1+\beta_1}}\sqrt{\frac 2\pi} \approx 0.18$ of a rate, the dotted line. Warm-up makes exactly
# the first steps small. RAdam does it by itself; here is its rule:

# %%
print(tg.optim.RAdam([tg.zeros(2, requires_grad=True)]).formula("text"))

# %% [markdown]
# $\rho$ counts how many squares the mean of $t$ of them is worth. While that is 5 or less, nothing is divided: the
# step is lr times the mean gradient, tiny here. Then $r$ grows from 0 to 1, a warm-up whose length follows from
# $\beta_2$.
#
# Does so long a first step do harm? Take a network that is trained already, and go on with a *new* Adam, as happens
# to whoever saves the weights and forgets the optimizer's state.
#
# **Guess.** The loss is 0.03. What is its highest value in the first 20 steps?

# %%
trained = network(0)
fit(trained, tg.optim.Adam(trained.parameters(), lr=0.03 * cosine(500)), batches(32, 0, 500))
weights = {name: p.numpy().copy() for name, p in trained.state_dict().items()}
kept = loss_on_all(trained)


def go_on(make):
    model = network(0)
    model.load_state_dict({name: tg.tensor(value) for name, value in weights.items()})
    optimizer, losses = make(model.parameters()), [loss_on_all(model)]
    for batch in batches(32, 1, 80):
        fit(model, optimizer, [batch])
        losses.append(loss_on_all(model))
    return np.array(losses)


again = {"Adam": go_on(lambda p: tg.optim.Adam(p, lr=0.03)),
         "Adam, 80 steps of warm-up": go_on(lambda p: tg.optim.Adam(p, lr=0.03 * warmup(80))),
         "RAdam": go_on(lambda p: tg.optim.RAdam(p, lr=0.03))}
for name, losses in again.items():
    print(f"{name:26} {losses[0]:.3f} at the start, at most {losses[:21].max():.3f} in the first 20 steps")
with styled():
    fig = figure(7.6, 3.4)
    axes = fig.add_subplot()
    for (name, losses), look in zip(again.items(), looks(again).values()):
        axes.plot(losses, color=look.color, linestyle=look.linestyle, label=name)
    axes.set(yscale="log", xlabel="step", title="loss of a trained network under a new optimizer")
    axes.legend(loc="upper right", fontsize=9)
fig

# %% [markdown]
# Several times higher: the first step throws every weight by 0.03, whether its gradient is large or almost nothing,
# and it takes dozens of steps to come back. With a warm-up the loss rises slowly, and only to what the noise of so
# large a rate keeps anyway; RAdam has hardly begun to move. When you go on training, load the optimizer's state too,
# or warm up.
#
# ## Why the rate should rise first, 2: the start is the steepest place
#
# The second reason has nothing to do with Adam. Gradient descent is stable only below $2/h$, with $h$ the largest
# curvature (notebook 03). A deep network with large initial weights starts where curvature is enormous.
#
# Here are six layers with weights twice as large as they should be, under plain gradient descent on 128 images at a
# rate of 0.15. The monitor measures $h$, the largest eigenvalue of the Hessian.

# %%
x, y = images[:128], labels[:128]


def deep(seed):
    tg.manual_seed(seed)
    layers = [tg.nn.Linear(64, 32), tg.nn.ReLU()]
    for _ in range(4):
        layers += [tg.nn.Linear(32, 32), tg.nn.ReLU()]
    model = tg.nn.Sequential(*layers, tg.nn.Linear(32, 10))
    for p in model.parameters():
        if p.ndim == 2:
            tg.nn.init.kaiming_normal_(p)
            p.data = 2 * p.numpy()
    return model


def descend(shape, seed, every=50, steps=200):
    model, losses = deep(seed), []
    optimizer = tg.optim.SGD(model.named_parameters(), lr=0.15 * shape)
    with tg.lab.Monitor(model, optimizer, every=every, sharpness=(tg.cross_entropy, x, y)) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = tg.cross_entropy(model(x), y)
            losses.append(loss.item())
            if not losses[-1] < 1e9:                # it has diverged; what follows would not be finite
                break
            monitor.loss(loss).backward()
            optimizer.step()
    return np.array(losses), monitor.record


cold_ends, warm_ends = [], []
for seed in range(4):
    (cold, _), (warm, _) = (descend(shape, seed) for shape in (hold(), warmup(100) >> hold()))
    cold_ends.append(cold[-1])
    warm_ends.append(warm[-1])
    print(f"seed {seed}   0.15 from the start: loss {cold[0]:.1f}, {cold[1]:.3g}, ..., {cold[-1]:.3g} at step "
          f"{len(cold) - 1:3}    with 100 steps of warm-up: {warm[-1]:.3f} at the end")

# %% [markdown]
# The same network, the same final rate. Without the warm-up it explodes within ten steps, or is thrown to a place
# where its units are dead: 2.30 is $\log 10$, the loss of guessing among ten digits. With it the rate ends just as
# high, and the loss falls. How can a rate be fatal at step 1 and fine at step 100? Look at the curvature on the way:

# %%
losses, record = descend(warmup(100) >> hold(), 0, every=4)
record.draw("loss", "sharpness")

# %%
first, last = record.sharpness[0], np.median(record.sharpness[-8:])
print(f"at the start: largest curvature {first:.0f}, so rates below {2 / first:.5f} are stable")
print(f"at the end:   largest curvature {last:.1f}, so rates below {2 / last:.3f} are; used is {record.lr[-1]}")

# %% [markdown]
# At the start the curvature allows only a rate more than a hundred times smaller than the one we want. The dashed
# line, $2/\mathrm{lr}$, is the curvature that the present rate allows. For the first 40 steps the run lies two to
# four times above it: it is thrown about, the loss jumps, and where it lands it is flatter. So the curvature follows
# the line down. Then the images are learned, and the curvature of the cross-entropy vanishes with the loss. The
# rising rate *makes* the landscape that it needs, if you give it the time.
#
# This is also why a warm-up belongs to **large batches**. If a batch is $k$ times as large, its gradient is less noisy
# and one may take $k$ times the rate (the linear scaling rule, Goyal et al. 2017, who trained on batches of 8192). The
# noise allows that; the curvature at the start does not, so they rose to it over five epochs. More in notebook 10.
#
# And how long should it be? Its job is done when the two means have seen enough gradients, some tens of them up to a
# few hundred, and when the curvature has come down. Networks with normalisation layers and good initial values need
# little. A warm-up costs about half of its steps.
#
# ## How high? The range test
#
# The peak matters most, so measure it: one short run in which the rate grows by equal ratios from step to step.
# Afterwards the model is what it was before, to the bit.

# %%
model = network(0)
found = tg.lab.lr_find(model, list(batches(32, 0, 100)), tg.cross_entropy, "SGD", smallest=1e-4, largest=10,
                       momentum=0.9)
found.draw()

# %% [markdown]
# At the left the rate is too small to matter, at the right it destroys what was there. You want a rate where the curve
# falls steeply, well before its lowest point: about where the marks are. Compare with what five whole runs for each
# shape found above, for batches of 8: between 0.05 and 0.2. The test has cost a hundred steps, less than a single run.
#
# It looks at a *short* run from the *start*: it does not know that the rate will fall, nor what curvature it will
# meet. Use it to find the power of ten.
#
# ## Two mistakes that everybody makes once
#
# PyTorch's way is a scheduler object that you step beside the optimizer. Then there are two counters that may
# disagree.
#
# **Guess.** A cosine over 10 steps, and `scheduler.step()` is called twice in the loop, once by you and once by a
# helper. What is the rate at the end of the 10 steps?

# %%
my_guess = 0.0


def rates_used(times, before=False):
    w = tg.tensor([1.0], requires_grad=True)
    optimizer, used = tg.optim.SGD([w], lr=0.1), []
    scheduler = CosineAnnealingLR(optimizer, T_max=10)
    for _ in range(10):
        w.grad = tg.tensor([0.0])
        for _ in range(times * before):
            scheduler.step()
        used.append(round(optimizer.lr, 3))
        optimizer.step()
        for _ in range(times * (not before)):
            scheduler.step()
    return used


print("right       ", rates_used(1))
print("twice       ", rates_used(2))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("too early   ", rates_used(1, before=True))
print(caught[0].message)

# %% [markdown]
# Stepped twice it reaches 0 halfway, and then *climbs back*: a cosine is a wave. The run ends with nearly the largest
# rate, on the highest noise floor, and no error was raised; only a plot of the rates that were *used* would have shown
# it. Called before the optimizer's step, the first value is skipped, and that is said by a warning.
#
# The sister of the first mistake is a count of epochs where steps are meant. The exercises have it.
#
# The failure gallery has the page with its consequences:

# %%
tg.lab.failure("schedule").draw()

# %% [markdown]
# ## No schedule at all
#
# A low rate at the end removes noise. There is another way to remove noise: *average*. Leave the rate high and
# constant, and take the mean of the weights along the way. `tg.optim.EMA` keeps an exponential average beside any
# optimizer. A schedule-free optimizer has the average built in: it takes the gradient between the average and the raw
# point.
#
# **Guess.** At a constant rate of 0.05 the network above ended at a loss of about 0.2; the best cosine came to about
# 0.11. Where does the *average* of the constant run end?

# %%
def averaged_end(seed):
    model = network(seed)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    ema = tg.optim.EMA(optimizer, decay=0.97)
    fit(model, optimizer, batches(8, seed, N))
    raw = loss_on_all(model)
    with ema.applied():
        return raw, loss_on_all(model)


def schedule_free_end(seed):
    model = network(seed)
    optimizer = tg.optim.ScheduleFreeSGD(model.parameters(), lr=1.0)
    optimizer.train()                               # the parameters hold the point where gradients are taken
    fit(model, optimizer, batches(8, seed, N))
    optimizer.eval()                                # and now the average
    return loss_on_all(model)


raw, averaged = np.median([averaged_end(seed) for seed in range(5)], axis=0)
free = np.median([schedule_free_end(seed) for seed in range(5)])
scheduled = np.median([end(cosine(N), 0.1, seed) for seed in range(5)])
print(f"constant {raw:.3f}   the same run, averaged {averaged:.3f}   cosine {scheduled:.3f}   schedule-free {free:.3f}")

# %% [markdown]
# As low as the cosine, from the *very same* run: the weights hover around a good point, and their mean is near it.
# The schedule-free run is at least as good, and neither had to know how long the run would be. Here is the part of
# its rule that averages; `z` is where the steps go, `p` is between it and the average:

# %%
print(tg.optim.ScheduleFreeSGD([tg.zeros(2, requires_grad=True)]).formula("text"))

# %% [markdown]
# What the averages do not give for free: at the end you must switch to them (`eval()`, `applied()`), and layers with
# running statistics must be measured anew (`update_bn`). And the rate still wants to be tuned.
#
# A third way is to let the rate fall *often*. With **restarts** each fall ends in a good point, that you may keep,
# before the rate jumps up again:

# %%
cycles = 0.08 * restarts(100)
print(cycles.sparkline(400))
again_and_again = [tg.lab.record("SGD", ravine, 400, lr=cycles, seed=seed) for seed in range(3)]
snapshots = np.median([ravine(run.path[50::50].T) - ravine.lowest for run in again_and_again], axis=0)
print("height in the middle of a cycle:", snapshots[::2].round(3))
print("height at the end of a cycle:   ", snapshots[1::2].round(3))

# %% [markdown]
# Each end is far below the middle of its cycle. On a bowl nothing is gained by going up again in between. Restarts
# were invented for landscapes with many valleys, and for the snapshots.
#
# ## Exercises
#
# Change the cell below each text and run it again, together with the check after it.
#
# **1. Say it in the algebra.** The peak is 0.02. Rise for 50 steps from a tenth of the peak, stay for 150 steps, then
# fall to 0 in a straight line over 100 steps.

# %%
mine = 0.02 * warmup(50)

# %%
def check_trapezoid(schedule):
    for t, right in ((0, 0.002), (25, 0.011), (50, 0.02), (120, 0.02), (199, 0.02), (250, 0.01), (300, 0.0)):
        if abs(schedule(t) - right) > 1e-12:
            return f"at step {t} it should be {right:g}, yours is {schedule(t):g}"
    return "right"


print(check_trapezoid(mine))

# %% [markdown]
# **2. Steps or epochs?** The loader has 45 batches, and you train for 20 epochs. The schedule is handed to the
# optimizer, which asks it before every *step*. The rate should be 0.1 at the beginning, 0.05 at half time, and 0 at
# the end. What is wrong here?

# %%
mine_of_epochs = 0.1 * cosine(20)

# %%
def check_epochs(schedule):
    at_half, at_end = schedule(450), schedule(900)
    if abs(at_half - 0.05) > 1e-9:
        return f"after 10 epochs the rate is {at_half:g}, and should be 0.05; when does yours reach 0?"
    return "right" if abs(at_end) < 1e-9 and schedule(0) == 0.1 else f"at the end the rate is {at_end:g}"


print(check_epochs(mine_of_epochs))

# %% [markdown]
# **3. Get below the floor.** `path` holds the points of a run at a constant rate, (601, 2) numbers. Return one point
# that lies at least ten times lower than the run's floor, without looking at the surface.

# %%
def best_point(path):
    return path[-1]


# %%
def check_point(choose):
    ends = []
    for seed in range(3):
        path = tg.lab.record("SGD", ravine, 600, lr=0.04, seed=seed).path
        ends.append(ravine(np.asarray(choose(path))) - ravine.lowest)
    ratio = floor(0.04) / np.median(ends)
    return "right" if ratio > 10 else f"your point is {ratio:.1f} times lower than the floor; 10 is asked for"


print(check_point(best_point))

# %% [markdown]
# ## Solutions
#
# 1. `warmup` takes the first factor as `start`.
# 2. It was 0 after 20 *steps*, less than half of the first epoch. Count the steps: 45 times 20.
# 3. Average, but leave out the way down, which would pull the mean towards the start.

# %%
assert check_trapezoid(0.02 * (warmup(50, start=0.1) >> hold(150) >> linear(100))) == "right"
assert check_epochs(0.1 * cosine(45 * 20)) == "right"
assert check_point(lambda path: path[200:].mean(axis=0)) == "right"
assert check_trapezoid(0.02 * warmup(50)) != "right" != check_epochs(0.1 * cosine(20))

# %% [markdown]
# ## What you know now
#
# - At a constant rate a noisy run hovers at a height proportional to the rate; a falling rate does distance first and
#   noise later.
# - The peak matters more than the shape, and each shape wants its own. Compare schedules only with both tuned.
# - Adam's first step is a whole rate for every weight, signal or noise. RAdam, or a warm-up, makes it small.
# - At the start curvature may forbid the rate that is right later. A warm-up gives the run time to get out of there.
# - Print the rates that were used. A schedule that is stepped twice raises no error.
# - Averaging the weights does what a low final rate does; schedule-free methods are built on that.

# %%
# The floor follows the formula, and is proportional to the rate where that is small.
assert all(abs(height[500:].mean() / floor(lr) - 1) < 0.25 for lr, height in heights.items())
assert 1.8 < floor(0.002) / floor(0.001) < 2.2
# Whatever falls ends below the constant, on the surface and on the network, at its own best peak.
falling = [name for name in shapes if name != "constant"]
assert race.ranking()[-1] == "constant"
assert min(reached["cosine"]) < min(reached["constant"]) and min(reached["linear"]) < min(reached["constant"])
assert min(reached["constant"][:2]) < min(reached["cosine"][:2])        # but not at a small peak
# Adam's first step is a whole rate on pure noise.
assert abs(moves["Adam"][0] - 1) < 1e-3 and moves["Adam"][60:].mean() < 0.3 and moves["RAdam"][0] < 0.05
assert again["Adam"][:21].max() > 3 * kept > 2 * again["RAdam"][:21].max()
# Warm-up leads to a rate that is fatal at the start.
assert np.median(cold_ends) > 1 > 0.7 > np.median(warm_ends)
assert first > 50 * 2 / 0.15 and last < 3 * 2 / 0.15
# Stepped twice, the cosine is back at its peak; averages do what a fall does.
assert rates_used(2)[5] == 0 and rates_used(2)[9] > 0.08 and "never used" in str(caught[0].message)
assert averaged < raw and free < raw

# %% [markdown]
# Next: [08, one rule, three backends](08_one_rule_three_backends.ipynb), or on to large batches in
# [10](10_large_batches_and_sharpness.ipynb).
