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
# # The modern ones
#
# Every year brings optimizers that beat Adam, in their own papers. Most programs still use Adam. Who is wrong?
#
# You meet five ideas here: take only the sign (Lion), make all directions of a matrix equal (Muon), turn to better
# axes first (Shampoo, SOAP), find the rate by yourself (DoG, D-Adaptation, Prodigy), average in place of a schedule
# (schedule-free). (Notebook 07 has the last one; here it takes part in the race.) At the end there is a race on
# digits, with the costs beside the results.
#
# **Guess** now, before you have seen anything: which of them wins the race, and does Adam come first, in the middle,
# or last?

# %%
import time

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled
from tinygrad_opt.optim.schedule import cosine

my_winner, my_place_of_adam = "...", "..."

tg.manual_seed(0)
train, test = tg.data.digits()
images, labels = train.tensors
tg.backend.name

# %% [markdown]
# ## Who is related to whom
#
# New optimizers are seldom new all over. `tg.optim.lineage` says what each is in terms of others, and at which options
# nothing is left of the difference. Each line is a test of this library: both are run, and go the same way.

# %%
for name in ("Lion", "Muon", "SOAP", "Prodigy", "ScheduleFreeAdamW", "DoG"):
    edge = tg.optim.lineage(name)[0]
    print(f"{edge.name} = {edge.words}\n    {edge}\n")

# %% [markdown]
# ## Lion: one bit for each weight
#
# Lion (Chen et al. 2023) was found by a program that searched through programs. This is all of it:

# %%
print(tg.optim.Lion([tg.zeros(2, requires_grad=True)]).formula("text"))

# %% [markdown]
# The sign throws the size of the gradient away. What is left is a vote on the direction, between the memory $m$
# (weight 0.9) and the present gradient (0.1). Then the memory is updated, with *another* weight, 0.99: it looks
# further back than the vote does.
#
# **Guess.** On the ravine with a rate of 0.1, how long is a step of Lion at the start, where the gradient is 100 along
# $y$ and 2.5 along $x$? And after 300 steps, near the minimum?

# %%
my_guess = (10.0, 0.25), (0.0, 0.0)

runs = {name: tg.lab.record(name, "ravine", 300, lr=0.1) for name in ("Adam", "Lion")}
steps = runs["Lion"].updates["w"]
print("all sizes of Lion's 600 moves:", np.unique(np.abs(steps).round(12)))
with styled():
    fig = figure(7.6, 3.4)
    axes = fig.add_subplot()
    for (name, run), look in zip(runs.items(), looks(runs).values()):
        axes.plot(run.loss, color=look.color, linestyle=look.linestyle, label=name)
    axes.set(yscale="log", xlabel="step", title="loss on the ravine, lr 0.1", ylim=(1e-9, 300))
    axes.legend()
fig

# %% [markdown]
# Always 0.1, for both coordinates, at the start and at the end. Lion does not slow down when it arrives, since it
# cannot see that gradients have become small; it circles around the minimum at a distance that the rate sets. Adam's
# steps shrink. So Lion *needs* a rate that falls, and it wants a smaller one than Adam, whose steps are about one rate
# only at best.
#
# What does it give in return? Memory. What an optimizer keeps for each weight, in bytes, beside the 4 of the weight:

# %%
kept = {name: sum(tg.optim.optimizer_info(name).state.values())
        for name in ("SGD", "Lion", "Muon", "DoG", "AdamW", "ScheduleFreeAdamW", "Prodigy", "SOAP")}
for name, size in kept.items():
    print(f"{name:18} {size:4g}  {'█' * int(size)}")

# %% [markdown]
# (Measured on a 64 by 64 matrix; SGD without momentum.) Lion needs half of AdamW's. For a model of ten billion weights
# that is 40 gigabytes.
#
# ## Muon: all directions of a matrix alike
#
# For Adam a weight matrix is a heap of numbers. Muon (Jordan et al. 2024) sees a matrix. Any matrix is a sum of
# directions, $G = \sum_i \sigma_i\, u_i v_i^\top$: what comes in along $v_i$ goes out along $u_i$, with the strength
# $\sigma_i$, its singular value.
#
# **Guess.** Take the gradient of a hidden layer, 32 by 32, in the middle of training. The strongest direction counts
# as 1. How strong is the tenth: a half, a tenth, a hundredth?

# %%
my_guess = 0.5


def network(seed=0):
    tg.manual_seed(seed)
    return tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 32), tg.nn.ReLU(),
                            tg.nn.Linear(32, 10))


def batches(seed, steps, size=64):
    loader = tg.data.DataLoader(train, batch_size=size, shuffle=True, drop_last=True, generator=seed)
    while True:
        for batch in loader:
            if steps == 0:
                return
            yield batch
            steps -= 1


trace = tg.lab.record("Adam", network(), 60, data=list(batches(0, 60)), loss=tg.cross_entropy, lr=0.01)
gradient, adam_step = trace.gradients["2.weight"][50], trace.updates["2.weight"][50]

w = tg.tensor(trace.parameters["2.weight"][50], requires_grad=True)
before, w.grad = w.numpy().copy(), tg.tensor(gradient)
muon = tg.optim.Muon([w], lr=0.01, weight_decay=0)
muon.step()
muon_step = w.numpy() - before

spectra = {name: np.linalg.svd(matrix, compute_uv=False)
           for name, matrix in (("gradient", gradient), ("Adam's step", adam_step), ("Muon's step", muon_step))}
for name, values in spectra.items():
    print(f"{name:12} strongest {values[0]:.4f}, the tenth {values[9] / values[0]:.3f} of that")
with styled():
    fig = figure(7.6, 3.6)
    axes = fig.add_subplot()
    for (name, values), look in zip(spectra.items(), looks(spectra).values()):
        axes.plot(np.arange(1, 33), values / values[0], color=look.color, linestyle=look.linestyle, marker=look.marker,
                  markersize=4, label=name)
    axes.set(yscale="log", xlabel="number of the direction", title="singular values, the largest counted as 1",
             ylim=(1e-3, 2))
    axes.legend(loc="lower left")
fig

# %% [markdown]
# A hundredth: the gradient points nearly all into a few directions. Adam's step is a little fuller. Muon's step has
# nearly the same strength in the first sixteen, down to a thousandth of the strongest: it keeps the $u_i v_i^\top$ and
# replaces the $\sigma_i$ by about 1. Directions that the gradient hardly mentions are learned as fast as the loud
# ones.
#
# An SVD in every step would be dear. Muon gets there by matrix products alone. An odd polynomial of a matrix acts on
# the singular values only, so it takes one that pushes all numbers between 0 and 1 towards 1, and applies it five
# times:

# %%
print(muon.formula("text"))
a, b, c = muon.param_groups[0]["ns_coefficients"]
x = np.geomspace(1e-3, 1, 200)
with styled():
    fig = figure(7.6, 3.4)
    axes = fig.add_subplot()
    y = x
    for k, look in looks(range(6)).items():
        axes.plot(x, y, color=look.color, linestyle=look.linestyle, label=f"after {k}")
        y = a * y + b * y ** 3 + c * y ** 5
    axes.set(xscale="log", xlabel="singular value before", ylabel="after", title="the polynomial, applied again")
    fig.legend(loc="outside right upper")
fig

# %% [markdown]
# Whatever was above 0.002 is between about 0.7 and 1.2 after five rounds. It does not have to be exactly 1; the
# coefficients were chosen to lift small values fast.
#
# ### One idea behind three
#
# Say you may take a step $\Delta$ of size 1, and want the loss to fall as much as it can. To first order it falls by
# $\langle G, \Delta \rangle$, the sum of all products of entries. The best step depends on what "size" means:
#
# | size of $\Delta$ | best step | how much the loss falls | optimizer |
# |---|---|---|---|
# | root of the sum of squares | $G / \|G\|$ | root of the sum of squares | SGD |
# | largest entry | $\operatorname{sign} G$ | sum of all $\|g_{ij}\|$ | Lion, about Adam |
# | largest singular value | $U V^\top$ | sum of all $\sigma_i$ | Muon |

# %%
U, values, V = np.linalg.svd(gradient)
print("sign:", (gradient * np.sign(gradient)).sum(), "=", np.abs(gradient).sum())
print("U Vᵀ:", (gradient * (U @ V)).sum(), "=", values.sum())
cosine_to_muon = (-muon_step * (U @ V)).sum() / np.linalg.norm(muon_step) / np.linalg.norm(U @ V)
print("cosine between Muon's step and U Vᵀ:", cosine_to_muon)

# %% [markdown]
# (The cosine is less than 1 for the weakest directions, which five rounds do not bring up to 1.)
#
# Muon is for the matrices *inside* a network. Biases, embeddings and the output layer go to AdamW; one call does the
# sorting:

# %%
print(tg.optim.muon_with_adamw(network()).table())

# %% [markdown]
# ## Shampoo and SOAP: turn first
#
# Adam gives every weight its own rate. That helps where the axes of the problem are the weights.
#
# **Guess.** A ravine along the axes, and the same ravine turned by 45 degrees. Each optimizer starts at the same place
# of the ravine. Which of SGD, Adam, Shampoo and SOAP does not care about the turn?

# %%
my_guess = {"SGD": "cares", "Adam": "cares", "Shampoo": "cares", "SOAP": "cares"}

turn = np.array([[1, -1], [1, 1]]) / 2 ** 0.5
start = np.array([-2.5, 1.0])


def along_the_axes(w):
    return (w[0] ** 2 + 20 * w[1] ** 2) / 2


def turned(w):
    return along_the_axes(tg.tensor(turn) @ w)


contestants = {"SGD": dict(lr=0.05), "Adam": dict(lr=0.2), "Shampoo": dict(lr=0.5),
               "SOAP": dict(lr=0.2, precondition_1d=True, precondition_frequency=1, weight_decay=0)}
straight = {name: tg.lab.record(name, along_the_axes, 60, start=start, **options)
            for name, options in contestants.items()}
slanted = {name: tg.lab.record(name, turned, 60, start=turn.T @ start, **options)
           for name, options in contestants.items()}
apart = {name: np.abs(straight[name].path - slanted[name].path @ turn.T).max() for name in contestants}
for name, distance in apart.items():
    print(f"{name:8} turned back, the paths are at most {distance:.1e} apart")

box = ((-3.2, 3.2), (-3.2, 3.2))
tg.lab.draw_contour(turned, {name: slanted[name] for name in ("Adam", "Shampoo")}, box=box)

# %% [markdown]
# SGD goes the same way, since a gradient turns with the problem. Adam does not: its squares are taken along the axes
# of the weights, and in the turned ravine every axis sees the same mixture, so there is nothing to rescale. Shampoo
# and SOAP find the axes by themselves. They collect $G G^\top$ and $G^\top G$, the products of gradients *between*
# rows and columns, whose eigenvectors are the axes of the problem as the gradients see it. Shampoo divides along
# those axes; its path in the picture is nearly straight. SOAP turns the gradient to them, runs Adam there, and turns
# back:

# %%
print(tg.optim.SOAP([tg.zeros(2, 2, requires_grad=True)]).formula("text"))

# %% [markdown]
# The first four lines are Adam with $r$ in place of $g$, turned back. The price is in the last lines: factors $L$ and
# bases $Q$ for each axis, on a square matrix twice Adam's state on top of Adam's, and a QR decomposition every ten
# steps.
#
# ## No rate to tune
#
# How large should a step be? For a convex problem theory knows the answer: about the distance $D$ from the start to
# the minimum, over the root of the sum of squared gradients. Only $D$ is unknown. So *estimate* it.
#
# **DoG** (distance over gradients) takes what it can see, the largest distance from the start so far:

# %%
print(tg.optim.DoG([tg.zeros(2, requires_grad=True)]).formula("text"))

# %% [markdown]
# **D-Adaptation** and **Prodigy** compute a lower bound of $D$ from the gradients, and raise their estimate $d$ to it
# whenever it is larger. All of them begin with a tiny estimate, $10^{-6}$.
#
# **Guess.** The minimum is $10^{4}$ away: ten orders of magnitude more than the first estimate. How many steps does
# Prodigy need until its estimate has the right power of ten, about 20, about 200, or about 20 000?

# %%
my_guess = 200


def estimate(name, distance, steps=120):
    def bowl(w):
        return ((w - distance / 10 ** 0.5) ** 2).sum() / 2
    trace = tg.lab.record(name, bowl, steps, start=np.zeros(10))
    quantities = trace.quantities["w"]
    return quantities["distance" if name == "DoG" else "d"] / distance


distances = (1.0, 100.0, 1e4)
with styled():
    fig = figure(9.6, 3.6)
    estimates = {}
    for axes, name in zip(fig.subplots(1, 3, sharey=True), ("Prodigy", "DAdaptAdam", "DoG")):
        for distance, look in looks(distances).items():
            estimates[name, distance] = estimate(name, distance)
            axes.plot(estimates[name, distance], color=look.color, linestyle=look.linestyle, label=f"D = {distance:g}")
        axes.axhline(1, color="#777777", linewidth=0.9, linestyle=":")
        axes.set(yscale="log", xlabel="step", title=name)
    fig.axes[0].set_ylabel("estimate / true distance")
    axes.legend(loc="lower right")
fig

# %%
for name in ("Prodigy", "DAdaptAdam", "DoG"):
    for distance in distances:
        share = estimates[name, distance]
        when = next((f"after {k} steps" for k in range(len(share)) if share[k] > 0.1), "not in 120 steps")
        print(f"{name:10}  D = {distance:7g}   the right power of ten {when}, largest estimate {share.max():.2f} D")

# %% [markdown]
# About twenty for Prodigy, fewer for D-Adaptation. On a logarithmic axis the estimate rises in a straight line, by a
# fixed factor a step, so that ten orders of magnitude take 23 steps where six take 13. DoG's estimate is what it has
# walked, and it walks carefully. And the estimate of the first two stays *below* the true distance, as it must: it is
# a lower bound. It never comes down either. On a network there is no minimum to be distant from, and the theory does
# not hold; whether it works is a matter of trying.
#
# ## The race
#
# A network of three layers on digits. Every contestant gets 200 gradients, in batches of 64. The learning rate of each
# is tuned on the same grid of six, on *one* seed; what counts is the mean of two *other* seeds. All have a cosine over
# the 200 steps but the schedule-free one. Prodigy, D-Adaptation and DoG run at their rate of 1, untuned.

# %%
N, optim = 200, tg.optim
makers = {
    "SGD, momentum": lambda model, lr: optim.SGD(model.parameters(), lr=lr * cosine(N), momentum=0.9),
    "Adam": lambda model, lr: optim.Adam(model.parameters(), lr=lr * cosine(N)),
    "Lion": lambda model, lr: optim.Lion(model.parameters(), lr=lr * cosine(N)),
    "Muon and AdamW": lambda model, lr: optim.muon_with_adamw(model, lr * cosine(N), lr / 2 * cosine(N)),
    "SOAP": lambda model, lr: optim.SOAP(model.parameters(), lr=lr * cosine(N)),
    "schedule-free AdamW": lambda model, lr: optim.ScheduleFreeAdamW(model.parameters(), lr=lr, warmup_steps=10),
    "Prodigy": lambda model, lr: optim.Prodigy(model.parameters(), lr=lr * cosine(N)),
    "D-Adapted Adam": lambda model, lr: optim.DAdaptAdam(model.parameters(), lr=lr * cosine(N),
                                                         use_bias_correction=True),
    "DoG": lambda model, lr: optim.DoG(model.parameters(), lr=lr),
}
tuned = list(makers)[:6]
grid = [0.01 * 2 ** k for k in range(6)]


def kept_bytes(optimizer, model):
    parts = [part for state in optimizer.state.values() for value in state.values()
             for part in (value if isinstance(value, list) else [value]) if isinstance(part, tg.Tensor)]
    return sum(part.numpy().nbytes for part in parts) / sum(p.numel() for p in model.parameters())


def run(make, lr, seed, steps=N):
    """Return loss, test accuracy, milliseconds a step and bytes a weight."""
    model = network(seed)
    optimizer, begun = make(model, lr), time.perf_counter()
    if hasattr(optimizer, "train"):
        optimizer.train()
    for x, y in batches(seed, steps):
        optimizer.zero_grad()
        loss = tg.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if not loss.item() < 100:
            return np.inf, 0.1, np.nan, np.nan
    took = 1e3 * (time.perf_counter() - begun) / steps
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    with tg.no_grad():
        loss = tg.cross_entropy(model(images), labels).item()
        right = (model(test.tensors[0]).numpy().argmax(1) == test.tensors[1].numpy()).mean()
    return loss, right, took, kept_bytes(optimizer, model)


results = {}
for name, make in makers.items():
    tried = {lr: run(make, lr, seed=9)[0] for lr in (grid if name in tuned else [1.0])}
    best = min(tried, key=tried.get)
    results[name] = best, *np.mean([run(make, best, seed) for seed in range(2)], axis=0)

print("                         lr     loss    test   bytes a weight   ms a step   gradients with tuning")
for name, (lr, loss, right, took, size) in sorted(results.items(), key=lambda entry: entry[1][1]):
    spent = N * (len(grid) + 1 if name in tuned else 1)
    print(f"{name:20}  {lr:5g}  {loss:7.4f}  {right:6.1%}   {size:14.1f}   {took:9.2f}   {spent:21}")

# %% [markdown]
# Look at the columns one after the other, since each tells another story.
#
# **Loss.** The two that treat matrices as matrices are far ahead, the schedule-free one is next. Adam is in the
# middle. And an Adam that nobody has tuned, with D-Adaptation, has ended beside the one that was tuned.
#
# **Test accuracy.** Nothing of this is left. The standard error of an accuracy on 355 images is about one percent, and
# all that were tuned lie within one and a half. The optimizers that reach a training loss ten times lower recognise
# the same digits. On this problem it does not matter which one you take, so long as its rate is tuned.
#
# **Bytes and milliseconds.** The matrix methods pay for each step (the times are those of your machine, and small
# matrices are the worst case: for large ones the products of forward and backward outweigh them). Does the bill come
# out, if everybody gets the same *time*?

# %%
longer = {}
for steps in (200, 600, 1000):
    def adam(model, lr, steps=steps):
        return optim.Adam(model.parameters(), lr=lr * cosine(steps))
    longer[steps] = np.mean([run(adam, results["Adam"][0], seed, steps)[0] for seed in range(2)])
    print(f"Adam, {steps} steps: loss {longer[steps]:.4f}")
for name in ("Muon and AdamW", "SOAP"):
    print(f"{name}, 200 steps: loss {results[name][1]:.4f}, and one step takes as long as "
          f"{results[name][3] / results['Adam'][3]:.1f} of Adam's")

# %% [markdown]
# With three times the steps Adam comes within a factor of three of Muon, with five times it is there. So whoever
# counts gradients (because data or a large model make them dear) prefers the matrix methods; whoever counts seconds on
# a small network has no reason to change. This is why both papers and practice can be right.
#
# **Gradients with tuning.** The tuned six have used seven times as many gradients as the comparison in a paper would
# say. The untuned three used 200. What if Prodigy gets all that the others spent?

# %%
def prodigy(model, lr, steps=7 * N):
    return optim.Prodigy(model.parameters(), lr=lr * cosine(steps))


untuned = np.mean([run(prodigy, 1.0, seed, steps=7 * N)[0] for seed in range(2)])
print(f"Prodigy, {7 * N} steps, never tuned: loss {untuned:.4f}    "
      f"Adam, tuned by {6 * N} gradients, then {N} steps: loss {results['Adam'][1]:.4f}")

# %% [markdown]
# If tuning counts, the method without a rate wins by far. In short runs it suffers from the steps that it needs to
# find $d$; DoG, which finds it slowest, has hardly begun after 200 steps.
#
# ## Exercises
#
# Change the cell below each text and run it again, together with the check after it.
#
# **1. Write Lion.** This is Signum, its ancestor. Change it into Lion; the options are `lr, beta1, beta2,
# weight_decay`, and the grader names what is wrong.

# %%
from tinygrad_opt.rule import sign


def my_lion(p, g, m, lr, beta1, beta2, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    p = p - lr * sign(m)
    return p, m


tg.lab.grade(my_lion, like="Lion")

# %% [markdown]
# **2. Make a matrix orthogonal.** Return the matrix with the singular vectors of `g` and singular values of exactly 1.

# %%
def orthogonalised(g):
    return g / np.linalg.norm(g)


# %%
def check_orthogonal(answer):
    g = np.random.default_rng(3).standard_normal((5, 8))
    found = answer(g)
    values = np.linalg.svd(found, compute_uv=False)
    if not np.allclose(values, 1):
        return f"the singular values are {values.round(3)}"
    strengths = np.linalg.svd(g, compute_uv=False)
    return "right" if np.isclose((found * g).sum(), strengths.sum()) else "the directions differ"


print(check_orthogonal(orthogonalised))

# %% [markdown]
# **3. DoG's rate.** Given the points of a run, `path` of (n + 1, size), and the gradients of its n steps, return the n
# rates that DoG has used. `reps_rel` is $10^{-6}$, `eps` is $10^{-8}$, `lr` is 1; its formula stands above.

# %%
def dog_rates(path, gradients):
    return np.ones(len(gradients))


# %%
def check_dog(answer):
    trace = tg.lab.record("DoG", "rosenbrock", 50)
    right, found = trace.quantities["w"]["rate"], np.asarray(answer(trace.path, trace.gradients["w"]))
    wrong = np.flatnonzero(~np.isclose(found, right, rtol=1e-6))
    return f"step {wrong[0]}: expected {right[wrong[0]]:.6g}, got {found[wrong[0]]:.6g}" if len(wrong) else "right"


print(check_dog(dog_rates))

# %% [markdown]
# ## Solutions
#
# 1. The vote mixes with `beta1` and is kept nowhere; the memory mixes with `beta2`, after the step; the decay is
#    decoupled.
# 2. Multiply the singular vectors without the values.
# 3. The largest distance so far, over the root of all squared gradients so far.

# %%
def lion(p, g, m, lr, beta1, beta2, weight_decay):
    p = p * (1 - lr * weight_decay)
    p = p - lr * sign(beta1 * m + (1 - beta1) * g)
    m = beta2 * m + (1 - beta2) * g
    return p, m


def by_svd(g):
    U, _, V = np.linalg.svd(g, full_matrices=False)
    return U @ V


def dog(path, gradients):
    walked = np.linalg.norm(path[:-1] - path[0], axis=1)
    distance = np.maximum.accumulate(np.maximum(walked, 1e-6 * (1 + np.linalg.norm(path[0]))))
    return distance / np.sqrt(np.cumsum((gradients ** 2).sum(axis=1)) + 1e-8)


assert tg.lab.grade(lion, like="Lion").passed and not tg.lab.grade(my_lion, like="Lion").passed
assert check_orthogonal(by_svd) == "right" == check_dog(dog)

# %% [markdown]
# ## What you know now
#
# - Lion moves every weight by exactly the rate, keeps half of Adam's state, and needs a rate that falls.
# - Muon keeps the directions of a matrix and makes their strengths equal, by matrix products alone.
# - Adam depends on the axes of the weights. Shampoo and SOAP find better ones, and pay with state and time.
# - Prodigy and D-Adaptation raise an estimate of the distance by a factor a step; it is a lower bound on convex
#   problems.
# - "Better" has at least four meanings: loss a gradient, loss a second, bytes, tuning. And none of these is test
#   accuracy.

# %%
# Lion's moves have one size; it keeps half of AdamW's state; Adam ends lower at a fixed rate.
assert np.allclose(np.abs(runs["Lion"].updates["w"]), 0.1) and 2 * kept["Lion"] == kept["AdamW"] == kept["Prodigy"] / 2
assert np.median(runs["Adam"].loss[-30:]) < np.median(runs["Lion"].loss[-30:]) / 100
# Muon's step is nearly the nearest orthogonal matrix; the gradient is far from it.
assert cosine_to_muon > 0.7 and spectra["gradient"][9] < 0.2 * spectra["gradient"][0]
assert spectra["Muon's step"][9] > 0.5 * spectra["Muon's step"][0]
# Only Adam cares about the turn.
assert apart["Adam"] > 0.5 and max(apart["SGD"], apart["Shampoo"], apart["SOAP"]) < 1e-6
# The estimate of the distance is a lower bound, and is found in few steps.
assert all(share.max() <= 1 + 1e-9 for share in estimates.values())
assert all((estimates[name, 1e4] > 0.1)[100] for name in ("Prodigy", "DAdaptAdam"))
# The race: matrix methods first, all tuned ones equal on the test set, Prodigy ahead when tuning counts.
assert max(results[name][1] for name in ("Muon and AdamW", "SOAP")) < results["Adam"][1] / 3
assert np.ptp([results[name][2] for name in tuned]) < 0.03
assert untuned < results["Adam"][1] / 3 and longer[1000] < longer[200] / 10

# %% [markdown]
# Next: [12, differentiating through training](12_differentiating_through_training.ipynb).
