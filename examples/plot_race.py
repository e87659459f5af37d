"""
A fair race
===========

Five optimizers go down Rosenbrock's valley from the same place. Each has the learning rate that is best for it on one
grid, and each may take 200 gradients, of which L-BFGS spends several a step.
"""

import tinygrad_opt as tg

race = tg.lab.race(["sgd", ("sgd", dict(momentum=0.9)), "adam", "lion", "lbfgs"], "rosenbrock", steps=200)
figure = race.draw()
race

# %%
# What each rate reached is kept too. A method that works for one rate in twenty is harder to use than this table tells.

for label, tried in race.tried.items():
    good = [rate for rate, loss in tried.items() if loss < 1]
    print(f"{label:<18} {len(good):2} of {len(tried)} rates come below 1")

# %%
# ``race.to_html("race.html")`` writes a page to scrub through, with the numbers of each step and a new start at a
# click; ``race.to_gif("race.gif")`` a moving picture. On a surface with traps the start decides more than the method.

figure = tg.lab.race(["sgd", "adam", "rmsprop"], "himmelblau", steps=60, start=[-0.27, -0.9]).draw()
