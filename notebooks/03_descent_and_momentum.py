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
# # Gradient descent and momentum
#
# Gradient descent has one number to choose, the learning rate. How large may it be? Why are some problems slow at
# every rate? Why does it help to remember old gradients, and where does that help end?
#
# On a quadratic all of this can be computed before anything runs. So each section asks you for a guess, then runs,
# then explains. Write your guesses down: a guess that was wrong is what you will remember.

# %%
import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## One number
#
# A step of gradient descent is $w \leftarrow w - \mathrm{lr} \cdot f'(w)$. Take $f(w) = w^2$, whose slope is $2w$,
# and start at $w = 2$.
#
# **Guess.** At which learning rate does it stop to work: where does $w$ no longer come to rest at 0?

# %%
my_guess = 0.5                                      # put your own number here


def parabola(w):
    return (w ** 2).sum()


runs = {f"lr {lr}": tg.lab.record("SGD", parabola, 12, start=[2.0], lr=lr) for lr in (0.03, 0.3, 0.95, 1.02)}
tg.lab.draw_descent(parabola, runs)

# %% [markdown]
# The numbers count the steps, the short lines show the slope that each step saw. At 0.03 twelve steps do half of the
# way. At 0.3 it is there after four. At 0.95 each step jumps over the minimum, and still lands a little lower on the
# other side. At 1.02 it lands higher.
#
# Why: one step takes $w$ to $w - \mathrm{lr} \cdot 2w = (1 - 2\,\mathrm{lr})\,w$. It *multiplies* by a number that
# is the same in every step. If that number lies between -1 and 1, $w$ shrinks.

# %%
for lr in (0.3, 0.95, 1.0, 1.02, my_guess):
    w = tg.lab.record("SGD", parabola, 50, start=[2.0], lr=lr).path[:, 0]
    print(f"lr {lr:<5} multiplies by {1 - 2 * lr:5.2f}:  {w[0]:.3f}  {w[1]:6.3f}  {w[2]:6.3f} ...  {w[50]:9.2e}")

tg.lab.analyse("SGD", [2.0], lr=0.3)

# %% [markdown]
# So the edge is at a rate of 1, where the factor is exactly -1: it jumps between 2 and -2 for ever.
#
# For any parabola the same argument holds with the **curvature** $h$, the second derivative, which is 2 here: a step
# multiplies the distance to the minimum by $1 - \mathrm{lr}\,h$. It is stable below $\mathrm{lr} = 2/h$, and a rate of
# $1/h$ is there in one step. That is what `tg.lab.analyse` has printed: it knows the optimizer's own rule, and computes
# edge and rate without running it.

# %% [markdown]
# ## Two numbers
#
# Now a ravine: $f(x, y) = (x^2 + 100\,y^2) / 2$. Along $x$ the curvature is 1, along $y$ it is 100. Their quotient,
# 100, is the **condition number** $\kappa$. The losses of networks have far larger ones.
#
# **Guess.** With the best learning rate there is, how many steps until the distance to the minimum has fallen to a
# millionth: about 15, about 70, or about 700?

# %%
my_guess = 70

paths = {f"lr {lr}": tg.lab.record("SGD", "ravine", 100, lr=lr) for lr in (0.005, 0.018)}
tg.lab.draw_contour("ravine", paths)

# %% [markdown]
# After 100 steps neither has arrived. The larger rate zig-zags across the ravine, and still creeps along it. Each
# coordinate lives a life of its own here, with its own factor $1 - \mathrm{lr}\,h$. The theory, with the run beside it:

# %%
theory = tg.lab.analyse("SGD", "ravine", lr=0.018).against(paths["lr 0.018"])
print(theory)
theory.draw()

# %% [markdown]
# There it is: the steep direction allows no rate above $2/100 = 0.02$, and with such a rate the flat direction keeps
# 98 % of its distance at every step. *The steepest direction sets the rate, the flattest one pays.* The column
# "measured" comes from the run, and agrees with the theory in all digits shown.
#
# In the picture at the left each direction is a straight line on the logarithmic axis, which is what multiplying by a
# constant looks like; the dashed prediction lies on it. At the right is the factor's size for every curvature, with the
# two of the ravine marked. Whatever lies between the two ends is faster than the slower end. So the ends decide.
#
# ### Which coordinates are the right ones?
#
# In the ravine the directions happened to be $x$ and $y$. Here is a bowl that is turned by 45 degrees:

# %%
A = np.array([[26.0, -24.0], [-24.0, 26.0]])


def turned(w):
    return w @ (tg.tensor(A) @ w) / 2


trace = tg.lab.record("SGD", turned, 40, start=np.array([3.0, 0.5]), lr=0.035)
theory = tg.lab.analyse("SGD", A, lr=0.035).against(trace)
alone = theory.deviations[0] * (1 - 0.035 * theory.curvatures) ** np.arange(41)[:, None]
print("curvatures", theory.curvatures.round(6), "   largest difference from two descents in one dimension:",
      abs(alone - theory.deviations).max())

with styled():
    fig = figure(9.5, 3.6)
    left, right = fig.subplots(1, 2, sharey=True)
    for k, look in looks(range(2)).items():
        left.plot(trace.path[:, k], color=look.color, marker=look.marker, markersize=4, label=f"w[{k}]")
        right.plot(theory.deviations[:, k], color=look.color, marker=look.marker, markersize=4,
                   label=f"along the eigenvector of {theory.curvatures[k]:.0f}")
    left.set(title="as they are stored", xlabel="step")
    right.set(title="along the eigenvectors of A", xlabel="step")
    left.legend()
    right.legend()
fig

# %% [markdown]
# At the left both weights wobble and both creep. At the right is the same run, seen along two other directions: one
# only wobbles, the other only creeps. They are the **eigenvectors** of $A$, the matrix of second derivatives: the
# directions $v$ in which the gradient points straight back, $A v = h v$. The numbers $h$, the eigenvalues, are their
# curvatures, 2 and 50. These directions do not disturb each other, and along each runs the one-dimensional descent from
# above: the printed difference is rounding.
#
# That is why a course on descent may speak of one dimension: on a quadratic there is nothing else. A million weights
# are a million independent one-dimensional descents that share one learning rate.
#
# ### The price of the condition number
#
# The best rate makes both ends equally slow: $1 - \mathrm{lr}\,h_\min = -(1 - \mathrm{lr}\,h_\max)$, so
# $\mathrm{lr} = 2 / (h_\min + h_\max)$, and a step leaves the share $(\kappa - 1)/(\kappa + 1)$ of the distance.

# %%
print("condition   best lr     left after a step   steps to a millionth")
for kappa in (10, 100, 1000, 10_000):
    lr, _, rate = tg.lab.analyse("SGD", [1, kappa]).best_lr
    steps = tg.lab.analyse("SGD", [1, kappa], lr=lr).steps
    print(f"{kappa:9}   {lr:.6f}    {rate:.6f}            {steps:7.0f}")

# %% [markdown]
# About 700 for the ravine, and ten times the condition number costs ten times the steps. No learning rate can mend
# that. Something else has to.
#
# ## Momentum: remember old gradients
#
# This is the rule of SGD with momentum $\beta$, printed by the optimizer:

# %%
print(tg.optim.SGD([tg.zeros(2, requires_grad=True)], lr=0.01, momentum=0.9).formula("text"))

# %% [markdown]
# The buffer $b$ is multiplied by $\beta$ in every step and the new gradient is added (with the default `dampening`
# of 0). Undo the recursion, and $b$ is a sum of *all* past gradients, each weighted by $\beta$ to the power of its age:
#
# $$b_k = g_k + \beta\,g_{k-1} + \beta^2 g_{k-2} + \dots$$
#
# **Guess.** With $\beta = 0.9$, in a direction where the gradient stays the same, how many times the gradient does the
# buffer become?

# %%
my_guess = 2

trace = tg.lab.record("SGD", "ravine", 60, lr=0.015, momentum=0.9)
g, b = trace.gradients["w"], trace.state["w"]["momentum_buffer"]
by_hand = np.stack([sum(0.9 ** age * g[k - age] for age in range(k + 1)) for k in range(60)])
print("largest difference:", abs(by_hand - b).max(), "   the weights sum up to", sum(0.9 ** age for age in range(1000)))

with styled():
    fig = figure(9.5, 3.6)
    for axes, gradients, title in zip(fig.subplots(1, 2), (np.ones(40), (-1.0) ** np.arange(40)),
                                      ("gradients 1, 1, 1, ...", "gradients 1, -1, 1, ...")):
        for beta, look in looks((0.0, 0.5, 0.9)).items():
            sums = [sum(beta ** age * gradients[k - age] for age in range(k + 1)) for k in range(40)]
            axes.plot(np.abs(sums), color=look.color, linestyle=look.linestyle, label=f"momentum {beta}")
        axes.set(title=title, xlabel="step", ylabel="size of the buffer", ylim=(0, None))
    axes.legend(loc="lower right")
fig

# %% [markdown]
# Where gradients agree, the weights add up to $1/(1-\beta)$: ten times the gradient. Where gradients alternate, they
# add up to $1 - \beta + \beta^2 - \dots = 1/(1+\beta)$: *about half of one gradient*. Momentum lengthens the steps
# along the ravine and shortens those across it, which is what was missing.
#
# ### How large may the rate be now?
#
# **Guess.** On a curvature of 100 the largest stable rate was 0.02. With a momentum of 0.9, whose steps are up to ten
# times as long, is it about 0.002, still 0.02, or 0.038?

# %%
my_guess = 0.002

for beta in (0.0, 0.5, 0.9, 0.99):
    print(f"momentum {beta:<4}   largest stable lr {tg.lab.analyse('SGD', [100.0], momentum=beta).stable_lr:.5f}")

# %% [markdown]
# It *grows*, up to twice. What breaks at too large a rate is the zig-zag, and there the gradients alternate, so the
# momentum works with $\mathrm{lr}/(1+\beta)$. Hence the edge:
#
# $$\mathrm{lr} = \frac{2\,(1+\beta)}{h}$$
#
# The same from algebra. Along one eigenvector, a step takes the pair of distance and buffer to new ones, by a matrix
# of 2 times 2. Below is the one that `tg.lab.linear_map` gets by running the rule. Its eigenvalues say how the pair
# grows or shrinks: one of them passes -1 at the edge.

# %%
for lr in (0.037, 0.038, 0.039):
    step = tg.lab.linear_map("SGD", 100.0, lr=lr, momentum=0.9)
    end = abs(tg.lab.record("SGD", "ravine", 300, lr=lr, momentum=0.9).path[-1, 1])
    print(f"lr {lr}  matrix {step.round(4).tolist()}  eigenvalues {np.sort(np.linalg.eigvals(step)).round(3)}  "
          f"|y| after 300 steps {end:.2g}")

# %% [markdown]
# ### The map of all rates
#
# Two numbers to choose, so the rate is a landscape over a plane. First for a single curvature, $h = 1$:

# %%
one = tg.lab.rate_map("SGD", curvature=1.0)
one.draw()

# %% [markdown]
# Dark is slow. Four regions: **monotone**, it creeps; **zig-zags**, it jumps across the minimum in every step;
# **oscillates**, it swings like a weight on a spring, with a period of many steps; and beyond the red line it diverges.
#
# **Guess.** Go along a horizontal line inside "oscillates", say at momentum 0.81, from lr 0.1 to 3. How much does the
# rate change?

# %%
for lr in (0.1, 0.5, 1.0, 2.0, 3.0):
    roots = np.linalg.eigvals(tg.lab.linear_map("SGD", 1.0, lr=lr, momentum=0.81))
    print(f"lr {lr}   eigenvalues {roots.round(3)}   rate {abs(roots).max():.6f}")

# %% [markdown]
# Not at all: it is $\sqrt{0.81} = 0.9$ everywhere. The two eigenvalues are a complex pair there, equally large, and
# their product is the determinant of the matrix, which is $\beta$. So each is $\sqrt\beta$ large.
#
# That is the trick of momentum. Curvatures as different as 1 and 100 can have *the same* rate $\sqrt\beta$, if only the
# momentum is large enough for both to lie in this region. The smallest momentum for which they do is the best one:

# %%
both = tg.lab.rate_map("SGD", curvature=100.0, kappa=100.0)
both.draw()

# %% [markdown]
# The star is **Polyak's optimum** (1964), with $\kappa = 100$ and curvatures from 1 to 100:
#
# $$\mathrm{lr} = \left(\frac{2}{\sqrt{h_\min} + \sqrt{h_\max}}\right)^2, \qquad
#   \beta = \left(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\right)^2, \qquad
#   \text{rate} = \frac{\sqrt\kappa - 1}{\sqrt\kappa + 1} = \frac{9}{11}$$
#
# Along the bottom edge of the map, without momentum, nothing is better than $99/101$. The root of the condition number
# has taken the place of the condition number:

# %%
kappas = np.array([10, 100, 1000, 10_000])
needed = {"best lr": [], "best lr and momentum": [], "best lr and momentum, Nesterov": []}
for kappa in kappas:
    plain, nesterov = (tg.lab.analyse("SGD", [1, kappa], momentum=0.5, nesterov=look) for look in (False, True))
    rates = [tg.lab.analyse("SGD", [1, kappa]).best_lr.rate, plain.best.rate, nesterov.best.rate]
    for name, rate in zip(needed, rates):
        needed[name].append(np.log(1e-6) / np.log(rate))

with styled():
    fig = figure(6.6, 4.0)
    axes = fig.subplots()
    for name, look in looks(needed).items():
        axes.plot(kappas, needed[name], color=look.color, linestyle=look.linestyle, marker=look.marker, label=name)
    axes.set(xscale="log", yscale="log", xlabel="condition number", title="steps until a millionth is left")
    axes.legend()
fig

# %% [markdown]
# On these axes a power is a straight line: a slope of 1 for gradient descent, of one half with momentum. At
# $\kappa = 10\,000$ it is 69 000 steps against less than 700.
#
# Does a run keep the promise?

# %%
lr, beta, rate = tg.lab.analyse("SGD", "ravine", momentum=0.5).best
runs = {"no momentum, lr 0.0198": tg.lab.record("SGD", "ravine", 100, lr=0.0198),
        "momentum 0.9, lr 0.0331": tg.lab.record("SGD", "ravine", 100, lr=lr, momentum=0.9),
        f"Polyak: momentum {beta:.3f}, lr {lr:.4f}": tg.lab.record("SGD", "ravine", 100, lr=lr, momentum=beta)}
with styled():
    fig = figure(6.6, 4.2)
    axes = fig.subplots()
    for (name, run), look in zip(runs.items(), looks(runs).values()):
        axes.plot(run.loss, color=look.color, linestyle=look.linestyle, label=name)
    polyak = run                                    # the last one
    axes.plot(polyak.loss[0] * rate ** (2 * np.arange(101)), color="#999999", linewidth=1,
              label="the rate 9/11 from the first step on")
    axes.set(yscale="log", xlabel="step", title="loss on the ravine")
    axes.legend(fontsize=9)
fig

# %% [markdown]
# It does, in the long run: the slope of Polyak's line is nearly that of the thin one. But at the beginning the loss
# *rises*, more than tenfold. A rate speaks of the long run only. At the optimum the two eigenvalues of each end have
# just met, and then a distance falls like $k \cdot \text{rate}^k$ rather than $\text{rate}^k$. Momentum also swings:
# its loss goes up now and then, and that is no sign of a mistake.
#
# ## Nesterov: look ahead
#
# One line differs. The step is made along what the buffer *will be* after one more decay, plus the gradient.

# %%
print(tg.optim.SGD([tg.zeros(2, requires_grad=True)], lr=0.01, momentum=0.9, nesterov=True).formula("text"))

# %% [markdown]
# **Guess.** It is often called the better momentum. Is its largest stable rate on a curvature of 100, at a momentum of
# 0.9, above 0.038 or below?

# %%
my_guess = "above"

for beta in (0.0, 0.5, 0.9, 0.99):
    edge = tg.lab.analyse("SGD", [100.0], momentum=beta, nesterov=beta > 0).stable_lr
    print(f"momentum {beta:<4}   largest stable lr {edge:.6f}   2 (1 + β) / (1 + 2β) / h = "
          f"{2 * (1 + beta) / (1 + 2 * beta) / 100:.6f}")

# %% [markdown]
# Far below, and it *falls* with the momentum. Put alternating gradients into its rule: $g + \beta b$ is
# $1 + \beta/(1+\beta)$ gradients, so what shrinks the zig-zag in the heavy ball lengthens it here. In the figure above,
# its best pair is also a little slower than Polyak's at every condition number. What is it good for, then?

# %%
swings = {name: tg.lab.record("SGD", "ravine", 60, lr=0.01, momentum=0.9, nesterov=name == "Nesterov")
          for name in ("heavy ball", "Nesterov")}
for name in swings:
    rates = tg.lab.analyse("SGD", "ravine", lr=0.01, momentum=0.9, nesterov=name == "Nesterov").rates
    print(f"{name:10}   rate along the flat direction {rates[0]:.4f}, along the steep one {rates[1]:.4f}")
tg.lab.draw_contour("ravine", swings)

# %% [markdown]
# With the heavy ball every direction keeps $\sqrt\beta$, however steep it is: it goes on swinging across. Nesterov's
# rate is $\sqrt{\beta\,(1 - \mathrm{lr}\,h)}$, so steep directions are damped, here completely. It forgives a momentum
# that is too large, and its guarantee holds for every convex function, while Polyak's holds for quadratics only.
#
# ## What no rate can buy: the light cone
#
# A chain of 20 weights, all at 0. Only the first has a goal, each other one is tied to its neighbours.
#
# **Guess.** After 5 steps, with the best learning rate and momentum of the world, how many weights have moved?

# %%
my_guess = 20

chain = tg.lab.surface("chain", n=20)
runs = {"SGD": tg.lab.record("SGD", chain, 40, lr=0.4),
        "momentum 0.9": tg.lab.record("SGD", chain, 40, lr=0.3, momentum=0.9),
        "Adam": tg.lab.record("Adam", chain, 40, lr=0.05)}
with styled():
    fig = figure(10.0, 3.8)
    for axes, (name, run) in zip(fig.subplots(1, 3, sharey=True), runs.items()):
        axes.grid(False)
        moved = np.ma.masked_equal(run.path, 0)
        mesh = axes.pcolormesh(np.arange(1, 21), np.arange(41), moved, shading="nearest", vmin=0, vmax=1)
        axes.set(title=name, xlabel="weight")
    fig.colorbar(mesh, ax=axes, label="value (white: has not moved)")
fig.axes[0].set_ylabel("step")
fig

# %% [markdown]
# Five: one more in each step, at every rate and momentum. A weight feels its neighbours only, so news from the goal
# travels one link a step. This is a **light cone**, and every method that adds up past gradients, or rescales them
# coordinate by coordinate as Adam does, lives inside it. With this chain Nesterov proved that no such method can need
# fewer steps than some multiple of $\sqrt\kappa$ (Introductory Lectures on Convex Optimization, 2004), which momentum
# reaches. To be faster, a method must know more than gradients: notebook 09.
#
# ## Where the quadratic picture ends
#
# Losses are not quadratics. Rosenbrock's valley is curved, in both senses. Around its minimum it looks like this:

# %%
near = tg.lab.analyse("SGD", "rosenbrock", lr=0.0015)
near = near.against(tg.lab.record("SGD", "rosenbrock", 20, start=np.array([1 + 1e-6, 1 + 1e-6]), lr=0.0015))
print(near)

# %% [markdown]
# Beginning a millionth away from the minimum, the measured rates are those of the theory, to two digits at least. At
# the usual start, $(-1.5, 2)$, the curvature is twice as large, and allows no rate above 0.001.
#
# **Guess.** Take lr 0.0015 from there: half as much again as the start allows. Does it diverge?

# %%
def largest_curvature(w):
    return np.linalg.eigvalsh(tg.autograd.hessian(tg.lab.surface("rosenbrock").function, tg.tensor(w)).numpy())[-1]


start = tg.lab.surface("rosenbrock").start
print(f"curvature {largest_curvature(start):.0f} at the start: stable up to {2 / largest_curvature(start):.5f}")
print(f"curvature {near.curvatures[-1]:.0f} at the minimum: stable up to {near.stable_lr:.5f}")

my_guess = "yes"

far = tg.lab.record("SGD", "rosenbrock", 400, lr=0.0015)
curvatures = [largest_curvature(w) for w in far.path]
with styled():
    fig = figure(9.5, 3.6)
    left, right = fig.subplots(1, 2)
    left.plot(far.loss)
    left.set(yscale="log", xlabel="step", title="loss")
    right.plot(curvatures, label="largest curvature where it stands")
    right.axhline(2 / 0.0015, color="#D55E00", linestyle="--", label="2 / lr")
    right.set(xlabel="step", title="curvature along the path", xlim=(0, 400))
    right.legend()
fig

# %% [markdown]
# It does not. Standing above the line $2/\mathrm{lr}$ it is thrown from wall to wall, and the loss grows twentyfold,
# until it falls where the valley is flatter; below the line it settles and creeps along the valley. The edge still
# tells *where it can come to rest*, no longer where it explodes.
# Networks do the same: their curvature climbs to $2/\mathrm{lr}$ and hovers there (Cohen et al., 2021).
#
# And the other way round: just above the edge of the minimum itself.

# %%
for lr in (0.0019, 0.0021):
    rest = tg.lab.record("SGD", "rosenbrock", 1500, start=np.array([1.01, 1.01]), lr=lr)
    print(f"lr {lr} (edge {near.stable_lr:.6f}): highest loss in the last 500 steps {rest.loss[-500:].max():.1e}, "
          f"furthest from the minimum {abs(rest.path[-500:] - 1).max():.1e}")

# %% [markdown]
# A quadratic would explode at 0.0021. Here it starts near the minimum, cannot stay, and does not get far: it jumps
# to and fro across the bottom for good.
#
# ## A fair race
#
# Comparing optimizers at one learning rate compares luck. `tg.lab.race` gives each the best rate of the same grid and
# counts gradients. **Guess** the order on Rosenbrock after 300 gradients.

# %%
race = tg.lab.race({"plain": ("SGD", {}), "momentum 0.9": ("SGD", {"momentum": 0.9}),
                    "Nesterov 0.9": ("SGD", {"momentum": 0.9, "nesterov": True}), "Adam": "Adam"},
                   "rosenbrock", steps=300)
print(race)
race.draw()

# %% [markdown]
# Momentum ends more than a thousand times lower than plain descent, for one line of code and one more array. That Adam
# wins here says little: with its rate of 1.8 it first left the picture and came back well. On another surface the order
# is another one. Try `"beale"`, `"chain"` or `"himmelblau"` in place of `"rosenbrock"`.
#
# ## Exercises
#
# Change a cell and run it again: its last line is the checker. Solutions are at the end.
#
# **1. Momentum by heart.** Write the rule of SGD with momentum, as PyTorch has it. `p` is the parameter, `g` the
# gradient, `b` the buffer. What stands here runs, and is wrong.

# %%
def my_momentum(p, g, b, lr, momentum):
    b = momentum * b + (1 - momentum) * g
    p = p - lr * b
    return p, b


tg.lab.grade(my_momentum, like="SGD", momentum=0.9)

# %% [markdown]
# **2. Nesterov by heart.** The same for Nesterov's. What stands here is the heavy ball.

# %%
def my_nesterov(p, g, b, lr, momentum):
    b = momentum * b + g
    p = p - lr * b
    return p, b


tg.lab.grade(my_nesterov, like="Nesterov")

# %% [markdown]
# **3. A ravine ten times as steep.** The condition number is 1000. Choose lr and momentum such that the loss is below
# $10^{-6}$ after 300 steps. Compute them; a search by hand is slow.

# %%
my_numbers = {"lr": 0.001, "momentum": 0.9}


def check(lr, momentum):
    narrow = tg.lab.surface("ravine", kappa=1000)
    theory = tg.lab.analyse("SGD", narrow, lr=lr, momentum=momentum)
    if theory.rate >= 1:
        return f"lr {lr} is beyond the edge, which is at {theory.stable_lr:.5f} with this momentum"
    loss, slow = tg.lab.record("SGD", narrow, 300, lr=lr, momentum=momentum).loss[-1], theory.rates.argmax()
    return (f"{'solved' if loss < 1e-6 else 'not yet'}: loss {loss:.1e}; the slowest direction has the curvature "
            f"{theory.curvatures[slow]:.0f}, a rate of {theory.rate:.4f}, and its motion there: {theory.motions[slow]}")


check(**my_numbers)

# %% [markdown]
# ## Solutions
#
# 1\. The gradient enters the buffer whole; `(1 - momentum)` belongs to Adam's mean. 2\. The step is `g + momentum * b`
# with the new `b`. 3\. Polyak's formulas with curvatures 1 and 1000.

# %%
def momentum_solved(p, g, b, lr, momentum):
    b = momentum * b + g
    p = p - lr * b
    return p, b


def nesterov_solved(p, g, b, lr, momentum):
    b = momentum * b + g
    p = p - lr * (g + momentum * b)
    return p, b


root = 1000 ** 0.5
numbers_solved = {"lr": (2 / (1 + root)) ** 2, "momentum": ((root - 1) / (root + 1)) ** 2}

grades = tg.lab.grade(momentum_solved, like="SGD", momentum=0.9), tg.lab.grade(nesterov_solved, like="Nesterov")
assert all(grade.passed for grade in grades)
assert check(**numbers_solved).startswith("solved")
check(**numbers_solved)

# %% [markdown]
# ## What you know now
#
# - A step multiplies the distance along each eigenvector by $1 - \mathrm{lr}\,h$: stable below $2/h$.
# - The steepest curvature sets the rate, the flattest pays: $\kappa$ times more steps.
# - Momentum is a sum of past gradients: $1/(1-\beta)$ of them where they agree, $1/(1+\beta)$ where they alternate. So
#   its edge is $2(1+\beta)/h$, and with the best $\beta$ the steps grow with $\sqrt\kappa$ only.
# - Nesterov's look ahead damps steep directions, at the price of a smaller edge.
# - No method of gradients alone leaves the light cone.
# - Off a quadratic, $2/h$ says where a run can come to rest.

# %%
edge = tg.lab.analyse("SGD", [100.0], momentum=0.9)
assert np.isclose(tg.lab.analyse("SGD", [100.0]).stable_lr, 2 / 100)
assert np.isclose(edge.stable_lr, 2 * (1 + 0.9) / 100)
assert np.isclose(tg.lab.analyse("SGD", [100.0], momentum=0.9, nesterov=True).stable_lr, 2 * 1.9 / 2.8 / 100)

assert np.isclose(tg.lab.analyse("SGD", "ravine").best_lr.rate, 99 / 101)
assert np.isclose(both.best.rate, 9 / 11) and np.isclose(both.best.momentum, (9 / 11) ** 2, atol=1e-6)
slopes = [np.polyfit(np.log(kappas), np.log(needed[name]), 1)[0] for name in needed]
assert 0.95 < slopes[0] < 1.05 and all(0.45 < slope < 0.55 for slope in slopes[1:])

assert polyak.loss.max() > 10 * polyak.loss[0] > polyak.loss[-1] * 1e10
assert np.allclose(by_hand, b, rtol=1e-4, atol=1e-4) and np.allclose(alone, theory.deviations)
for run in runs.values():                           # after k steps the weights from k on are exactly where they were
    assert all(not run.path[k, k:].any() and run.path[k, :k].all() for k in range(21))

assert far.loss[-1] < far.loss[0] / 2 and curvatures[0] > 2 / 0.0015 > curvatures[-1]
assert 1e-4 < rest.loss[-500:].max() < 1            # at 0.0021, the last that ran
assert race.reached["momentum 0.9"] < race.reached["plain"] / 100
assert tg.lab.grade(momentum_solved, like="Nesterov").mistake == "look-ahead forgotten"

# %% [markdown]
# Next: `04_noise_and_batches`, where the gradient itself becomes uncertain.
