"""
Honest landscapes
=================

A picture of a loss over a plane shows little of a space with hundreds of directions. The plane of the path itself says
how much of the movement it captures, and a random plane is drawn beside it.
"""

import tinygrad_opt as tg

tg.manual_seed(0)
x, y = tg.data.moons(200, noise=0.1, generator=0)
model = tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.Tanh(), tg.nn.Linear(16, 2))
trace = tg.lab.record("adam", model, 150, data=(x, y), loss=tg.cross_entropy, lr=0.03)
plane = tg.lab.path_plane(trace, model, (x, y), tg.cross_entropy, points=25, generator=0)
figure = plane.draw()

# %%
# What the model has learned:

figure = tg.lab.draw_decision(model, x, y)
