"""
Learning rates: found and scheduled
===================================

A range test trains for some steps while the rate grows, and puts everything back. Schedules are functions that can be
multiplied and joined.
"""

import tinygrad_opt as tg

tg.manual_seed(0)
train, test = tg.data.digits()
model = tg.nn.Sequential(tg.nn.Linear(64, 64), tg.nn.ReLU(), tg.nn.Linear(64, 10))
found = tg.lab.lr_find(model, tg.data.DataLoader(train, 64, shuffle=True, generator=0), tg.cross_entropy, "adamw")
print(found)
figure = found.draw()

# %%
# The same peak, and the same end but for the steps:

schedule = tg.optim.schedule
figure = tg.lab.draw_schedule({
    "warm-up and cosine": schedule.warmup(100) >> schedule.cosine(900),
    "warm-up, stable, decay": schedule.wsd(100, 600, 300),
    "one cycle": schedule.one_cycle(1000),
    "a third every 300 steps": schedule.step(300, 1 / 3),
}, 1000)
