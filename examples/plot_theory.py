"""
Theory beside the run
=====================

On a quadratic an optimizer is a linear map, so that its rate, its stability limit and its best numbers can be computed
before the first step. The map is read off the optimizer's own rule.
"""

import tinygrad_opt as tg

theory = tg.lab.analyse("sgd", "ravine", lr=0.015, momentum=0.9)
print(theory)

# %%
# And then measured:

trace = tg.lab.record("sgd", "ravine", 150, lr=0.015, momentum=0.9)
figure = theory.against(trace).draw()

# %%
# Every pair of learning rate and momentum has a rate. Below the best momentum one direction creeps, above it all swing;
# at the right the run diverges. The dotted line is 2 (1 + momentum) / curvature.

figure = tg.lab.rate_map("sgd", curvature=1.0, kappa=20).draw()
