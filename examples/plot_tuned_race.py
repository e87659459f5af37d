"""
A tuned race
============

Who compares optimizers by their defaults compares the defaults. Here each reads digits for 185 gradients, and may try
out 15 settings of its own before that counts. Then it is judged on five seeds, which divide the images and draw the
first weights anew, and which nobody has been tuned on.
"""

import tinygrad_opt as tg
from tinygrad_opt import tune

contestants = {
    "SGD": ("sgd", {"lr": tune.log(1e-3, 10)}),
    "momentum": ("sgd", {"lr": tune.log(1e-4, 1), "momentum": tune.uniform(0.5, 0.99)}),
    "AdamW": ("adamw", {"lr": tune.log(1e-4, 1), "weight_decay": tune.log(1e-4, 1)}),
    "Lion": ("lion", {"lr": tune.log(1e-5, 0.1), "weight_decay": tune.log(1e-3, 10)}),
}
comparison = tune.compare(contestants, tune.tasks.digits(epochs=5), trials=15, progress=False)
comparison

# %%
# The bands go from quartile to quartile: where they overlap, five seeds do not tell who is better.

figure = comparison.draw()

# %%
# What a search has tried is kept. A method whose good settings lie in a narrow valley is harder to use than its best
# result says.

search = comparison.searches["momentum"]
figure = search.draw()
search

# %%
# Which of the two decides?

for name, share in search.importances().items():
    print(f"{name:<10} {share:.0%}")

# %%
# A search of one's own has an objective, a space and a budget. What reports on its way is ended before it is over when
# others were better by then: so are most of these 40 trials, and the gradients go to those that are worth it.


def objective(trial):
    model = tg.nn.Sequential(tg.nn.Linear(2, trial["width"], generator=tg.Generator(0)), tg.nn.Tanh(),
                             tg.nn.Linear(trial["width"], 2, generator=tg.Generator(1)))
    optimizer = tg.optim.AdamW(model.parameters(), lr=trial["lr"])
    for epoch in range(1, 65):
        optimizer.zero_grad()
        loss = tg.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        trial.spend(1)
        if epoch % 8 == 0:
            trial.report(loss.item(), epoch)
    return loss.item()


x, y = tg.data.moons(200, noise=0.15, generator=0)
space = {"lr": tune.log(1e-4, 1.0), "width": tune.integer(2, 64, log=True)}
search = tune.search(objective, space, trials=40, budget=1000, progress=False)
figure = search.draw()
search
