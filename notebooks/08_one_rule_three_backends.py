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
# # Your own optimizer in a cell
#
# A rule of a few lines becomes an optimizer: compiled on the CPU or the GPU, and printed as a formula. Here is one, and a race against two that are built in.

# %%
import tinygrad_opt as tg
from tinygrad_opt.rule import sign

tg.manual_seed(0)
tg.backend.name


# %% [markdown]
# The arrays are `p` (the parameter), `g` (its gradient) and what the rule returns again (`m`). Everything else is a number.

# %%
@tg.optim.from_rule(lr=1e-3, beta=0.9)
def SignMomentum(p, g, m, lr, beta):
    m = beta * m + (1 - beta) * g
    p = p - lr * sign(m)
    return p, m


# %% [markdown]
# The same text is the formula, and the source of every backend's kernel.

# %%
from IPython.display import Math, display

optimizer = SignMomentum([tg.zeros(3, requires_grad=True)])
display(Math(optimizer.formula()))
print(optimizer.source("numba"))

# %% [markdown]
# Now real handwritten digits: the same network, from the same start, with three optimizers.

# %%
train, test = tg.data.digits()


def losses(make_optimizer, epochs=5):
    tg.manual_seed(0)
    model = tg.nn.Sequential(tg.nn.Linear(64, 64), tg.nn.ReLU(), tg.nn.Linear(64, 10))
    optimizer = make_optimizer(model.parameters())
    seen = []
    for _ in range(epochs):
        for x, y in tg.data.DataLoader(train, batch_size=64, shuffle=True, generator=0):
            optimizer.zero_grad()
            loss = tg.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
    return seen


curves = {
    "SignMomentum": losses(lambda p: SignMomentum(p, lr=2e-3)),
    "SGD, momentum 0.9": losses(lambda p: tg.optim.SGD(p, lr=0.05, momentum=0.9)),
    "Adam": losses(lambda p: tg.optim.Adam(p, lr=3e-3)),
}

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 3.5))
for name, curve in curves.items():
    axes.plot(curve, label=name, linewidth=1)
axes.set(xlabel="step", ylabel="cross-entropy", yscale="log")
axes.legend(frameon=False);

# %% [markdown]
# **Try it.** Replace `sign(m)` by `m / (abs(m) + 1e-3)`: what becomes of the noise at the end? Which line of Lion is missing?

# %%
assert all(curve[-1] < curve[0] / 4 for curve in curves.values())
