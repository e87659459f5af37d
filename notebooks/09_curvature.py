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
# # Curvature
#
# Gradient descent knows the slope where it stands. A method that knows how the slope *changes* knows more: how far to
# go. What does that knowledge cost, where does it mislead, and when is it worth its price? From Newton's method over
# Gauss-Newton and the natural gradient to K-FAC, and pictures of a loss to end with.
#
# You need notebook 03: eigenvectors, curvatures, the condition number.

# %%
import time

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## Newton's method
#
# Fit a parabola to the loss where you stand, from the gradient $g$ and the **Hessian** $H$, the matrix of second
# derivatives, and jump to its minimum: $w \leftarrow w - H^{-1} g$.
#
# **Guess.** Gradient descent needs some 700 steps on the ravine with a condition number of 100. And Newton? And on
# the chain of 20 weights, where news travel one link a step?

# %%
my_guess = 20                                       # put your own here


def newton(function, start, steps):
    path = [np.array(start, dtype="float64")]
    for _ in range(steps):
        w = tg.tensor(path[-1].copy(), requires_grad=True)
        g, = tg.grad(function(w), w)
        path.append(path[-1] - np.linalg.solve(tg.autograd.hessian(function, w).numpy(), g.numpy()))
    return np.array(path)


for name in ("ravine", "chain"):
    surface = tg.lab.surface(name)
    after = newton(surface.function, surface.start, 1)[1]
    print(f"{name}: furthest from the minimum after one step {abs(after - surface.minima[0]).max():.1e}, "
          f"moved: {np.count_nonzero(after - surface.start)} of {surface.dimensions}")

# %% [markdown]
# One step, on both. A quadratic *is* its parabola, whatever its condition number. And the light cone is broken:
# $H^{-1}$ connects everything with everything.
#
# **Guess.** Rosenbrock's valley is no quadratic. Does the loss fall in every step?

# %%
rosenbrock = tg.lab.surface("rosenbrock")
valley = newton(rosenbrock.function, rosenbrock.start, 8)
print("  ".join(f"{float(rosenbrock(w)):.3g}" for w in valley))

# %% [markdown]
# It does not: from 6 it jumps to 752. Then it is at the minimum after seven steps, and the last of them take the loss
# from $10^{-7}$ to $10^{-12}$ to 0: near a minimum each step *doubles* the number of correct digits.
#
# Newton is splendid near a minimum. Everything else about second-order methods is what to do elsewhere.
#
# ## Where it fails
#
# **Far away.** $f(w) = \sqrt{1 + w^2}$ is a bowl with straight sides. **Guess**: from 0.9 and from 1.1, where does
# Newton go?

# %%
def bowl(w):
    return ((1 + w ** 2) ** 0.5).sum()


print("from 0.9:", newton(bowl, [0.9], 5).ravel().round(4))
print("from 1.1:", newton(bowl, [1.1], 5).ravel().round(4))

line = np.linspace(-2.6, 2.6, 200)
with styled():
    fig = figure(9.5, 3.4)
    for axes, w in zip(fig.subplots(1, 2, sharey=True), (0.8, 1.3)):
        value, slope, curvature = (1 + w * w) ** 0.5, w / (1 + w * w) ** 0.5, (1 + w * w) ** -1.5
        axes.plot(line, (1 + line ** 2) ** 0.5, label="the loss")
        axes.plot(line, value + slope * (line - w) + curvature * (line - w) ** 2 / 2, "--", color="#D55E00",
                  label=f"its parabola at {w}")
        axes.plot([w, -w ** 3], [value, (1 + w ** 6) ** 0.5], "o", color="#333333")
        axes.annotate("", (-w ** 3, (1 + w ** 6) ** 0.5), (w, value), arrowprops={"arrowstyle": "->"})
        axes.set(ylim=(0.2, 3), title=f"from {w} to {-w ** 3:.2f}")
        axes.legend(fontsize=9, loc="upper center")
fig

# %% [markdown]
# A step takes $w$ to $-w^3$. Below 1 that falls faster than anything; above 1 it explodes. Where the curvature fades
# outwards, the parabola that fits *here* is too flat, and its minimum is too far away.
#
# **At a saddle.** $f = x^2 - y^2 + y^4/4$ has two minima at $y = \pm\sqrt 2$ and a saddle at 0. Newton looks for a
# point without a slope, and a saddle is one:

# %%
saddle, start = tg.lab.surface("saddle"), np.array([-1.5, 0.3])
print("by hand:", newton(saddle.function, start, 6)[-1].round(6), "  the Hessian's eigenvalues there:",
      np.linalg.eigvalsh(tg.autograd.hessian(saddle.function, tg.tensor(np.zeros(2))).numpy()))
escapes = {"NewtonCG": tg.lab.record("NewtonCG", saddle, 12, start=start, max_iter=1),
           "TrustRegion": tg.lab.record("TrustRegion", saddle, 12, start=start, max_iter=1)}
tg.lab.draw_contour(saddle, escapes)

# %% [markdown]
# Along a negative curvature the parabola has a *maximum*, and Newton climbs to it. The two methods that you see get
# away, and they are the two cures for both failures:
#
# - **Line search**: take Newton's direction where it leads down (and another where the curvature is negative), and try
#   step lengths until the loss has fallen by enough. `NewtonCG` does this.
# - **Trust region**: believe the parabola within a radius only. Minimise it there. If the loss fell as foretold, the
#   radius grows, otherwise it shrinks and the step is taken back. `TrustRegion` does that, and keeps a diary:

# %%
w = tg.tensor(rosenbrock.start.copy(), requires_grad=True)
optimizer = tg.optim.TrustRegion([w], max_iter=12)
optimizer.step(lambda: rosenbrock(w))
print(optimizer.report)

# %% [markdown]
# Read "refused", and the radius that shrinks after it and grows again. The loss never rises.
#
# ## Curvature without the Hessian
#
# A network with a million weights has a Hessian of $10^{12}$ numbers. Nobody writes that down. But methods need only
# its *product* with a vector, and $H v$ is the derivative of the number $g \cdot v$: a gradient of a gradient.
#
# **Guess.** How many gradients does one product cost, and how does that grow with the number of weights?

# %%
my_guess = "as many as there are weights"

images, labels = tg.data.digits()[0].tensors
some_images, some_labels = images[:512], labels[:512]


def make_model(hidden=32):
    tg.manual_seed(0)
    return tg.nn.Sequential(tg.nn.Linear(64, hidden), tg.nn.Tanh(), tg.nn.Linear(hidden, 10))


def seconds(call, times=15):
    found = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return min(found[1:])


for hidden in (8, 32, 128):
    problem = tg.autograd.Problem.of_model(make_model(hidden), tg.cross_entropy, some_images, some_labels)
    P = problem.parameters
    v = [tg.randn(*p.shape) for p in P]
    once, product = seconds(lambda: tg.grad(problem(*P), list(P))), seconds(lambda: tg.hvp(problem, P, v))
    n = sum(p.numel() for p in P)
    print(f"{n:6} weights, Hessian of {n * n:12} numbers: a product takes {product / once:.1f} gradients")

# %% [markdown]
# A handful, whatever the size. With products alone, the method of **conjugate gradients** solves $H d = g$, and takes
# as many of them as $H$ has *different* eigenvalues.
#
# **Guess.** 100 weights, with only the curvatures 1, 10 and 100 among them. How many products for Newton's step?

# %%
curvatures = np.repeat([1.0, 10.0, 100.0], [50, 30, 20])
w = tg.tensor(np.ones(100), requires_grad=True)
optimizer = tg.optim.NewtonCG([w], max_iter=1, forcing=1e-6)        # how exactly H d = g is to be solved
optimizer.step(lambda: (tg.tensor(curvatures) * w ** 2).sum() / 2)
cg = optimizer.report.products
print(f"{cg} products, then the furthest weight is {abs(w.numpy()).max():.1e} from the minimum")

# %% [markdown]
# Three. That is why eigenvalues in few clusters are a blessing. So what do the eigenvalues of a network look like?
#
# ## The spectrum
#
# First a network so small that its Hessian fits: two moons, 82 weights, trained for 150 steps of Adam.

# %%
x, y = tg.data.moons(256, noise=0.2, generator=0)
tg.manual_seed(0)
small = tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.Tanh(), tg.nn.Linear(16, 2))
training = tg.lab.record("Adam", small, 150, data=(x, y), loss=tg.cross_entropy, lr=0.05)

problem = tg.autograd.Problem.of_model(small, tg.cross_entropy, x, y)
blocks = tg.autograd.hessian(problem, problem.parameters)
H = np.block([[block.numpy().reshape(p.numel(), -1) for block in row] for p, row in zip(problem.parameters, blocks)])
exact = np.linalg.eigvalsh(H)
largest, _ = tg.autograd.power_iteration(problem, problem.parameters, k=3, generator=tg.Generator(0))
spectrum = tg.autograd.lanczos_spectrum(problem, problem.parameters, steps=40, samples=8, sigma=0.004,
                                        generator=tg.Generator(0))
with styled():
    fig = figure(8.5, 3.6)
    axes = fig.subplots()
    axes.hist(exact, bins=np.linspace(-0.02, 1.02, 150), density=True, color="#56B4E9",
              label="all 82, from the Hessian")
    axes.plot(spectrum.grid.numpy(), spectrum.density.numpy(), color="#D55E00", linewidth=1.2,
              label="density by Lanczos, from products")
    axes.set(yscale="log", ylim=(1e-2, 500), xlabel="curvature", title="spectrum of a small network")
    axes.legend()
print("three largest, exact:", exact[:-4:-1].round(4), "  by power iteration:", largest.numpy().round(4))
print(f"share below a hundredth of the largest: {(abs(exact) < 0.01 * exact[-1]).mean():.0%}, "
      f"negative ones: {(exact < 0).sum()}")
fig

# %% [markdown]
# **Power iteration** multiplies a vector by $H$ again and again, until only the steepest direction is left of it.
# **Lanczos** draws the whole density from 40 products for each of 8 random vectors. Both agree with the matrix that
# they never formed.
#
# And the shape: nine tenths of all directions are flat, a handful is steep, and some are slightly negative. The
# condition number of a network is not large, it does not exist. All networks look like this (Sagun et al., 2017;
# Ghorbani et al., 2019). Here is one of 2410 weights, whose Hessian you would not want to see, after ten steps:

# %%
model = make_model()
adam = tg.optim.Adam(model.parameters(), lr=0.02)
for _ in range(10):
    adam.zero_grad()
    tg.cross_entropy(model(some_images), some_labels).backward()
    adam.step()
problem = tg.autograd.Problem.of_model(model, tg.cross_entropy, some_images, some_labels)
wide = tg.autograd.lanczos_spectrum(problem, problem.parameters, steps=40, samples=2, generator=tg.Generator(0))
values, weights = wide.values.numpy(), wide.weights.numpy()
near = weights[abs(values) < 0.05 * values[-1]].sum()
with styled():
    fig = figure(8.5, 3.4)
    axes = fig.subplots()
    axes.plot(wide.grid.numpy(), wide.density.numpy())
    axes.set(yscale="log", ylim=(1e-5, None), xlabel="curvature", title="spectrum of a network of 2410 weights")
print(f"share of the directions within a twentieth of the largest curvature around 0: {near:.1%}")
fig

# %% [markdown]
# ## Least squares: Gauss-Newton
#
# Curve fitting is where curvature pays most. These 14 measurements, volume against pressure, are the problem Misra1a of
# NIST's reference data, to be fitted by $b_1 (1 - e^{-b_2 x})$. The start is (500, 0.0001), and NIST's certified answer
# is (238.94212918, 0.00055015643181).
#
# **Guess.** Can Adam do it, with a good learning rate?

# %%
my_guess = "yes, in some hundred steps"

table = np.array([[10.07, 77.6], [14.73, 114.9], [17.94, 141.1], [23.93, 190.8], [29.61, 239.9], [35.18, 289.0],
                  [40.02, 332.8], [44.82, 378.4], [50.76, 434.8], [55.05, 477.3], [61.01, 536.8], [66.40, 593.1],
                  [75.47, 689.1], [81.78, 760.0]])
volume, pressure = (tg.tensor(column.copy()) for column in table.T)
certified, far = np.array([238.94212918, 0.00055015643181]), np.array([500.0, 0.0001])


def residuals(b):
    return b[0] * (1 - tg.exp(-b[1] * pressure)) - volume


def half_squares(b):
    return (residuals(b) ** 2).sum() / 2


for lr in (1.0, 1e-2, 1e-4):
    run = tg.lab.record("Adam", half_squares, 500, start=far, lr=lr)
    print(f"Adam, lr {lr:<6g} ends at b = ({run.path[-1, 0]:.3f}, {run.path[-1, 1]:.5f}), loss {run.loss[-1]:.2g}")

H = tg.autograd.hessian(half_squares, tg.tensor(certified)).numpy()
J = tg.autograd.jacobian(residuals, tg.tensor(certified)).numpy()
print(f"condition number at the minimum {np.linalg.cond(H):.1e};  the Hessian and J'J differ by "
      f"{abs(J.T @ J - H).max() / abs(H).max():.0e} of it")

# %% [markdown]
# No. At best it finds the $b_2$ that suits a $b_1$ of 500, and $b_1$ stays where it is: one parameter is half a
# million times the other, and the condition number is above $10^{13}$. But look at the last line. The loss is
# $\frac12 \sum r_i^2$, and its Hessian is $J^\top J$, with the Jacobian $J$ of the residuals, plus terms with the
# residuals as factors. Where the fit is good, these are small. **Gauss-Newton** leaves them out: linearise the
# residuals, and solve the *linear* least squares $\min_\delta |J\delta + r|$. First derivatives are enough.

# %%
def gauss_newton(b, steps):
    for _ in range(steps):
        b = b - np.linalg.lstsq(tg.autograd.jacobian(residuals, tg.tensor(b)).numpy(),
                                residuals(tg.tensor(b)).numpy(), rcond=None)[0]
    return b


print("by hand from near:", gauss_newton(np.array([250.0, 0.0005]), 6))
print("by hand from far, after one step:", gauss_newton(far, 1), "  loss",
      f"{half_squares(tg.tensor(gauss_newton(far, 1))).item():.1e}")
b = tg.tensor(far.copy(), requires_grad=True)
fit = tg.optim.GaussNewton([b])
fit.step(lambda: residuals(b))
print("tg.optim.GaussNewton from far:", b.numpy())
print("\n".join(str(fit.report).splitlines()[:9]))

# %% [markdown]
# From near, six steps find all the digits. From far, the first whole step makes $b_1$ negative and the loss explodes:
# it is Newton's failure again, and the cure is a trust region (Levenberg and Marquardt). The library's way from far
# takes 23 evaluations of the residuals and 13 Jacobians; its log shows which steps were refused. And the *units* of the
# parameters, on which Adam broke down, did not matter.
#
# ## The natural gradient
#
# A classifier has no residuals, but a likelihood, and the same idea works: linearise the *outputs*, keep the curvature
# of the loss as a function of the outputs. That is the generalised Gauss-Newton matrix. For a likelihood it is the
# **Fisher information**, which measures how much the predictions change. The direction $F^{-1} g$ is the natural
# gradient.
#
# **Guess.** Three matrices: Hessian, Gauss-Newton, Fisher. Which of them are equal for a linear model with
# cross-entropy, and which for a network?

# %%
def products(model):
    tg.manual_seed(1)
    problem = tg.autograd.Problem.of_model(model, tg.cross_entropy, some_images, some_labels)
    P, v = problem.parameters, [tg.randn(*p.shape) for p in problem.parameters]
    found = {"Hessian": tg.hvp(problem, P, v), "Gauss-Newton": tg.autograd.ggn_vp(problem, P, v),
             "Fisher": tg.autograd.fisher_vp(problem, P, v),
             "empirical Fisher": tg.autograd.fisher_vp(problem, P, v, "empirical")}
    return {name: np.concatenate([part.numpy().reshape(-1) for part in parts]) for name, (_, parts) in found.items()}


apart = {}
for title, net in (("linear", tg.nn.Linear(64, 10)), ("network", make_model())):
    found = products(net)
    F = found["Fisher"]
    apart[title] = {name: np.linalg.norm(Hv - F) / np.linalg.norm(F) for name, Hv in found.items()}
    print(f"{title:8}", "   ".join(f"{name}: {difference:.1e}" for name, difference in apart[title].items()))

# %% [markdown]
# The numbers are distances from the Fisher's product. Gauss-Newton and Fisher are the same matrix. For a linear model
# the Hessian is that, too; for a network it is not, for it also holds the curvature of the outputs, and may be negative
# where the Fisher information never is. The "empirical Fisher", squares of gradients with the true labels, is cheap and
# something else (Kunstner et al., 2019).
#
# What is it good for? **Guess**: measure one input in millimetres in place of centimetres, the other in metres. Does
# the training change?

# %%
points, classes = x.numpy().astype("float64"), tg.tensor(y.numpy().astype("float64")[:, None])


def logits_after(make_optimizer, scale, steps=5):
    model = tg.nn.Linear(2, 1, dtype="float64")
    for p in model.parameters():
        tg.nn.init.zeros_(p)
    optimizer, inputs = make_optimizer(model), tg.tensor(points * scale)

    def closure():
        optimizer.zero_grad()
        loss = tg.nn.functional.binary_cross_entropy_with_logits(model(inputs), classes)
        loss.backward()
        return loss

    for _ in range(steps):
        loss = optimizer.step(closure)
    return model(inputs).numpy(), loss.item()


makers = {"SGD": lambda model: tg.optim.SGD(model.parameters(), lr=0.5),
          "Adam": lambda model: tg.optim.Adam(model.parameters(), lr=0.1),
          "NaturalGradient": lambda model: tg.optim.NaturalGradient(model, lr=1, damping=0, likelihood="bernoulli")}
units = {}
for name, maker in makers.items():
    (plain, loss), (scaled, other) = logits_after(maker, [1, 1]), logits_after(maker, [10, 0.1])
    units[name] = abs(plain - scaled).max()
    print(f"{name:16} loss {loss:.4f}, in other units {other:.4f}; largest difference of the outputs {units[name]:.1e}")

# %% [markdown]
# To the natural gradient it is the same, to the last digits: it steps in the space of *predictions*, and these have no
# units. To SGD and Adam it is another problem.
#
# ## K-FAC: for networks
#
# Conjugate gradients with the Fisher information cost many products a step. **K-FAC** (Martens & Grosse, 2015) takes
# the Fisher of each layer as the Kronecker product of two small matrices, one of its inputs and one of its output
# gradients, whose inverses are cheap.
#
# **Guess.** The network of 2410 weights on all 1442 digits, in each step, until the loss is below 0.01. Adam
# gets the best of three rates. Who needs fewer steps, and who is done first on the clock?

# %%
def train(make_optimizer, most=300, goal=0.01):
    model = make_model()
    optimizer, losses, begin = make_optimizer(model), [], time.perf_counter()
    gradients = 0

    def closure():
        optimizer.zero_grad()
        loss = tg.cross_entropy(model(images), labels)
        if not isinstance(optimizer, tg.optim.KFAC):
            loss.backward()
        return loss

    while len(losses) < most and (not losses or losses[-1] > goal):
        losses.append(optimizer.step(closure).item())
        report = getattr(optimizer, "report", None)
        gradients += 1 if report is None else max(report.functions, report.gradients) + report.products
    return losses, time.perf_counter() - begin, gradients


contestants = {f"Adam, lr {lr}": (lambda model, lr=lr: tg.optim.Adam(model.parameters(), lr=lr))
               for lr in (0.05, 0.1, 0.2)}
contestants["K-FAC"] = tg.optim.KFAC
fights = {}
for name, maker in contestants.items():
    train(maker, most=3)                            # what is compiled is compiled now
    fights[name] = min((train(maker) for _ in range(2)), key=lambda run: run[1])
    losses, took, gradients = fights[name]
    print(f"{name:14} {len(losses):4} steps   {gradients:4} gradients and products   {1000 * took:6.1f} ms")

best = min((name for name in fights if name.startswith("Adam")), key=lambda name: len(fights[name][0]))
with styled():
    fig = figure(6.6, 3.8)
    axes = fig.subplots()
    for name, look in looks((best, "K-FAC")).items():
        axes.plot(fights[name][0], color=look.color, linestyle=look.linestyle, label=name)
    axes.set(yscale="log", xlabel="step", title="loss on the digits")
    axes.legend()
fig

# %% [markdown]
# K-FAC needs a quarter of the steps, and no rate to tune. Count gradients and products, and the two are about level. On
# the clock, which differs between machines, neither is clearly ahead on so small a network, since K-FAC's steps also
# measure, invert and check. It gains on deep narrow networks, on large batches (its factors are estimates, and need
# many samples), and where a gradient is dear beside the algebra. "Fewer steps" alone is no argument.
#
# ## A race, paid by the gradient
#
# **L-BFGS** guesses the curvature from the last gradients: how they changed along the last steps. It takes no product
# at all. SciPy's needs 44 evaluations on Rosenbrock from the usual start (-1.2, 1), and BFGS, which keeps the whole
# matrix, 39. **Guess** the order from our start, when each may spend 200 gradients and a product counts as one.

# %%
race = tg.lab.race({"L-BFGS": ("LBFGS", {"max_iter": 1, "line_search_fn": "strong_wolfe"}),
                    "Newton-CG": ("NewtonCG", {"max_iter": 1, "forcing": 0}),
                    "trust region": ("TrustRegion", {"max_iter": 1}),
                    "Adam": "Adam", "momentum 0.9": ("SGD", {"momentum": 0.9})}, "rosenbrock", steps=200)
print(race)

usual = tg.lab.record("LBFGS", "rosenbrock", 1, start=np.array([-1.2, 1.0]), max_iter=100,
                      line_search_fn="strong_wolfe")
print(f"\nL-BFGS from (-1.2, 1), in one call: {usual.evaluations[0]} evaluations to a loss of {usual.loss[1]:.1e}")
race.draw()

# %% [markdown]
# The three that use curvature end below $10^{-9}$, the two that do not are near $10^{-2}$. The price is in the table,
# in the column "gradients" beside "steps": look at `trace.evaluations` before you believe a curve against steps.
# (Another price is that all three need all data in each step: noise spoils the differences that they live on.)
#
# ## Pictures of a loss, and what they show
#
# 82 weights, two axes of a picture. Through the end of the training from above there are very many planes. Here are the
# one that the path itself chose (its two principal directions) and a random one.
#
# **Guess.** How much of the path's movement does a random plane show?

# %%
plane = tg.lab.path_plane(training, small, (x, y), tg.cross_entropy, points=25, generator=tg.Generator(0),
                          progress=False)
plane.draw()

# %% [markdown]
# A few percent. In the random plane the path hardly moves, in a valley that it never walked along. The plane at the
# left shows nearly all of *where* the path went, but little more than half of its single steps: the rest goes to and
# fro in other directions. No picture of a landscape should be shown without such a number.
#
# ## Exercises
#
# Change a cell and run it again: its last line is the checker. Solutions are at the end.
#
# **1. A product without second derivatives.** Estimate $H v$ from two gradients. What stands here is right for a
# quadratic only.

# %%
def my_product(gradient, w, v):
    return gradient(w + v) - gradient(w)


def check_product(product):
    def gradient(w):
        point = tg.tensor(np.array(w), requires_grad=True)
        return tg.grad(rosenbrock(point), point)[0].numpy()
    for v in ([1e-6, 2e-6], [1.0, -2.0], [300.0, 100.0]):
        right = tg.hvp(rosenbrock.function, tg.tensor(rosenbrock.start), np.array(v))[1].numpy()
        error = abs(product(gradient, rosenbrock.start, np.array(v)) - right).max() / abs(right).max()
        if error > 1e-5:
            return f"v = {v}: off by {error:.1e} of the product"
    return "solved"


check_product(my_product)

# %% [markdown]
# **2. Downhill, always.** Return a direction that is Newton's where the Hessian is positive definite, and leads
# downhill where it is not. (`np.linalg.eigh` gives eigenvalues and eigenvectors.)

# %%
def my_direction(g, H):
    return -np.linalg.solve(H, g)


def check_direction(direction):
    g = np.array([1.0, 2.0])
    for H in ([[3.0, 1.0], [1.0, 2.0]], [[2.0, 0.0], [0.0, -1.0]], [[-3.0, 1.0], [1.0, -2.0]]):
        d, H = direction(g, np.array(H)), np.array(H)
        if np.linalg.eigvalsh(H)[0] > 0 and not np.allclose(H @ d, -g):
            return f"H = {H.tolist()} is positive definite, and {d} is not Newton's direction"
        if g @ d >= 0:
            return f"H = {H.tolist()}: {d} leads uphill, the slope along it is {g @ d:.2f}"
    return "solved"


check_direction(my_direction)

# %% [markdown]
# **3. Power iteration.** Find the eigenvalue that is largest in size, with its sign, from products alone.

# %%
def my_largest(product, n, iterations=200):
    v = np.ones(n)
    for _ in range(iterations):
        v = product(v) / np.linalg.norm(v)
    return np.linalg.norm(v)


def check_largest(largest):
    for matrix in (np.diag([5.0, 1.0, -2.0]), np.diag([1.0, -6.0, 2.0])):
        found, right = largest(matrix.__matmul__, 3), np.diag(matrix)[abs(np.diag(matrix)).argmax()]
        if not abs(found - right) < 1e-6:
            return f"of {np.diag(matrix).tolist()} it finds {found:.4g}"
    return "solved"


check_largest(my_largest)

# %% [markdown]
# ## Solutions
#
# 1\. A difference over a *short* way, to both sides: its error is the square of its length; and the length must not
# depend on that of $v$. 2\. The sizes of the eigenvalues in their place (Dauphin et al., 2014). 3\. The quotient
# $v \cdot Hv$ for a $v$ of length 1 has the sign.

# %%
def product_solved(gradient, w, v):
    short = 1e-5 * v / np.linalg.norm(v)
    return (gradient(w + short) - gradient(w - short)) * np.linalg.norm(v) / 2e-5


def direction_solved(g, H):
    values, vectors = np.linalg.eigh(H)
    return -vectors @ ((vectors.T @ g) / abs(values))


def largest_solved(product, n, iterations=200):
    v = np.ones(n)
    for _ in range(iterations):
        v = v / np.linalg.norm(v)
        v, value = product(v), v @ product(v)
    return value


assert check_product(product_solved) == check_direction(direction_solved) == check_largest(largest_solved) == "solved"

# %% [markdown]
# ## What you know now
#
# - Newton's step ends a quadratic at once and doubles the digits near a minimum; far away it overshoots, and it is
#   drawn to saddles. A line search or a trust region is part of the method.
# - A Hessian product costs a few gradients at any size. That is enough for Newton's direction, for the largest
#   eigenvalues and for the whole spectrum: most directions flat, few steep.
# - For sums of squares $J^\top J$ is nearly the Hessian, from first derivatives alone. For likelihoods the same is the
#   Fisher information, and its step does not depend on units.
# - K-FAC and L-BFGS save steps. What that is worth is counted in gradients and on the clock.
# - A plane through a loss shows the share of a path that its number says.

# %%
chain = tg.lab.surface("chain")
assert abs(newton(chain.function, chain.start, 1)[1] - chain.minima[0]).max() < 1e-12
heights = [float(rosenbrock(w)) for w in valley]
assert max(heights) > 10 * heights[0] and heights[-1] < 1e-20
assert np.allclose(newton(bowl, [1.1], 1)[1], -1.1 ** 3) and abs(newton(saddle.function, start, 6)[-1]).max() < 1e-8
assert all(abs(escape.loss[-1] - saddle.lowest) < 1e-6 for escape in escapes.values())
assert cg == 3 and np.allclose(exact[:-4:-1], largest.numpy(), rtol=1e-2)
assert (abs(exact) < 0.01 * exact[-1]).mean() > 0.85 and near > 0.95

assert np.allclose(b.numpy(), certified, rtol=1e-8) and fit.report.functions < 40
assert np.allclose(gauss_newton(np.array([250.0, 0.0005]), 6), certified) and gauss_newton(far, 1)[0] < 0
assert apart["network"]["Gauss-Newton"] < 1e-4 < 0.1 < apart["network"]["Hessian"] and apart["linear"]["Hessian"] < 1e-4
assert units["NaturalGradient"] < 1e-6 < 0.1 < min(units["SGD"], units["Adam"])
assert len(fights["K-FAC"][0]) < len(fights[best][0]) / 3 and 0.5 < fights["K-FAC"][2] / fights[best][2] < 2
assert all(race.reached[name] < 1e-8 < race.reached["Adam"] for name in ("L-BFGS", "Newton-CG", "trust region"))
assert usual.evaluations[0] < 50 and usual.loss[1] < 1e-8
assert plane.variance > 0.9 > 0.2 > plane.beside.variance and 0.3 < plane.movement < 0.8

# %% [markdown]
# Next: `10_large_batches_and_sharpness`, where the steps grow as large as the curvature allows.
