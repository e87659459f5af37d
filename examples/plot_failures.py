"""
The failure gallery
===================

Optimizers fail in ways that are known. Each of these is run, asserted to fail as it is told, cured, and asserted to be
well: if one of them stopped failing, this page could not be built.
"""

import tinygrad_opt as tg

for name, title in tg.lab.failures().items():
    print(f"{name:<12} {title}")

# %%

reddi_failure = tg.lab.failure("reddi")
figure = reddi_failure.draw()
reddi_failure

# %%

adagrad_failure = tg.lab.failure("adagrad")
figure = adagrad_failure.draw()
adagrad_failure

# %%

momentum_failure = tg.lab.failure("momentum")
figure = momentum_failure.draw()
momentum_failure

# %%

l2_failure = tg.lab.failure("l2")
figure = l2_failure.draw()
l2_failure

# %%

zero_grad_failure = tg.lab.failure("zero_grad")
figure = zero_grad_failure.draw()
zero_grad_failure

# %%

schedule_failure = tg.lab.failure("schedule")
figure = schedule_failure.draw()
schedule_failure

# %%

float16_failure = tg.lab.failure("float16")
figure = float16_failure.draw()
float16_failure

# %%

rmsprop_start_failure = tg.lab.failure("rmsprop_start")
figure = rmsprop_start_failure.draw()
rmsprop_start_failure

# %%

nesterov_failure = tg.lab.failure("nesterov")
figure = nesterov_failure.draw()
nesterov_failure

# %%

plateau_failure = tg.lab.failure("plateau")
figure = plateau_failure.draw()
plateau_failure

# %%

lion_failure = tg.lab.failure("lion")
figure = lion_failure.draw()
lion_failure

# %%

cliff_failure = tg.lab.failure("cliff")
figure = cliff_failure.draw()
cliff_failure
