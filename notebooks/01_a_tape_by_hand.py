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
# # A tape by hand
#
# A network has a million weights. For each of them you want to know which way it should move, and how much that would
# help. Trying one weight means running the network. Trying all means running it a million times.
#
# Yet every library gets the million slopes at once, for about the price of three runs. **How can that be?**
#
# You will build the answer twice: for single numbers in twenty lines, and for arrays in fifty. What you build is
# compared with tinygrad_opt at every step, and in the end you will have written its engine in small.

# %%
import math

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled

tg.manual_seed(0)
tg.backend.name


# %% [markdown]
# ## The slow way
#
# Here is a function of two numbers. To learn how fast it grows with `a`, nudge `a` a little to both sides.

# %%
def f(a, b):
    return a * b + math.sin(a)


def nudged(function, point, h=1e-5):
    """Return the slope of a function in each of its arguments, two runs an argument."""
    slopes = []
    for k, x in enumerate(point):
        ends = [function(*point[:k], x + side, *point[k + 1:]) for side in (h, -h)]
        slopes.append((ends[0] - ends[1]) / (2 * h))
    return slopes


nudged(f, [2.0, 3.0])

# %% [markdown]
# Two runs for every input: that is the price you want to avoid. But nudging knows nothing about calculus and cannot
# make a mistake in it. Keep it as the judge of everything that follows.
#
# ## Chain rule as bookkeeping
#
# Write the function as steps so small that you know the slopes of each by heart.
#
# | step | its slopes |
# |---|---|
# | `u = a * b` | `b` in `a`, and `a` in `b` |
# | `v = sin(a)` | `cos(a)` in `a` |
# | `y = u + v` | `1` in `u`, and `1` in `v` |
#
# Now walk back from `y`. If `y` grows with `u` at rate 1, and `u` with `a` at rate `b`, then `y` grows with `a`, by way
# of `u`, at rate `1 * b`: along a way, slopes are multiplied.
#
# **Guess.** Two ways lead back from `y` to `a`. Over `u` there arrives 3, over `v` there arrives cos 2 = -0.416. What
# is the slope of `y` in `a`: the last that arrived, the larger, the mean, the sum?

# %%
a, b = 2.0, 3.0
u, v = a * b, math.sin(a)
y = u + v

dy = 1.0                                # how fast y grows with itself
du, dv = dy * 1, dy * 1
over_u, over_v = du * b, dv * math.cos(a)
db = du * a

for words, slope in {"the last": over_v, "the larger": max(over_u, over_v), "the mean": (over_u + over_v) / 2,
                     "the sum": over_u + over_v, "by nudging": nudged(f, [a, b])[0]}.items():
    print(f"{words:<11} {slope:7.4f}")


# %% [markdown]
# The sum. Move `a` by a little: `u` moves, `v` moves too, and `y` feels both. This is all there is to know:
#
# - along a way, **multiply**;
# - where ways meet, **add**.
#
# It sounds harmless. The second rule is the one that is forgotten: whoever writes `gradient = ...` in place of
# `gradient += ...` keeps the last way only.
#
# ## Let the numbers remember
#
# You wrote the steps down by hand. A number can do that itself: it holds what it was made from, and the slopes.

# %%
class Number:
    """A number that remembers what it was made from, and how fast it grows with each of these."""

    def __init__(self, value, parents=(), slopes=()):
        self.value, self.parents, self.slopes = value, parents, slopes

    def __add__(self, other):
        return Number(self.value + other.value, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Number(self.value * other.value, (self, other), (other.value, self.value))


def sin(x):
    return Number(math.sin(x.value), (x,), (math.cos(x.value),))


def follow(y, found, arriving=1.0):
    """Go every way back from y; add up in `found` what arrives at each number."""
    found[y] = found.get(y, 0.0) + arriving
    for parent, slope in zip(y.parents, y.slopes):
        follow(parent, found, arriving * slope)
    return found


a, b = Number(2.0), Number(3.0)
found = follow(a * b + sin(a), {})
found[a], found[b]

# %% [markdown]
# Nothing was differentiated here, in the sense of school: no formula of a derivative was ever written for `f`. Each
# little step knows its own slopes, and the rest is sums and products.
#
# A Tensor of tinygrad_opt remembers in the same way. Ask it, and look at what it remembers.

# %%
ta, tb = (tg.tensor(x, dtype="float64", requires_grad=True) for x in (2.0, 3.0))
ty = ta * tb + tg.sin(ta)
by_library = tg.grad(ty, [ta, tb], retain_graph=True)
print(by_library)
tg.lab.draw_graph(ty, names={"a": ta, "b": tb})

# %% [markdown]
# Values go down the arrows, gradients come back up. Start at the result and go up the orange ways: two of them lead to
# `a`, and 2.584 is what both brought.
#
# ## Sixty doublings
#
# Now a function that could not be simpler: double a number, sixty times. The slope is $2^{60}$, and the whole history
# is 61 numbers long.
#
# **Guess.** How often does `follow` arrive somewhere, for ten doublings?

# %%
guess = 20


def doubled(x, times):
    for _ in range(times):
        x = x + x
    return x


def arrivals(y):
    """Return how often `follow` would arrive at a number."""
    return 1 + sum(arrivals(parent) for parent in y.parents)


counts = {n: arrivals(doubled(Number(1.0), n)) for n in (1, 2, 3, 10, 16)}
print(f"you said {guess}, it is {counts[10]}")
print(counts)
print(f"sixty doublings, at ten million arrivals a second: {(2 ** 61 - 1) / 1e7 / (365 * 24 * 3600):,.0f} years")


# %% [markdown]
# `follow` goes every *way*, and each doubling makes twice as many of them. A network is full of such forks.
#
# The way out is patience. A number waits until everything has arrived, adds it up, and passes the sum on, once.
# Sixty-one numbers, sixty-one visits. For that, each number has to come before all those that it was made from: the
# order of their making, backwards. It is called a *topological order*.

# %%
def in_order(y):
    """Return y and all that is behind it, each after what it was made from."""
    order, seen, waiting = [], set(), [(y, False)]
    while waiting:
        x, finished = waiting.pop()
        if finished:
            order.append(x)
        elif x not in seen:
            seen.add(x)
            waiting.append((x, True))
            waiting.extend((parent, False) for parent in x.parents)
    return order


def backward(y, order=None):
    """Return the gradient of y in everything behind it, one visit a number."""
    found = {y: 1.0}
    for x in order or reversed(in_order(y)):
        for parent, slope in zip(x.parents, x.slopes):
            found[parent] = found.get(parent, 0.0) + found[x] * slope
    return found


x = Number(1.0)
y = doubled(x, 60)
tx = tg.tensor(1.0, dtype="float64", requires_grad=True)
print(len(in_order(y)), "visits:", backward(y)[x] == 2.0 ** 60)
print("tinygrad_opt:", tg.grad(doubled(tx, 60), tx)[0].item() == 2.0 ** 60)

# %% [markdown]
# Does the order matter that much? Take $y = u + ux$ with $u = \sin x$, and visit the numbers in the order in which they
# come into sight from $y$: first $y$, then $u$ and $ux$, then $x$.
#
# **Guess.** Which part of the slope, $\cos x + \sin x + x \cos x$, will be missing?

# %%
x = Number(0.7)
u = sin(x)
ux = u * x
y = u + ux

hasty, right = backward(y, order=[y, u, ux, x])[x], backward(y)[x]
print(f"hasty {hasty:.4f}, in order {right:.4f}, by nudging "
      f"{nudged(lambda x: math.sin(x) + math.sin(x) * x, [0.7])[0]:.4f}")
print(f"missing {right - hasty:.4f}, and x cos x is {0.7 * math.cos(0.7):.4f}")

# %% [markdown]
# $u$ passed on what it had, and then received the rest, which nobody fetched. No error, no warning: a wrong number.
#
# One more reason for a list in place of recursion is depth. A network that reads a text of ten thousand letters is a
# chain of ten thousand steps.

# %%
x, tx = Number(0.5), tg.tensor(0.5, dtype="float64", requires_grad=True)
y, ty = x, tx
for _ in range(10_000):
    y, ty = sin(y), tg.sin(ty)

try:
    follow(y, {})
except RecursionError as error:
    print("follow:", error)
deep, deep_by_library = backward(y)[x], tg.grad(ty, tx)[0].item()
print(f"in order: {deep:.12g}, tinygrad_opt: {deep_by_library:.12g}")


# %% [markdown]
# tinygrad_opt does not even sort. Every call gets a number when it is made, and a call is always later than those that
# it depends on. The walk takes the latest call that waits, until none does: that is a topological order for nothing.
#
# ## Why back, and not forward?
#
# The slopes are there, on the tape. You could as well go the other way: begin with an input, and carry along how fast
# each number grows with it.

# %%
def forward(y, x):
    """Return the slope of y in one input, from that input on."""
    slopes = {x: 1.0}
    for number in in_order(y):
        if number.parents:
            slopes[number] = sum(slope * slopes.get(p, 0.0) for p, slope in zip(number.parents, number.slopes))
    return slopes[y]


def wave(values):
    """Return inputs, and the sine of the sum of their squares."""
    inputs = [Number(value) for value in values]
    total = inputs[0] * inputs[0]
    for x in inputs[1:]:
        total = total + x * x
    return inputs, sin(total)


inputs, y = wave([0.1, 0.2, 0.3])
print("forward, thrice:", [round(forward(y, x), 6) for x in inputs])
print("back, once:     ", [round(backward(y)[x], 6) for x in inputs])
walks = {}
for n in (1, 10, 100):
    inputs, y = wave([0.01 * k for k in range(n)])
    arrows = sum(len(x.parents) for x in in_order(y))
    walks[n] = arrows, n * arrows
    print(f"{n:>4} inputs: {arrows:>5} multiplications back, {n * arrows:>6} forward")

# %% [markdown]
# The same slopes. Each walk multiplies once for each arrow of the graph. But a walk forward is about *one input*, and a
# walk back about *one result*.
#
# In arrays it looks like this. A layer's slopes form a matrix, its *Jacobian*: a row for each result, a column for each
# input. A network of layers 784, 512, 512 and 1 result has the Jacobians
#
# $$J_3 \; J_2 \; J_1, \qquad (1 \times 512)\,(512 \times 512)\,(512 \times 784),$$
#
# and the chain rule multiplies them. You may put the brackets where you like. From the right, $J_3 (J_2 J_1)$, is
# forward; from the left, $(J_3 J_2) J_1$, is back.
#
# **Guess.** By what factor do the two differ? And for how many results would they cost the same?

# %%
def multiplications(inputs, results, width=512):
    """Return how many multiplications the product takes from the left, which is back, and from the right."""
    back = results * width * width + results * width * inputs
    ahead = width * width * inputs + results * width * inputs
    return back, ahead


back, ahead = multiplications(784, 1)
print(f"back {back:,}, forward {ahead:,}: {ahead / back:.0f} times as many")

results = np.geomspace(1, 1e5, 60)
costs = np.array([multiplications(784, m) for m in results])
with styled():
    picture = figure(6.4, 3.6)
    axes = picture.add_subplot()
    for (name, look), cost in zip(looks(["back", "forward"]).items(), costs.T):
        axes.plot(results, cost, color=look.color, linestyle=look.linestyle, label=name)
    axes.axvline(784, color="#888888", linewidth=1, linestyle=":")
    axes.annotate("as many results as inputs", (784, costs.min()), (6, 0), textcoords="offset points", fontsize=9)
    axes.set(xscale="log", yscale="log", xlabel="results", ylabel="multiplications",
             title="784 inputs, two layers of 512")
    axes.legend()
picture

# %% [markdown]
# The lines cross at 784 results, exactly where there are as many as inputs. To the right of it, forward is cheaper. But
# you train on *one* number, the loss, at the far left. That is why it is *back*propagation.
#
# The price is memory. Forward needs nothing but the present number; to go back, you must have kept what the slopes are
# made of.
#
# ## From slopes to products
#
# Single numbers in Python are slow. Let one step of the tape be an operation on whole arrays. Then its slopes are a
# Jacobian, and these are huge: for the tanh of a thousand numbers a million slopes, of which all but a thousand are 0.
#
# **Guess.** How much of the Jacobian does the walk back need?

# %%
x = tg.linspace(-2.0, 2.0, 1000, dtype="float64")
y = tg.tanh(x).numpy()
jacobian = tg.autograd.jacobian(tg.tanh, x).numpy()
g = np.random.default_rng(0).standard_normal(1000)          # what arrives at y
print(f"{jacobian.size:,} slopes, {np.count_nonzero(jacobian):,} of them not 0")
print("the same:", np.allclose(g @ jacobian, g * (1 - y * y)))


# %% [markdown]
# None of it. What arrives is a vector `g`, what is passed on is `g @ jacobian`: the *vector-Jacobian product*, and for
# each operation there is a short way to write it that never makes the matrix.
#
# | operation | what it passes on |
# |---|---|
# | `y = tanh(x)` | `g * (1 - y * y)` |
# | `y = a @ b` | `g @ b.T` to `a`, and `a.T @ g` to `b` |
# | `y = x.sum()` | `g`, spread over the shape of `x` |
#
# Read the second line as a bill: one matrix product forward, two back. The gradient costs twice what the run costs, so
# run and gradient are the price of three runs, for however many weights.
#
# ## The tape, in fifty lines
#
# An operation is a function on arrays, tied to its products by `primitive`. Given plain arrays, the operation is the
# plain function; given an `Array`, it remembers.

# %%
class Array:
    """An array that remembers which operation made it, and from what."""

    def __init__(self, value, parents=(), vjps=()):
        self.value, self.parents, self.vjps = np.asarray(value), parents, vjps
        self.shape = self.value.shape


def raw(a):
    return a.value if isinstance(a, Array) else a


def primitive(*vjps):
    def wrap(function):
        def op(*args):
            if not any(isinstance(a, Array) for a in args):
                return function(*args)
            return Array(function(*map(raw, args)), [a if isinstance(a, Array) else Array(a) for a in args], vjps)
        return op
    return wrap


@primitive(lambda g, y, a, b: g, lambda g, y, a, b: g)
def add(a, b):
    return a + b


@primitive(lambda g, y, a, b: g, lambda g, y, a, b: 0 - g)
def sub(a, b):
    return a - b


@primitive(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a)
def mul(a, b):
    return a * b


@primitive(lambda g, y, a, b: g @ transpose(b), lambda g, y, a, b: transpose(a) @ g)
def matmul(a, b):
    return a @ b


@primitive(lambda g, y, x: transpose(g))
def transpose(x):
    return x.T


@primitive(lambda g, y, x: spread(g, x))
def total(x):
    return x.sum()


@primitive(lambda g, y, x, like: total(g))
def spread(x, like):
    return np.broadcast_to(x, like.shape)


@primitive(lambda g, y, x: g * (1 - y * y))
def tanh(x):
    return np.tanh(x)


Array.__add__, Array.__sub__, Array.__mul__, Array.__matmul__ = add, sub, mul, matmul
Array.__rsub__ = lambda b, a: sub(a, b)


def gradients(y, record=False):
    """Return the gradient of y, a single number, in everything behind it."""
    hand = (lambda a: a) if record else raw
    found = {y: hand(Array(1.0))}
    for x in reversed(in_order(y)):
        if x in found:
            for vjp, parent in zip(x.vjps, x.parents):
                g = vjp(found[x], hand(x), *map(hand, x.parents))
                found[parent] = found[parent] + g if parent in found else g
    return found


# %% [markdown]
# `in_order` is the one from before, and so is the sum where ways meet. Only "times the slope" has become "ask the
# operation". (`record` comes later; while it is off, the products see plain arrays.)
#
# One thing to notice: `total` passes back by `spread`, and `spread` by `total`. What copies a number on the way forward
# adds up on the way back: fan-out again.
#
# Now a network with a layer of five, on eight samples, and its loss: once on your tape, once in the library.

# %%
random = np.random.default_rng(0)
samples, first, second, targets = (random.standard_normal(shape) for shape in ((8, 3), (3, 5), (5, 1), (8, 1)))


def loss_of(x, w1, w2, t, tanh, total):
    miss = tanh(x @ w1) @ w2 - t
    return total(miss * miss)


x, w1, w2, t = map(Array, (samples, first, second, targets))
found = gradients(loss_of(x, w1, w2, t, tanh, total))

tx, tt = tg.tensor(samples), tg.tensor(targets)
tw1, tw2 = tg.tensor(first, requires_grad=True), tg.tensor(second, requires_grad=True)
with tg.Tape() as tape:
    loss = loss_of(tx, tw1, tw2, tt, tg.tanh, tg.sum)
by_library = tape.backward(loss)

for ours, theirs in ((w1, tw1), (w2, tw2)):
    print(ours.shape, "equal:", np.allclose(found[ours], by_library[theirs].numpy(), rtol=1e-12))
tape

# %% [markdown]
# This is the library's tape, printed. Read the column "kept for backward" beside the formulas above:
#
# - `tanh` keeps its result, because `g * (1 - y * y)` mentions `y`, and not what it was given.
# - The second product keeps both arguments. The first keeps only `a`: nobody asked for the gradient of the samples, and
#   that one alone would need `b`.
# - `sub` and `sum` keep nothing. Their formulas mention `g` and shapes.
#
# The library reads which names each formula mentions, and lets go of everything else. Your tape keeps all of it. This
# column is the memory that training takes.
#
# ## An operation of your own
#
# `tg.primitive` is your `primitive`, grown up. Here is a bell curve, which the library does not have. Its slope is
# $-2x\,e^{-x^2} = -2xy$.
#
# `tg.check_grads` is the nudge from the beginning, in double precision and along a random direction, so that one number
# judges all slopes together. It checks second derivatives too. Silence means agreement. Is it strict enough? The second
# op has a slip of a tenth of a percent.

# %%
@tg.primitive(lambda g, y, x: -2 * g * x * y)
def bell(x):
    return np.exp(-x * x)


points = tg.tensor([0.3, -1.2, 2.0])
tg.check_grads(bell, points)
print("bell: no complaint")


@tg.primitive(lambda g, y, x: -2.002 * g * x * y)
def slipped(x):
    return np.exp(-x * x)


try:
    tg.check_grads(slipped, points)
except AssertionError as error:
    print("slipped:", error)


# %% [markdown]
# Both numbers are in the message. In a training curve you would never have seen this slip.
#
# **Guess.** Here is the right formula again, written in NumPy on plain arrays. Is anything wrong with it?

# %%
@tg.primitive(lambda g, y, x: g * (-2 * np.asarray(x) * np.exp(-np.asarray(x) ** 2)))
def deaf(x):
    return np.exp(-x * x)


for order in (1, 2):
    try:
        tg.check_grads(deaf, points, order=order)
        print(f"to order {order}: no complaint")
    except AssertionError as error:
        complaint = str(error)
        print(f"to order {order}: {complaint}")

# %% [markdown]
# The first derivative is right, and the second is wrong. To see why, think of what a second derivative is.
#
# ## The gradient is a computation too
#
# The walk back multiplies and adds. If it does so *with Arrays*, these calls are remembered like any others, and you
# can walk back through the walk back. That is what `record` is for: with it, the products are handed Arrays. `deaf`
# turns its `x` into a plain array first, and so hides from the tape that its slope depends on `x`.
#
# Not one line has to be written for it. By the rules of school, the derivatives of $y = \tanh x$ are $1 - y^2$, then
# $-2y(1 - y^2)$, then $(6y^2 - 2)(1 - y^2)$.

# %%
x = Array(0.7)
slope = gradients(tanh(x), record=True)[x]
bend = gradients(slope, record=True)[x]
third = gradients(bend)[x]

tx = tg.tensor(0.7, dtype="float64", requires_grad=True)
tslope, = tg.grad(tg.tanh(tx), tx, create_graph=True)
tbend, = tg.grad(tslope, tx, create_graph=True)
tthird, = tg.grad(tbend, tx, retain_graph=True)

y = math.tanh(0.7)
by_hand = [float(slope.value), float(bend.value), float(third)]
in_the_library = [tslope.item(), tbend.item(), tthird.item()]
by_school = [1 - y * y, -2 * y * (1 - y * y), (6 * y * y - 2) * (1 - y * y)]
for name, row in {"by hand": by_hand, "tinygrad_opt": in_the_library, "by school": by_school}.items():
    print(f"{name:<13}", *(f"{number:10.6f}" for number in row))

# %% [markdown]
# The library's word for `record` is `create_graph`. Its slope is a result like any other, so it can be drawn.

# %%
tg.lab.draw_graph(tslope, names={"x": tx})

# %% [markdown]
# White is the function. Green is what the walk back computed: $y \cdot y$, then $1 - y^2$, times the 1 that the walk
# began with. The gradients in the boxes are those *of the slope*, so that at `x` you read the second derivative.
#
# Everything that needs curvature comes out of this: Newton's method in notebook 09, and gradients through whole
# training runs in notebook 12.
#
# ## Exercises
#
# Change the cell, run it again, and read what the check says.
#
# **1. Teach your tape `exp`.** The product is wrong on purpose.

# %%
@primitive(lambda g, y, x: g)
def exp(x):
    return np.exp(x)


def check_exp(exp):
    x = Array(np.array([0.3, -1.0]))
    slope = gradients(total(exp(x)), record=True)[x]
    wanted = np.exp(x.value)
    if not np.allclose(slope.value, wanted):
        print(f"not yet: at {x.value} the slopes are {wanted}, yours are {slope.value}")
    elif not np.allclose(gradients(total(slope))[x], wanted):
        print("nearly: the slope is right, but hides from the tape. Say it with y, without NumPy")
    else:
        print("right, and so is its second derivative")


check_exp(exp)

# %% [markdown]
# **2. Who is wrong?** One of these four has a wrong gradient. Do not search by eye: hand one after the other to
# `check`. Then mend its product.

# %%
softplus = tg.primitive(lambda g, y, x: g * tg.sigmoid(x))(lambda x: np.log1p(np.exp(x)))
cauchy = tg.primitive(lambda g, y, x: -2 * g * x * y * y)(lambda x: 1 / (1 + x * x))
swish = tg.primitive(lambda g, y, x: g * tg.sigmoid(x))(lambda x: x / (1 + np.exp(-x)))
arsinh = tg.primitive(lambda g, y, x: g / tg.sqrt(1 + x * x))(lambda x: np.arcsinh(x))


def check(op):
    try:
        tg.check_grads(op, points)
        print("its gradients are right")
    except AssertionError as error:
        print(f"wrong: {error}")


check(softplus)

# %% [markdown]
# ## Solutions
#
# 1. The slope of $e^x$ is $e^x$, and that is `y`.
# 2. It is `swish`. $x\,\sigma(x)$ is a product, and only one half of the product rule was written. The other is
#    $x\,\sigma'(x) = x\,\sigma(x)(1 - \sigma(x)) = y\,(1 - \sigma(x))$.

# %%
exp = primitive(lambda g, y, x: g * y)(np.exp)
check_exp(exp)

guilty = []
for name, op in {"softplus": softplus, "cauchy": cauchy, "swish": swish, "arsinh": arsinh}.items():
    try:
        tg.check_grads(op, points)
    except AssertionError:
        guilty.append(name)
print("wrong:", *guilty)

mended = tg.primitive(lambda g, y, x: g * (tg.sigmoid(x) + y * (1 - tg.sigmoid(x))))(lambda x: x / (1 + np.exp(-x)))
check(mended)

# %% [markdown]
# ## What you know now
#
# - A gradient is bookkeeping: multiply along each way back, add where ways meet.
# - Visit each number once, after everything that was made from it. Every way on its own takes forever, and the wrong
#   order gives wrong numbers without a word.
# - Back costs a walk for each *result*, forward a walk for each *input*. A loss is one result: with its gradient it is
#   the price of three runs.
# - No Jacobian is ever made. An operation brings its vector-Jacobian product, and the tape keeps what this mentions.
# - A gradient that is written in the tape's own operations can be differentiated again.
# - Trust no gradient that `tg.check_grads` has not seen.

# %%
a, b = Number(2.0), Number(3.0)
slopes = backward(a * b + sin(a))
assert np.allclose([slopes[a], slopes[b]], nudged(f, [2.0, 3.0]))           # where ways meet, they add
assert counts[10] == 2 ** 11 - 1                                            # every way on its own
x = Number(1.0)
y = doubled(x, 60)
assert len(in_order(y)) == 61 and backward(y)[x] == 2.0 ** 60               # each number once
assert math.isclose(right - hasty, 0.7 * math.cos(0.7))                     # the wrong order loses a part
assert math.isclose(deep, deep_by_library, rel_tol=1e-9)
assert walks[100] == (399, 39_900)                                          # forward pays for each input
back, ahead = multiplications(784, 784)
assert back == ahead                                                        # even, with as many results as inputs
assert np.allclose(found[w1], by_library[tw1].numpy(), rtol=1e-10)          # your tape and the library's
kept = {operation.name: operation.kept for operation in tape.operations}
assert kept["tanh"] == ("result",) and kept["sum"] == kept["sub"] == ()
assert "order 2" in complaint                                               # a right slope that hides from the tape
assert np.allclose(by_hand, by_school) and np.allclose(in_the_library, by_school)
assert guilty == ["swish"]
tg.check_grads(mended, points)

# %% [markdown]
# Next: [The training loop](02_the_training_loop.ipynb), where such gradients move the weights of a network.
