"""
Inside a training run
=====================

A monitor looks at a model every few steps: what its layers give, how large its gradients are, how far the weights move
for their size, and how sharp the loss is. The run is, to the bit, the one that would have been without it.
"""

import tinygrad_opt as tg

tg.manual_seed(0)
(train, test) = tg.data.digits()
model = tg.nn.Sequential(tg.nn.Linear(64, 64), tg.nn.ReLU(), tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
optimizer = tg.optim.AdamW(model.parameters(), lr=3e-3)
images, labels = train.tensors
with tg.lab.Monitor(model, optimizer, every=4, sharpness=(tg.cross_entropy, images[:512], labels[:512]),
                    sharpness_every=3) as monitor:
    for x, y in tg.data.DataLoader(train, 32, shuffle=True, generator=0):
        optimizer.zero_grad()
        loss = monitor.loss(tg.cross_entropy(model(x), y))
        loss.backward()
        optimizer.step()

figure = monitor.draw()

# %%
# In words:

print(monitor.table())
