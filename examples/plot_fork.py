"""
Undo, and try the other way
===========================

A training run forks: the same batches again, with one option changed, and the difference of the two.
"""

import tinygrad_opt as tg

tg.manual_seed(0)
x, y = tg.data.moons(200, noise=0.2, generator=0)
model = tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.Tanh(), tg.nn.Linear(16, 2))
optimizer = tg.optim.Adam(model.named_parameters(), lr=0.02)
tg.lab.record(optimizer, model, 30, data=(x, y), loss=tg.cross_entropy)

fork = tg.lab.fork(optimizer, model, 100, data=(x, y), loss=tg.cross_entropy, betas=(0.0, 0.999))
figure = fork.draw()
fork
