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
# # Weight decay: the same line in two places
#
# Large weights are often a sign of a network that has learned its noise by heart. So one pulls them towards zero, in
# one of two ways:
#
# - **L2**: add $\frac{\lambda}{2} \lVert w \rVert^2$ to the loss. Its gradient is $\lambda w$, so a line in the
#   optimizer does it: $g \leftarrow g + \lambda w$.
# - **Decay**: let every weight shrink by a small share in each step: $w \leftarrow w - \text{lr}\, \lambda\, w$.
#
# For thirty years these were one thing with two names, and libraries had one option for it, `weight_decay`. Then Adam
# came, and for some more years few noticed that they had become two things. Do you see why? Guess in each section,
# then run it.

# %%
from itertools import cycle

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.rule import sqrt

tg.manual_seed(0)

tg.backend.name

# %% [markdown]
# ## 1. A weight that nobody needs
#
# These are the rules of Adam with L2 and of AdamW, as the library has them. Find the line that moved.

# %%
w = tg.zeros(1, requires_grad=True)
for cls in (tg.optim.Adam, tg.optim.AdamW):
    print(cls.__name__, cls([w], weight_decay=0.01).formula("text"), "", sep="\n")

# %% [markdown]
# Take the simplest case: a weight of 1 whose gradient is always 0. The loss has no opinion on it, decay alone moves
# it. lr is 0.1.
#
# **Guess:** where is the weight after one step, for each of the three, with $\lambda = 0.01$? And with a hundredth of
# that?

# %%
guess = {"sgd": 0.999, "adam": 0.999, "adamw": 0.999}                        # with 0.01; yours?


def no_opinion(w):
    return (0 * w).sum()


after = {}
for name in guess:
    for decay in (0.01, 0.0001):
        trace = tg.lab.record(name, no_opinion, 1, [1.0], lr=0.1, weight_decay=decay)
        after[name, decay] = trace.path[1, 0]
    print(f"{name:6} you said {guess[name]}, it is {after[name, 0.01]:.5f}; with a hundredth {after[name, 0.0001]:.5f}")

# %% [markdown]
# Adam took a **full step of lr**, whatever $\lambda$ is. Here is that step, live: `optimizer.explain` goes through
# the last step of a parameter, line by line.

# %%
w = tg.tensor([1.0], requires_grad=True)
optimizer = tg.optim.Adam([("w", w)], lr=0.1, weight_decay=0.0001)
no_opinion(w).backward()
optimizer.step()
step_of_l2 = optimizer.explain("w")
step_of_l2

# %% [markdown]
# The penalty is in `g` from the first line on. Adam does not know that it is a penalty. It does with it what it does
# with every gradient: divides it by its usual size. What was $10^{-4}$ becomes 1. The share of `decay` in the step is
# 100 %, and its strength is gone: $\lambda$ cancels.
#
# ## 2. In plain SGD nothing is divided
#
# Write both places as rules of your own. **Guess:** how far apart are the two after 100 steps in a ravine?

# %%
guess = 0.1                                     # yours?


@tg.optim.from_rule(lr=0.01, weight_decay=0.5)
def in_the_gradient(p, g, lr, weight_decay):
    g = g + weight_decay * p
    p = p - lr * g
    return p


@tg.optim.from_rule(lr=0.01, weight_decay=0.5)
def beside_the_step(p, g, lr, weight_decay):
    p = p * (1 - lr * weight_decay)
    p = p - lr * g
    return p


ravine = tg.lab.surface("ravine", kappa=20)
pair = [tg.lab.record(cls, ravine, 100) for cls in (in_the_gradient, beside_the_step)]
library = tg.lab.record("sgd", ravine, 100, lr=0.01, weight_decay=0.5)
print(f"you said {guess}; they are {abs(pair[0].path - pair[1].path).max():.1e} apart")
print("the first is the library's SGD:", np.array_equal(pair[0].path, library.path))

# %% [markdown]
# The same but for rounding: $w - \text{lr}\,(g + \lambda w)$ is $(1 - \text{lr}\,\lambda)\,w - \text{lr}\,g$. Nothing
# stands between the gradient and the step, so it does not matter on which side of it the line is. That is where the
# habit came from to call both weight decay. (With momentum something does stand between them: exercise 3.)
#
# ## 3. Which weights does L2 fail to shrink?
#
# Three weights of 1. The loss pulls at none of them in the mean, but their gradients are noisy: they flip between
# plus and minus 0.001, 0.1 and 10. That is the usual state of a network after a while: a small slope under much
# noise. lr is 0.01, $\lambda$ is 0.1, and we make 1000 steps.
#
# AdamW shrinks each by $1 - \text{lr}\,\lambda$ a step, so about $e^{-1} = 0.37$ is left of all three. **Guess:**
# what does Adam with L2 leave of each?

# %%
guess = [0.37, 0.37, 0.37]                      # yours?
sizes = np.array([0.001, 0.1, 10.0])


def flips(sizes):
    """Return a loss whose gradient changes its sign at every step."""
    sign = cycle([1.0, -1.0])

    def noise(w):
        return next(sign) * (tg.tensor(sizes) * w).sum()
    return noise


noisy = {name: tg.lab.record(name, flips(sizes), 1000, np.ones(3), lr=0.01, weight_decay=0.1)
         for name in ("adam", "adamw")}
left = {name: trace.path[-1] for name, trace in noisy.items()}
print("you said", guess)
print("L2 in Adam leaves", [f"{x:.5f}" for x in left["adam"]], "| AdamW", [f"{x:.5f}" for x in left["adamw"]])
tg.lab.draw_curves({f"L2 in Adam, gradients of {size:g}": abs(path)
                    for size, path in zip(sizes, noisy["adam"].path.T)}
                   | {"AdamW, all three": noisy["adamw"].path[:, 0]}, "what is left of a weight of 1",
                   yscale="log", ylabel="|w|",
                   ylim=(3e-4, 1.5))

# %% [markdown]
# L2 is upside down: the weight with *small* gradients is gone after 200 steps, and the one with *large* gradients is
# hardly touched. The penalty $\lambda w$ is divided by $\sqrt{\hat v}$, which for a noisy weight is the size $\sigma$
# of its noise. So that weight decays at the rate $\text{lr}\,\lambda / \sigma$. For $\sigma = 10$ this leaves
# $e^{-1000 \cdot 0.01 \cdot 0.1 / 10} = 0.905$ by the formula, and 0.889 in the run.
#
# **L2 in Adam fails to shrink the weights with large gradients**, and those are the busiest ones. AdamW treats all
# alike. Who moved them?

# %%
for name, trace in noisy.items():
    print(tg.lab.who_moved(trace), "", sep="\n")

# %% [markdown]
# For AdamW nearly all of the way is `decay`. For L2 most of it is `memory`: the penalty went into the mean `m`
# together with the noise, and once it is in there, nothing can tell it from the gradients any more. That is no
# weakness of the table. It is what L2 in Adam means.
#
# ## 4. What do they minimise?
#
# With L2 that is clear: the loss plus the penalty, in Adam as in SGD. Only the way there differs. Does AdamW minimise
# anything?
#
# Take $\frac12 (w - 1)^2$ for three weights, with noise of size 1, 4 and 16 in the gradient, and $\lambda = 0.25$.
# The minimum of the loss with its penalty is at $1 / (1 + \lambda) = 0.8$ for each. **Guess:** where does AdamW come
# to rest?

# %%
guess = [0.8, 0.8, 0.8]                         # yours?
strength, noise = 0.25, np.array([1.0, 4.0, 16.0])


def noisy_bowls():
    wobble = flips(noise)
    return lambda w: ((w - 1) ** 2).sum() / 2 + wobble(w)


rest = {}
for name in ("adam", "adamw"):
    trace = tg.lab.record(name, noisy_bowls(), 1500, np.ones(3), lr=0.03, weight_decay=strength)
    rest[name] = trace.path[-100:].mean(axis=0)
print("you said", guess)
print("Adam with L2:", rest["adam"].round(3), "| AdamW:", rest["adamw"].round(3))
print("1 / (1 + lambda * noise):", (1 / (1 + strength * noise)).round(3))

# %% [markdown]
# Where steps and decay cancel, $\text{lr}\; (1 - w) / \sqrt{\hat v} = \text{lr}\,\lambda\,w$, and $\sqrt{\hat v}$ is
# about the noise $\sigma$. So $1 - w = \lambda \sigma\, w$: **AdamW is an L2 penalty of strength $\lambda \sigma_i$
# for each weight**. It pulls most at the weights whose gradients are the least certain. Nobody wrote that penalty
# down. You get it with the W.
#
# ## 5. How fast is the default?
#
# `AdamW` has lr $= 0.001$ and `weight_decay` $= 0.01$ unless told otherwise. **Guess:** which share of a weight
# without gradients is gone after 1000 steps? After how many is half of it gone?

# %%
guess_gone, guess_half = 0.5, 1000              # yours?

gone = 1 - tg.lab.record("adamw", no_opinion, 1000, [1.0]).path[-1, 0]
half = np.log(2) / (0.001 * 0.01)
print(f"you said {guess_gone:.0%} and {guess_half}; it is {gone:.1%}, and half is gone after {half:.0f} steps")

# %% [markdown]
# A weight forgets over $1 / (\text{lr}\,\lambda)$ steps, 100,000 here. In a short training the default decay does
# nothing, and in a short experiment you will wrongly conclude that it makes no difference. Look at the product
# $\text{lr}\,\lambda \times \text{steps}$, never at $\lambda$ alone.
#
# lr is in that product, and lr has a schedule. **Guess:** over 200 steps with lr 0.05 and $\lambda = 0.1$, constant
# lr leaves $e^{-1} = 0.37$. What does a cosine down to 0 leave?

# %%
guess = 0.37                                    # yours?


@tg.optim.from_rule(lr=0.05, weight_decay=0.005, peak=0.05)
def as_in_the_paper(p, g, lr, weight_decay, peak):
    p = p * (1 - lr / peak * weight_decay)
    return p


def remains(optimizer, **options):
    return tg.lab.record(optimizer, no_opinion, 200, [1.0], **options).path[-1, 0]


cosine = tg.optim.schedule.cosine(200)
kept = {"constant": remains("adamw", lr=0.05, weight_decay=0.1),
        "cosine": remains("adamw", lr=0.05 * cosine, weight_decay=0.1),
        "cosine, half the lr": remains("adamw", lr=0.025 * cosine, weight_decay=0.1),
        "paper, cosine": remains(as_in_the_paper, lr=0.05 * cosine, peak=0.05),
        "paper, cosine, half the lr": remains(as_in_the_paper, lr=0.025 * cosine, peak=0.025)}
print("you said", guess)
for label, value in kept.items():
    print(f"{label:27} leaves {value:.3f}")

# %% [markdown]
# A cosine has the mean $\frac12$, so half of the decay takes place: $e^{-1/2} = 0.61$. And halving lr halves the
# decay once more. Whoever tunes lr here tunes the decay with it.
#
# The paper (Loshchilov and Hutter, 2017) meant something else. There the decay is multiplied by the *shape* of the
# schedule and not by lr: the last two lines are equal. PyTorch and most others multiply by lr. So a weight decay from
# a paper is divided by lr before you pass it on: $0.005$ there is $0.005 / 0.05 = 0.1$ here, and about 0.6 came out
# of both.
#
# ## 6. What decay does to a norm
#
# Random steps make weights longer, decay makes them shorter. Somewhere the two are in balance. Where?
#
# Take 200 weights whose gradients are pure noise, so that no step has a reason. In the long run each weight then
# walks at random, as if every step had the length lr: that adds $\text{lr}^2$ to the mean of $w^2$ in each step.
# Decay takes away $2\,\text{lr}\,\lambda\,w^2$. They are equal when
# $$w_\text{rms} = \sqrt{\text{lr} / (2 \lambda)}$$
#
# For lr 0.01 and $\lambda = 0.5$ that is 0.1. **Guess:** we start once at 0.01 and once at 0.5. Where are they after
# 600 steps? Does the start matter?

# %%
guess = {0.01: 0.05, 0.5: 0.3}                  # yours?


def only_noise(w, random=np.random.default_rng(0)):
    return (tg.tensor(random.standard_normal(w.shape)) * w).sum()


def rms(points):
    return np.sqrt((points ** 2).mean(axis=-1))


norms = {f"start {start}": rms(tg.lab.record("adamw", only_noise, 600, np.full(200, start), lr=0.01,
                                             weight_decay=0.5).path) for start in guess}
print("you said", guess, "and they are", [f"{curve[-1]:.3f}" for curve in norms.values()])
tg.lab.draw_curves(norms | {"sqrt(lr / 2λ)": np.full(601, np.sqrt(0.01 / (2 * 0.5)))},
                   "AdamW on pure noise", yscale="log",
                   ylabel="rms of the weights")

# %% [markdown]
# Both come to about 0.1 and stay there: **with decay, the norm of a noisy layer says nothing about the data.** It is
# a balance of lr and $\lambda$, from whatever start: what $w^2$ is away from it shrinks by a factor $e$ every
# $1/(2\,\text{lr}\,\lambda) = 100$ steps.
#
# Does this hold in a network? Look at a layer before a `LayerNorm`. Multiply its weights by 5, and the layer norm
# divides by 5 again: the outputs stay the same, so the data cannot have an opinion on the length of these weights.
# Digits, AdamW with lr 0.005 and $\lambda = 1$ for the matrices. **Guess:** the initial weights have an rms of 0.07.
# We start from a fifth of it and from five times as much. Where do they go?

# %%
guess = 0.07                                    # yours?
train, _ = tg.data.digits()


def network(scale):
    tg.manual_seed(0)
    model = tg.nn.Sequential(tg.nn.Linear(64, 64, bias=False), tg.nn.LayerNorm(64), tg.nn.ReLU(), tg.nn.Linear(64, 10))
    model[0].weight.data = model[0].weight.data * scale
    return model


def train_norms(scale, epochs=25):
    model = network(scale)
    optimizer = tg.optim.AdamW(tg.optim.decay_groups(model, 1.0), lr=0.005)
    lengths = [rms(model[0].weight.numpy().ravel())]
    for _ in range(epochs):
        for x, y in tg.data.DataLoader(train, batch_size=32, shuffle=True, generator=0):
            optimizer.zero_grad()
            tg.cross_entropy(model(x), y).backward()
            optimizer.step()
            lengths.append(rms(model[0].weight.numpy().ravel()))
    return np.array(lengths)


x = train[:8][0]
same = abs(network(5)(x) - network(1)(x)).max().item()
real = {f"{scale} times the start": train_norms(scale) for scale in (0.2, 5)}
print(f"five times the weights change the outputs by at most {same:.5f}")
print(f"you said {guess}; they are", [f"{curve[-100:].mean():.4f}" for curve in real.values()])
balance = np.full(len(real["5 times the start"]), np.sqrt(0.005 / 2))
tg.lab.draw_curves(real | {"sqrt(lr / 2λ)": balance}, "a layer before a norm, on digits",
                   ylabel="rms of the weights", yscale="log")

# %% [markdown]
# Both come near $\sqrt{0.005 / 2} = 0.05$, from a formula without any data in it. For such a layer decay is no
# regularisation: it does not make the function simpler. It sets how large a step is beside the weight, so it is a
# **second learning rate**. That is why lr and $\lambda$ have to be tuned together there.
#
# ## 7. What should not decay
#
# `decay_groups` above gave AdamW two groups:

# %%
model = network(1)
groups = tg.optim.decay_groups(model, 0.05)
groups

# %% [markdown]
# Matrices decay, vectors do not. A bias only shifts: a large one makes no function more complicated. The gain of a
# norm is 1 when it does nothing, and decay would pull it to 0, where the layer is silent. If you forget the groups,
# the doctor says so:

# %%
careless = tg.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
print(careless.doctor(model))
print("and with the groups:")
optimizer = tg.optim.AdamW(tg.optim.decay_groups(model, 0.5), lr=0.01)
trace = tg.lab.record(optimizer, model, 40, data=train[:64], loss=tg.cross_entropy)
for name in trace.parameters:
    print(f"{name:9} decay moved it by {tg.lab.who_moved(trace, name).path.get('decay', 0.0):.3f}")

# %% [markdown]
# ## Exercises
#
# Change a cell and run it again. The solutions are at the end.
#
# **1. AdamW, almost.** The optimizer of a colleague. On a short test it worked. What is wrong? The grader knows.

# %%
def my_adamw(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * (m_hat / (sqrt(v_hat) + eps) - weight_decay * p)
    return p, m, v


tg.lab.grade(my_adamw, like="AdamW")

# %% [markdown]
# **2. Half of it.** You train for 200 steps, with lr falling from 0.01 in a straight line to 0. A weight without a
# gradient should lose half of its value by the end. Which `weight_decay`?

# %%
def decay_for_half(lr, steps):
    return np.log(2) / (lr * steps)             # right for a constant lr; yours?


def check_half(formula):
    lr = 0.01 * tg.optim.schedule.linear_to_zero(200)
    value = tg.lab.record("adamw", no_opinion, 200, [1.0], lr=lr, weight_decay=formula(0.01, 200)).path[-1, 0]
    return "right" if abs(value - 0.5) < 0.01 else f"not yet: {value:.3f} is left"


check_half(decay_for_half)

# %% [markdown]
# **3. With momentum.** SGD with momentum 0.9 and an L2 penalty of 0.5 on $\frac12 (w - 1)^2$ ends at $1 / 1.5$. The
# rule below shrinks the weight beside the step. Which strength leads it to the same place? Think of how far one
# gradient moves a weight in the end, when it has gone through the momentum.

# %%
@tg.optim.from_rule(lr=0.01, momentum=0.9, weight_decay=0.0)
def decoupled_sgd(p, g, b, lr, momentum, weight_decay):
    p = p * (1 - lr * weight_decay)
    b = momentum * b + g
    p = p - lr * b
    return p, b


def same_place(l2, momentum):
    return l2                                   # yours?


def bowl(w):
    return ((w - 1) ** 2).sum() / 2


def check_place(formula):
    goal = tg.lab.record("sgd", bowl, 800, [0.0], lr=0.01, momentum=0.9, weight_decay=0.5).path[-1, 0]
    got = tg.lab.record(decoupled_sgd, bowl, 800, [0.0], weight_decay=formula(0.5, 0.9)).path[-1, 0]
    return "right" if abs(goal - got) < 1e-3 else f"not yet: L2 ends at {goal:.3f}, yours at {got:.3f}"


check_place(same_place)

# %% [markdown]
# ## Solutions

# %%
def solved_adamw(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    p = p - lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)
    return p, m, v


def solved_half(lr, steps):
    return 2 * np.log(2) / (lr * steps)         # the mean lr is half of the first


def solved_place(l2, momentum):
    return l2 / (1 - momentum)                  # a gradient moves the weight 1 / (1 - momentum) times, decay once


assert tg.lab.grade(my_adamw, like="AdamW").mistake == "decay with the wrong sign"
assert tg.lab.grade(solved_adamw, like="AdamW").passed
assert check_half(solved_half) == "right" and check_place(solved_place) == "right"

# %% [markdown]
# ## What you know now
#
# - L2 puts the decay into the gradient, decoupled decay puts it beside the step. In plain SGD that is the same.
# - Adam divides the gradient by its size, and an L2 penalty with it: a weight without gradients moves by a full lr, a
#   weight with large gradients hardly decays.
# - With L2 the minimum is that of loss + penalty. AdamW rests where the penalty of each weight is multiplied by its
#   noise.
# - The strength of AdamW's decay is lr times `weight_decay` times the number of steps. A schedule and every change of
#   lr act on it.
# - Noise and decay meet at an rms of about $\sqrt{\text{lr} / 2\lambda}$. Before a norm layer, decay is a second
#   learning rate.
# - Biases and gains do not decay: `tg.optim.decay_groups`.

# %%
assert np.allclose([after["sgd", 0.01], after["adamw", 0.01]], 0.999)
assert np.allclose([after["adam", 0.01], after["adam", 0.0001]], 0.9, atol=1e-4)
assert abs(step_of_l2.percent["decay"] - 100) < 0.1
assert abs(pair[0].path - pair[1].path).max() < 1e-12
assert left["adam"][0] < 0.01 and abs(left["adam"][2] - np.exp(-0.1)) < 0.03
assert np.allclose(left["adamw"], np.exp(-1), atol=0.02)
assert tg.lab.who_moved(noisy["adamw"]).percent["decay"] > 90 > 50 > tg.lab.who_moved(noisy["adam"]).percent["decay"]
assert np.allclose(rest["adam"], 0.8, atol=0.02) and np.allclose(rest["adamw"], 1 / (1 + strength * noise), atol=0.02)
assert abs(gone - 0.01) < 1e-3
assert np.allclose([*kept.values()][:3], np.exp([-1, -0.5, -0.25]), atol=0.01)
assert np.isclose(kept["paper, cosine"], kept["paper, cosine, half the lr"])
assert all(abs(curve[-1] / 0.1 - 1) < 0.25 for curve in norms.values())
assert all(abs(curve[-100:].mean() / 0.05 - 1) < 0.35 for curve in real.values())

# %% [markdown]
# Next: `07_schedules_and_warmup`, where lr itself changes over a run.
