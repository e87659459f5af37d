"""
The graph of a computation
==========================

Every operation on a Tensor is recorded. Drawn, the record shows values, gradients and shapes, and where the gradient
went.
"""

import tinygrad_opt as tg

x = tg.tensor(2.0)
w = tg.tensor(-0.5, requires_grad=True)
b = tg.tensor(0.3, requires_grad=True)
y = tg.tanh(w * x + b)
y.backward(retain_graph=True)
graph = tg.lab.draw_graph(y, names={"x": x, "w": w, "b": b})

# %%
# A gradient that is itself on the tape has a graph, too: the second derivative of a sine.

t = tg.tensor(0.7, requires_grad=True)
slope, = tg.grad(tg.sin(t), t, create_graph=True)
curvature, = tg.grad(slope, t, create_graph=True)
graph = tg.lab.draw_graph(curvature, names={"t": t})

# %%
# The same as a list, with what each operation costs.

model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
x, y = tg.randn(16, 64, generator=tg.Generator(0)), tg.tensor([3] * 16)
tg.cross_entropy(model(x), y).backward()                        # the first call of a kernel compiles it
with tg.Tape() as tape:
    loss = tg.cross_entropy(model(x), y)
tape.backward(loss)
print(tape)
