"""
One step under the microscope
=============================

After any step, ``optimizer.explain`` goes through the rule line by line with the numbers of one weight, and tells which
part of its move came from the gradient, from momentum, from decay, from clipping and from the schedule.
"""

import tinygrad_opt as tg

w = tg.tensor([3.0, -1.0], requires_grad=True)
schedule = 0.1 * tg.optim.schedule.cosine(50)
optimizer = tg.optim.AdamW([("w", w)], lr=schedule, weight_decay=0.1, grad_transforms=[tg.optim.ClipNorm(1.0)])
for _ in range(20):
    optimizer.zero_grad()
    loss = (w ** 4).sum() / 4
    loss.backward()
    optimizer.step()

optimizer.explain("w", 0)

# %%
# The same question over a whole run: who moved the parameters?

trace = tg.lab.record("adamw", "booth", 120, lr=0.3, weight_decay=0.05)
movement = tg.lab.who_moved(trace)
figure = movement.draw()
print(movement)
