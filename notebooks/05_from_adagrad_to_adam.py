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
# # From Adagrad to Adam, line by line
#
# Gradient descent has one learning rate for all weights. Why should a weight whose gradients are around 100 and one
# whose gradients are around 0.01 share it?
#
# Three answers were given in four years: Adagrad (2011), RMSprop (2012) and Adam (2014). Each of them changes a line
# or two of the one before, and each of these lines repairs something that you can see break. This lesson breaks it
# first.
#
# Several cells hold a **guess**. Write down yours and run the cell before you read on: a surprise is worth more than
# an explanation.

# %%
from itertools import cycle

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled
from tinygrad_opt.rule import sqrt

tg.manual_seed(0)

tg.backend.name

# %% [markdown]
# ## 1. One rate for two coordinates
#
# The surface `ravine` is $f(x, y) = \frac12 (x^2 + 100\, y^2)$. Its gradient is $(x,\; 100\,y)$.
#
# A step of gradient descent multiplies $x$ by $1 - \text{lr}$ and $y$ by $1 - 100\,\text{lr}$. So lr has to stay
# below 0.02, or $y$ grows. The best compromise for the two is lr $= 2 / (1 + 100)$.
#
# **Guess:** with this best rate, which share of the way to 0 is still ahead of $x$ after 50 steps?

# %%
guess = 0.01                                    # yours?

sgd = tg.lab.record("sgd", "ravine", 50, lr=2 / 101)
left = sgd.path[-1, 0] / sgd.path[0, 0]
print(f"you said {guess}; it is {left:.3f}, which is 0.9802 ** 50 = {(1 - 2 / 101) ** 50:.3f}")

# %% [markdown]
# Over a third of the way is left. The steep coordinate dictates the rate, the flat one waits.
#
# You would not do this by hand. You would look at the two gradients, see that one direction is a hundred times as
# steep as the other, and give each coordinate a rate of its own. That is what the optimizers of this lesson do, and
# all they look at is the sizes of past gradients.
#
# ## 2. Adagrad: divide by the size of all gradients so far
#
# For each coordinate add up the squares of its gradients, and divide by the root of the sum. Here it is from scratch,
# with a small loop to run it:

# %%
def adagrad(w, g, state, lr, eps):
    state["s"] = state.get("s", 0) + g ** 2
    return w - lr * g / (np.sqrt(state["s"]) + eps)


def walk(step, steps, **options):
    """Run a step function on the ravine, and return all points."""
    w, state, path = np.array([-2.5, 1.0]), {}, [[-2.5, 1.0]]
    for _ in range(steps):
        gradient = np.array([1.0, 100.0]) * w
        w = step(w, gradient, state, **options)
        path.append(w)
    return np.array(path)


by_hand = walk(adagrad, 50, lr=0.5, eps=1e-10)
library = tg.lab.record("adagrad", "ravine", 50, lr=0.5)
print("largest difference from the library:", abs(by_hand - library.path).max())
print(library.formula)

# %% [markdown]
# The two agree. The library's rule has two more options, a decay of the weights and one of the rate; both are 0 here.
#
# The first gradients are $-2.5$ for $x$ and $100$ for $y$. **Guess:** how far does each coordinate go in the first
# step, with lr 0.5?

# %%
guess = [0.1, 4.0]                              # |first move| of x and of y; yours?

print("you said", guess, "and it was", abs(library.updates["w"][0]))
tg.lab.explain(library, 0, "w", index=1)

# %% [markdown]
# Both went exactly 0.5, the learning rate. Read the lines: after the first gradient the sum is $s = g^2$, its root is
# $|g|$, and what remains of the gradient is its sign. **In the first step Adagrad knows only the direction of each
# coordinate.** Only from the second step on does it know sizes, and then only relative to the first ones.
#
# Does that help in the ravine? Both runs below have 50 steps.

# %%
tg.lab.draw_contour("ravine", {"SGD, lr 2/101": sgd, "Adagrad, lr 0.5": library})

# %% [markdown]
# SGD jumps across the valley and back, and has not arrived. Adagrad treats the two coordinates alike: it walks along
# the diagonal at first, as if the valley were round.
#
# ## 3. The rate that a coordinate really had
#
# `trace.rates` is how far each coordinate went for its gradient: $-\text{update} / \text{gradient}$. For SGD it is
# lr, a flat line. For Adagrad:

# %%
flat, steep = library.rates["w"].T
print(f"the rate of x is {flat[0] / steep[0]:.0f} times that of y at first, {flat[-1] / steep[-1]:.0f} times later")
tg.lab.draw_curves({"x, flat": flat, "y, steep": steep, "SGD, both": sgd.rates["w"][:, 0]},
                   "Adagrad gives each coordinate its own rate", yscale="log", ylabel="effective rate", first=1)

# %% [markdown]
# The steep coordinate has a smaller rate than SGD allowed it, the flat one a far larger one.
#
# One thing in this picture should worry you: the lines only fall. A sum of squares never shrinks. Here the gradients
# died away, so the sum stopped growing. What if they do not?
#
# Take a slope that is 1 everywhere, with lr 1. Then $s = t$ after $t$ steps, and step $t$ has length $1/\sqrt t$.
# **Guess:** in 100 steps Adagrad comes 18.6 far. How many steps does it need to come twice as far?

# %%
guess = 200                                     # yours?


def slope(w):
    return w.sum()


on_slope = {name: tg.lab.record(name, slope, 500, [0.0], lr=1.0) for name in ("adagrad", "rmsprop", "adam")}
way = -on_slope["adagrad"].path[:, 0]
print(f"after 100 steps {way[100]:.1f}, after 200 {way[200]:.1f}; twice as far after {np.argmax(way >= 2 * way[100])}")

# %% [markdown]
# Almost four times as many, since $1 + 1/\sqrt2 + \dots + 1/\sqrt t \approx 2 \sqrt t$. Adagrad slows down on a road
# that goes straight on. For a convex problem that is what its proof needs. For a network, whose training changes its
# landscape for hours, it is a stall.
#
# ## 4. RMSprop: forget
#
# One line changes. In place of the sum stands a mean that forgets:
# $$v \leftarrow \rho\, v + (1 - \rho)\, g^2, \qquad p \leftarrow p - \text{lr}\; g / (\sqrt v + \epsilon)$$
# ($\rho$ is called `alpha` in the library, as in PyTorch.) It looks back over about $1/(1-\rho)$ steps, 100 for the
# default $\rho = 0.99$.
#
# **Guess:** $v$ starts at 0. How long is the first step, in units of lr? Work it out: the first gradient is $g$,
# whatever it is.

# %%
guess = 1.0                                     # yours?

first = abs(on_slope["rmsprop"].updates["w"][0, 0])
print(f"you said {guess}; it is {first:.2f} times lr, and 1 / sqrt(1 - 0.99) = {1 / np.sqrt(1 - 0.99):.2f}")
for rho in (0.9, 0.999):
    trace = tg.lab.record("rmsprop", slope, 1, [0.0], lr=1.0, alpha=rho)
    print(f"rho {rho}: the first step is {abs(trace.updates['w'][0, 0]):.2f} times lr")
tg.lab.draw_curves({trace.optimizer: trace.rates["w"][:, 0] for trace in on_slope.values()},
                   "the same gradient, 500 times",
                   xscale="log", yscale="log", ylabel="length of the step / lr", first=1)

# %% [markdown]
# **Ten times the learning rate.** The mean began at 0, so after one step it holds only a hundredth of $g^2$:
# $\sqrt v$ is a tenth of $|g|$. The better the memory, the longer the first step. With PyTorch's default lr of 0.01
# it moves every weight by 0.1 at once, and many a weight is no larger than that.
#
# The picture has the whole story on the slope. Adagrad falls for ever. RMSprop starts ten times too long and needs
# some hundred steps to come down to lr: its curve is $1/\sqrt{1 - \rho^t}$. Adam, to which we come, is the line at 1.
#
# What forgetting is good for shows on a cliff: a slope of 1000 on the first 0.05, and of 1 from there on, down to the
# minimum at 0. One huge gradient, then small ones.
#
# **Guess:** who comes down first? Put the four in order.

# %%
guess = ["adam", "adagrad", "rmsprop, rho 0.9", "rmsprop, rho 0.99"]         # yours?


def cliff(w):
    return (tg.abs(w) + 999 * tg.relu(w - 9.95)).sum()


runners = {"adagrad": ("adagrad", {}), "rmsprop, rho 0.9": ("rmsprop", dict(alpha=0.9)),
           "rmsprop, rho 0.99": ("rmsprop", dict(alpha=0.99)), "adam": ("adam", {})}
down = {label: tg.lab.record(name, cliff, 900, [10.0], lr=0.1, **options) for label, (name, options) in runners.items()}
for label, rho in (("rmsprop, rho 0.9", 0.9), ("rmsprop, rho 0.99", 0.99), ("adam, beta2 0.999", 0.999)):
    print(f"{label}: forgotten after {np.log((1 - rho) * 1e6) / np.log(1 / rho):.0f} steps")
tg.lab.draw_curves({label: trace.path[1:, 0] for label, trace in down.items()},
                   "after one gradient of 1000, the slope is 1",
                   ylabel="w", first=1)

# %% [markdown]
# Adagrad carries the 1000 for good: its steps are lr / 1000 from then on. RMSprop forgets, but late. The large square
# enters $v$ as $(1-\rho) \cdot 10^6$, and until its rest has fallen below 1, the square of the present slope, the
# steps are short. That takes $\ln((1-\rho)\, 10^6) \,/\, \ln(1/\rho)$ steps: 109 for $\rho = 0.9$, and 916 for
# $\rho = 0.99$.
#
# And Adam, with its $\beta_2 = 0.999$, is still far up after 900 steps. By the same formula it needs 6904. It
# remembers for longest of those that forget: **a single exploding gradient slows Adam for thousands of steps**, which
# is one reason why people clip gradients.
#
# ## 5. Adam: momentum, RMSprop, and a correction
#
# RMSprop divides *the newest gradient* by its usual size. If the gradient is mostly noise, so is the step. Adam
# divides *the mean gradient* instead, which is momentum, and corrects both means for having started at 0.
#
# Here is the third step of a run, every line with its number. Look at `m` and `m̂`, then at `v` and `v̂`.

# %%
adam = tg.lab.record("adam", "ravine", 50, lr=0.1)
tg.lab.explain(adam, 2, "w", index=0)

# %% [markdown]
# The gradients so far were about $-2.5$, $-2.4$ and $-2.3$. Their mean should be about $-2.4$; `m` is $-0.65$, since
# it still holds $0.9^3 = 73\,\%$ of the zero that it began with. Dividing by $1 - \beta_1^3 = 0.271$ takes this zero
# out exactly. `v` has seen even less: 0.3 % of what it should see, and $1 - \beta_2^3 = 0.003$ puts it right.
#
# The last lines say **who moved it**: in the third step most of the way is memory of the first two.
#
# From scratch it is six lines:

# %%
def adam_by_hand(w, g, state, lr, beta1, beta2, eps):
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g ** 2
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return w - lr * m_hat / (np.sqrt(v_hat) + eps)


by_hand = walk(adam_by_hand, 50, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8)
print("largest difference from the library:", abs(by_hand - adam.path).max())
tg.lab.grade(adam_by_hand, like="Adam")

# %% [markdown]
# ## 6. What exactly goes wrong without the corrections?
#
# There are two, so there are four versions of Adam. Each is a rule of its own here, and `from_rule` makes an
# optimizer of it. They differ in what is divided by what.
#
# The gradient will be 1 at every step. **Guess:** how long is the first step of each, in units of lr? You need only
# $m = 0.1$ and $v = 0.001$. And one more: without any correction, which step is the *longest*?

# %%
options = dict(lr=1.0, betas=(0.9, 0.999), eps=1e-8)


def moments(g, m, v, beta1, beta2):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    return m, v


@tg.optim.from_rule(**options)
def both_corrected(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    p = p - lr * (m / (1 - beta1 ** t)) / (sqrt(v / (1 - beta2 ** t)) + eps)
    return p, m, v


@tg.optim.from_rule(**options)
def only_m_corrected(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    p = p - lr * (m / (1 - beta1 ** t)) / (sqrt(v) + eps)
    return p, m, v


@tg.optim.from_rule(**options)
def only_v_corrected(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    p = p - lr * m / (sqrt(v / (1 - beta2 ** t)) + eps)
    return p, m, v


@tg.optim.from_rule(**options)
def none_corrected(p, g, m, v, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    p = p - lr * m / (sqrt(v) + eps)
    return p, m, v


# %%
guess = {"both_corrected": 1, "only_m_corrected": 1, "only_v_corrected": 1, "none_corrected": 1}         # yours?
guess_longest = 1                                                            # a step from 1

versions = (both_corrected, only_m_corrected, only_v_corrected, none_corrected)
lengths = {cls.__name__: tg.lab.record(cls, slope, 300, [0.0]).rates["w"][:, 0] for cls in versions}
for name, length in lengths.items():
    print(f"{name:17} you said {guess[name]:5}, the first step is {length[0]:6.2f};"
          f" the longest is number {length.argmax() + 1} with {length.max():.2f}")
tg.lab.draw_curves({name.replace("_", " "): length for name, length in lengths.items()},
                   "Adam with and without its corrections",
                   xscale="log", yscale="log", ylabel="length of the step / lr", first=1)

# %% [markdown]
# - Without the correction of $v$ the first step is 31.6 times lr: RMSprop's trouble, worse, because $\beta_2$ is
#   closer to 1.
# - Without the correction of $m$ it is a tenth: a timid start that ends after some twenty steps. Harmless, and a free
#   warm-up.
# - Without both, the two errors pull against each other: the first step is 3.16 times lr. But $m$ recovers in ten
#   steps and $v$ in a thousand, so **it gets worse before it gets better**: the twelfth step is the longest, 6.6
#   times lr. MLX's Adam runs like this unless told otherwise (`tg.lab.compare_dialects("Adam")` shows the line).
#
# ## 7. What Adam's ratio means: signal over noise
#
# $\hat m$ is about the mean of the gradients, $\sqrt{\hat v}$ about their root mean square. If all gradients are
# equal, the ratio is 1. If they are noise around 0, it is small. So **lr is about the longest step, and the ratio
# says which part of it the gradients agree on**.
#
# The cleanest noise is $+1, -1, +1, -1, \dots$ **Guess:** how long are RMSprop's steps then, and how long are Adam's?

# %%
guess = {"rmsprop": 1.0, "adam": 1.0}           # in units of lr; yours?


def flips():
    sign = cycle([1.0, -1.0])
    return lambda w: next(sign) * w.sum()


for name in guess:
    steps = abs(tg.lab.record(name, flips(), 400, [0.0], lr=1.0).updates["w"][:, 0])
    print(f"{name:8} you said {guess[name]}, it is {steps[-50:].mean():.4f};  (1 - 0.9) / (1 + 0.9) = {0.1 / 1.9:.4f}")

# %% [markdown]
# RMSprop goes back and forth with its full step. Adam's mean of $\pm 1$ in turn settles at
# $\pm(1-\beta_1)/(1+\beta_1) = \pm 0.0526$, a nineteenth of it. That is what the momentum is for.
#
# ## 8. The scale of the loss, and eps
#
# Multiply the loss by 1024. All gradients grow by 1024, so $m$ does, and $\sqrt v$ too. **Guess:** how far from the
# old path does Adam go? And what does SGD do if the loss is only doubled?

# %%
ravine = tg.lab.surface("ravine")
start = ravine.start


def loud(w):
    return 1024 * ravine(w)


quiet_path = tg.lab.record("adam", ravine, 100, lr=0.1, eps=0).path
loud_path = tg.lab.record("adam", loud, 100, start, lr=0.1, eps=0).path
twice = tg.lab.record("sgd", lambda w: 2 * ravine(w), 20, start, lr=2 / 101)
print("Adam, largest difference:", abs(loud_path - quiet_path).max())
print("SGD on twice the loss, |y| after 20 steps:", abs(twice.path[-1, 1]))

# %% [markdown]
# Adam's path is the same **to the last bit**: 1024 is a power of two, and scaling by it rounds nothing. SGD's doubled
# rate is beyond its limit, and it has left. This is why Adam's 0.001 travels from model to model and SGD's rate does
# not.
#
# The cell had `eps=0`. With the default, $10^{-8}$, the same holds as long as gradients are much larger than that.
# When they are not, eps takes over. **Guess:** all gradients are $10^{-8}$, exactly eps. How long is Adam's step, in
# lr? And in Keras, which adds eps to $\sqrt v$ *before* the correction, how long is the first?

# %%
guess = {"after correction": 1.0, "before correction": 1.0}                  # yours?


@tg.optim.from_rule(lr=1.0, betas=(0.9, 0.999), eps=1e-8)
def eps_before(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moments(g, m, v, beta1, beta2)
    p = p - lr * m / (1 - beta1 ** t) / ((sqrt(v) + eps) / sqrt(1 - beta2 ** t))
    return p, m, v


def faint(w):
    return 1e-8 * w.sum()


origin = np.zeros(1)                            # float64: 1e-16 is the square of 1e-8
places = {"after correction": tg.lab.record("adam", faint, 300, origin, lr=1.0).updates["w"][:, 0],
          "before correction": tg.lab.record(eps_before, faint, 300, origin).updates["w"][:, 0]}
for place, steps in places.items():
    print(f"eps {place:17}: you said {guess[place]}, step 1 is {-steps[0]:.4f} lr, step 300 is {-steps[-1]:.4f}")
print("eps in float16:", np.float16(1e-8))

# %% [markdown]
# Half a step, as $g / (g + \epsilon)$ says, and in Keras a thirtieth of it at first: there eps is divided by
# $\sqrt{1 - \beta_2^t}$ too, so it starts 31.6 times as large. The same name, the same number, another optimizer. And
# in half precision $10^{-8}$ is 0, so whoever keeps `v` there divides by zero.
#
# ## 9. Where Adam goes the wrong way
#
# Reddi, Kale and Kumar (2018) found a problem of a single weight on $[-1, 1]$. Every third step has the gradient $3$,
# the two others have $-1$. On average the gradient is $+\frac13$, so the minimum is at $-1$. Adam runs with betas
# $(0, 0.1)$.
#
# **Guess:** where does it end?

# %%
guess = -1.0                                    # yours?

reddi = {"Adam": tg.lab.record("adam", "reddi", 300, lr=0.02, betas=(0, 0.1)),
         "AMSGrad": tg.lab.record("adam", "reddi", 300, lr=0.02, betas=(0, 0.1), amsgrad=True),
         "Adam, betas (0, 0.999)": tg.lab.record("adam", "reddi", 300, lr=0.02, betas=(0, 0.999))}
tg.lab.draw_curves({label: trace.path[1:, 0] for label, trace in reddi.items()},
                   "the minimum is at -1", ylabel="w", first=1)

# %% [markdown]
# At $+1$, **the worst point there is**. Why? Look at three steps, one round of the problem:

# %%
print("   gradient    root of v^    step / lr")
for k in range(150, 153):
    trace = reddi["Adam"]
    g, v_hat = trace.gradients["w"][k, 0], trace.quantities["w"]["v_hat"][k, 0]
    print(f"{g:11.0f} {np.sqrt(v_hat):13.3f} {-g / np.sqrt(v_hat):12.3f}")
for label in ("Adam", "AMSGrad"):
    v = reddi[label].quantities["w"]["v_hat"][150:153, 0]
    print(f"{label:8} one round together: {(-reddi[label].gradients['w'][150:153, 0] / np.sqrt(v)).sum():+.3f} lr")

# %% [markdown]
# The large gradient meets a denominator that has just grown by it, so it counts as about 1. By the time the small
# ones come, the denominator has forgotten and shrunk, and they count nearly 1 each. One vote against two.
#
# AMSGrad divides by the largest $v$ so far: all three are divided by the same number, and the mean wins. So does
# plain Adam whose memory is longer than a round: $\beta_2 = 0.999$ goes the right way. **The trouble needs rare large
# gradients and a memory too short to hold one of them until the next.**
#
# ## 10. A real network has 2410 rates
#
# Digits of 8 by 8 pixels, 64 inputs, 32 hidden, 10 outputs, 100 steps of Adam with lr 0.003. For each weight, the
# rate is lr $/ (\sqrt{\hat v} + \epsilon)$.

# %%
train, test = tg.data.digits()
model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
loader = tg.data.DataLoader(train, batch_size=64, shuffle=True, generator=0)
training = tg.lab.record("adam", model, 100, data=loader, loss=tg.cross_entropy, lr=3e-3)
root = np.concatenate([np.sqrt(training.quantities[name]["v_hat"][-1]).ravel() for name in training.parameters])
rates = 3e-3 / (root + 1e-8)
asleep = root == 0
spread = np.percentile(rates[~asleep], [1, 99])
print(training)
print(f"{rates.size} rates, of those awake 98 % lie from {spread[0]:.2f} to {spread[1]:.2f}")
print(f"{asleep.sum()} weights never had a gradient; their rate is {rates.max():.0f}")
print(tg.lab.who_moved(training))
with styled():
    fig = figure(7.0, 3.0)
    axes = fig.add_subplot()
    bins = np.geomspace(rates.min() / 1.2, rates.max() * 1.5, 90)
    for (label, look), part in zip(looks(["awake", "never a gradient"]).items(), (rates[~asleep], rates[asleep])):
        axes.hist(part, bins, label=label, color=look.color, hatch="//" if "never" in label else "", edgecolor="white")
    axes.set(xscale="log", yscale="log", xlabel="effective rate", ylabel="weights", title="one rate per weight")
    axes.legend(loc="upper center")
fig

# %% [markdown]
# Among the weights that learn, the rates differ by orders of magnitude. And the highest of all, lr / eps, belong to
# weights that have **never moved**: their pixels are always blank, or their hidden unit never woke up. For the
# faintest gradient Adam would move such a weight by a full lr. The table shows how much of the way was momentum: most
# of it.
#
# ## Exercises
#
# Change a cell, run it again, and let the grader say what is still wrong. The solutions are at the end.
#
# **1. Write Adam.** This class is RMSprop with a new name. The grader compares it with the library's Adam, step by
# step, and says which known mistake it equals. Repair one thing at a time.

# %%
class MyAdam:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.params, self.lr, self.betas, self.eps = list(params), lr, betas, eps
        self.v = [np.zeros(p.shape) for p in self.params]

    def step(self):
        beta1, beta2 = self.betas
        for k, p in enumerate(self.params):
            if p.grad is not None:
                g = p.grad.numpy()
                self.v[k] = beta2 * self.v[k] + (1 - beta2) * g ** 2
                p.data = p.data - self.lr * g / (np.sqrt(self.v[k]) + self.eps)


tg.lab.grade(MyAdam, like="Adam")

# %% [markdown]
# **2. Shorten RMSprop's first step.** Add one correction to this rule, so that a slope of 1 is walked down with steps
# of lr from the very first. A rule may ask for `t`, the number of the step from 1. When you are done it is Adam with
# $\beta_1 = 0$, and graded as that.

# %%
def my_rmsprop(p, g, v, t, lr, beta2, eps):
    v = beta2 * v + (1 - beta2) * g ** 2
    p = p - lr * g / (sqrt(v) + eps)
    return p, v


tg.lab.grade(my_rmsprop, like="Adam", betas=(0, 0.99))

# %% [markdown]
# **3. The longest step.** A weight has had no gradient for very long, $m = v = 0$, and $t$ is large, so that no
# correction acts any more. Then comes a single gradient. How long is the step, in lr, with betas $(0.9, 0.999)$? Fill
# in the formula. (So "about the longest step" in section 7 has an exception.)

# %%
def longest(beta1, beta2):
    return 1.0                                  # yours?


def check(formula):
    """Let Adam see 10000 zeros, then a gradient, for two pairs of betas."""
    for betas in ((0.9, 0.999), (0.5, 0.99)):
        w = tg.zeros(1, requires_grad=True)
        optimizer = tg.optim.Adam([w], lr=1.0, betas=betas)
        for k in range(10001):
            w.grad = tg.tensor([float(k == 10000)])
            optimizer.step()
        if abs(formula(*betas) + w.item()) > 1e-3:
            return f"not yet: with betas {betas} your step is too {'short' if formula(*betas) < -w.item() else 'long'}"
    return "right"


check(longest)

# %% [markdown]
# ## Solutions

# %%
class Solved:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        self.params, self.lr, self.betas, self.eps = list(params), lr, betas, eps
        self.state = [{"m": np.zeros(p.shape), "v": np.zeros(p.shape), "t": 0} for p in self.params]

    def step(self):
        beta1, beta2 = self.betas
        for p, s in zip(self.params, self.state):
            if p.grad is not None:
                g = p.grad.numpy()
                s["t"] += 1
                s["m"] = beta1 * s["m"] + (1 - beta1) * g
                s["v"] = beta2 * s["v"] + (1 - beta2) * g ** 2
                m_hat, v_hat = s["m"] / (1 - beta1 ** s["t"]), s["v"] / (1 - beta2 ** s["t"])
                p.data = p.data - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


def corrected_rmsprop(p, g, v, t, lr, beta2, eps):
    v = beta2 * v + (1 - beta2) * g ** 2
    p = p - lr * g / (sqrt(v / (1 - beta2 ** t)) + eps)
    return p, v


def solved_longest(beta1, beta2):
    return (1 - beta1) / np.sqrt(1 - beta2)     # m is (1 - beta1) g, v is (1 - beta2) g^2


assert tg.lab.grade(Solved, like="Adam").passed
assert tg.lab.grade(corrected_rmsprop, like="Adam", betas=(0, 0.99)).passed
assert check(solved_longest) == "right"
print(f"the longest step with the default betas: {solved_longest(0.9, 0.999):.2f} lr")

# %% [markdown]
# ## What you know now
#
# - Dividing each coordinate by the size of its gradients gives it a rate of its own. The first step is then lr,
#   whatever the gradient.
# - Adagrad's sum never shrinks: on a constant slope the way grows with $\sqrt t$, and one huge gradient is carried
#   for ever.
# - RMSprop forgets, and its mean starts at 0: the first step is $1/\sqrt{1-\rho}$ times lr.
# - Adam = momentum + RMSprop + two corrections. Without that of $v$ the start is 31.6 times too long; without both it
#   is worst at step 12.
# - Adam does not see the scale of the loss, down to eps; where eps stands matters as soon as gradients are that
#   small.
# - A memory that is shorter than the time between rare large gradients sends Adam the wrong way; AMSGrad keeps the
#   maximum.

# %%
assert abs(left - (1 - 2 / 101) ** 50) < 1e-6
assert np.allclose(abs(library.updates["w"][0]), 0.5)
assert np.argmax(way >= 2 * way[100]) == 373
assert abs(first - 10) < 1e-3
assert down["adagrad"].path[-1, 0] > 9.7 and down["adam"].path[-1, 0] > 4
assert abs(down["rmsprop, rho 0.9"].path[300, 0]) < 0.2 < 1 < down["rmsprop, rho 0.99"].path[300, 0]
assert np.allclose([length[0] for length in lengths.values()], [1, 1000 ** 0.5, 0.1, 10 ** 0.5], rtol=1e-3)
assert lengths["none_corrected"].argmax() + 1 == 12 and 6.5 < lengths["none_corrected"].max() < 6.6
assert np.allclose(places["after correction"], -0.5) and abs(places["before correction"][0]) < 0.04
assert abs(by_hand - adam.path).max() < 1e-12
assert np.array_equal(loud_path, quiet_path) and abs(twice.path[-1, 1]) > 1e6
assert reddi["Adam"].path[-1, 0] > 0.9 and reddi["AMSGrad"].path[-1, 0] < -0.5
assert reddi["Adam, betas (0, 0.999)"].path[-1, 0] < -0.9
assert asleep.any() and spread[1] / spread[0] > 100

# %% [markdown]
# Next: `06_weight_decay`, where one line in two places makes two optimizers. And `tg.lab.failures()` lists the
# failures of this lesson and others, each with its cure.
