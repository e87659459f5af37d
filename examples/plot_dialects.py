"""
One name, several optimizers
============================

What PyTorch, optax, Keras and MLX call by one name differs in a line, or in a default. The differing lines are found by
comparing the rules.
"""

import tinygrad_opt as tg

dialects = tg.lab.compare_dialects("Adam")
print(dialects)
figure = dialects.draw()
