# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The training loop
#
# You read a scribbled 7 without effort, and cannot say how. Nobody can write the rule down as a program. Still, here is
# a program of a few lines that reads handwriting after a second of training.
#
# **Which of its lines does the learning?** You will put them together one by one, from the first image to a classifier
# that can be stopped, saved and continued to the bit. On the way you leave out a line that everybody leaves out once,
# and see what that does.

# %%
import os
import tempfile
from collections import Counter

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.lab.style import figure, looks, styled
from tinygrad_opt.nn.functional import cross_entropy

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## The data
#
# Real digits, written by people, scanned to 8 by 8 pixels; 1,442 to learn from and 355 to be examined on. A pixel is a
# number from 0, paper, to 1, ink.

# %%
train, test = tg.data.digits()
x, y = train.tensors
print(x.shape, y.shape, len(test))


def show(pictures, titles, cmap="gray_r", low=0.0, high=1.0):
    """Draw rows of 64 numbers as pictures of 8 by 8."""
    with styled():
        drawn = figure(9.0, 1.3)
        for axes, picture, title in zip(drawn.subplots(1, len(pictures)), pictures, titles):
            axes.imshow(picture.reshape(8, 8), cmap=cmap, vmin=low, vmax=high)
            axes.set_title(title, fontsize=9, loc="center")
            axes.set_axis_off()
    return drawn


firsts = [int(np.flatnonzero(y.numpy() == digit)[0]) for digit in range(10)]
show(x.numpy()[firsts], range(10))

# %% [markdown]
# To the program this is a table: 64 numbers a row, and beside it the name of the digit. From the 64 numbers it shall
# make ten *scores*, one for each name, and the highest wins.
#
# ## Forward: from pixels to a loss
#
# The simplest machine: each score is a sum of all pixels, each with a weight of its own. That is a matrix `W` of 64 by
# 10 and ten offsets `b`, and they begin at 0.
#
# Scores become probabilities by the softmax, $p_k = e^{s_k} / \sum_j e^{s_j}$. The loss is the *cross-entropy*, the
# mean of $-\log p$ of the true name: 0 for who is sure and right, and large for who is sure and wrong.
#
# **Guess.** Before anything was learned, what is the share of right answers? And the loss?

# %%
W, b = tg.zeros(64, 10, requires_grad=True), tg.zeros(10, requires_grad=True)

scores = x @ W + b
p = tg.exp(scores) / tg.exp(scores).sum(axis=1, keepdim=True)
by_hand = -tg.log(p[np.arange(len(y)), y.numpy()]).mean()
loss = cross_entropy(scores, y)


def accuracy(scores, y):
    """Return the share of the samples whose highest score is that of their class."""
    return float((scores.numpy().argmax(axis=1) == y.numpy()).mean())


print(f"loss by hand {by_hand.item():.4f}, in the library {loss.item():.4f}, log 10 is {np.log(10):.4f}")
print(f"right: {accuracy(scores, y):.1%}")

large = tg.tensor([[1000.0, 0.0]])
with np.errstate(all="ignore"):
    naive = -tg.log((tg.exp(large) / tg.exp(large).sum())[0, 1])
print(f"scores of 1000 and 0: by hand {naive.item()}, in the library {cross_entropy(large, tg.tensor([1])).item()}")

# %% [markdown]
# Ten names, all as likely: $-\log \frac{1}{10} = \log 10 = 2.30$. Remember this number. Whenever a classifier of ten
# classes shows a loss of 2.3, it knows nothing.
#
# The last line says why you call the library, when the formula is so short. $e^{1000}$ is too large for a computer, and
# a single such sample spoils all weights. The library takes the highest score out first, and no exponential is above 1.
#
# ## Backward: which way?
#
# `loss.backward()` leaves in `W.grad` how fast the loss grows with each weight. (How that is done is the lesson
# [before this one](01_a_tape_by_hand.ipynb).) With $W = 0$ you can say what it has to be: the gradient at the scores is
# $p$ minus 1 at the true name, and weights collect it from the pixels.

# %%
loss.backward()

truth = np.eye(10, dtype="float32")[y.numpy()]
expected = x.numpy().T @ (p.numpy() - truth) / len(y)
print("as expected:", np.allclose(W.grad.numpy(), expected, atol=1e-6))

downhill = -W.grad.numpy().T
largest = abs(downhill).max()
show(downhill, range(10), "PuOr", -largest, largest)

# %% [markdown]
# Look at the direction *down*, drawn as ten pictures, purple for more and brown for less. They can be read! The one for
# 0 says: ink in a ring, and none in the middle. Each is the mean picture of a digit, minus the mean of all digits.
#
# ## Step
#
# Move every weight a little down: `W -= 0.5 * gradient`. **Guess.** One step. How many of the 355 test images are read
# correctly after it?

# %%
guess = 0.15

W.data -= 0.5 * W.grad.data
b.data -= 0.5 * b.grad.data

test_x, test_y = test.tensors
after_one = accuracy(test_x @ W + b, test_y)
print(f"you said {guess:.0%}, it is {after_one:.1%}; loss {cross_entropy(x @ W + b, y).item():.2f}")

# %% [markdown]
# About nine out of ten, after one step. It is no magic: the machine compares each image with ten mean pictures, and
# that is a decent way to read. The loss hardly moved, though. The scores are in the right order, but close together:
# right, and not sure.
#
# That line, weights minus rate times gradient, is what an *optimizer* is. The library's is the same to the bit.

# %%
U, c = tg.zeros(64, 10, requires_grad=True), tg.zeros(10, requires_grad=True)
optimizer = tg.optim.SGD([U, c], lr=0.5)
cross_entropy(x @ U + c, y).backward()
optimizer.step()

same_step = bool((U.numpy() == W.numpy()).all() and (c.numpy() == b.numpy()).all())
print("the same bits:", same_step)
print(optimizer.formula("text"))


# %% [markdown]
# ## The loop, and the line that is forgotten
#
# Forward, backward, step: repeat. One thing more. In the last lesson gradients were *added* where ways meet, and
# `backward` goes on adding, to what lies in `.grad` already. So there is a fourth line, `optimizer.zero_grad()`.
#
# **Guess.** What happens to the loss if you forget it: nothing, slower, faster, chaos?

# %%
def descend(steps, clear=True, momentum=0.0):
    W, b = tg.zeros(64, 10, requires_grad=True), tg.zeros(10, requires_grad=True)
    optimizer = tg.optim.SGD([W, b], lr=0.5, momentum=momentum)
    losses = []
    for _ in range(steps):
        if clear:
            optimizer.zero_grad()
        loss = cross_entropy(x @ W + b, y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return W.numpy(), losses


cleared, forgotten, momentum_one = descend(60), descend(60, clear=False), descend(60, momentum=1.0)
for name, (_, losses) in {"cleared": cleared, "forgotten": forgotten}.items():
    print(f"{name:<10}", *(f"{loss:6.3f}" for loss in losses[::10]))

# %% [markdown]
# Faster! That is the treacherous part: nothing crashes, and at first it may look *better*.
#
# Think about what is in `.grad`: the sum of all gradients so far. Each step repeats all earlier ones. There is a name
# for that: momentum, here of 1, a ball without any friction. Down a long slope a ball is faster than a walker.

# %%
same_ball = bool((forgotten[0] == momentum_one[0]).all())
print("forgotten, and SGD with momentum=1, the same bits:", same_ball)
tg.lab.failure("zero_grad").draw()

# %% [markdown]
# And this is what a ball without friction does in a bowl: it never comes to rest. A network has slopes and bowls. You
# will see the same mistake there.
#
# ## A network, in batches
#
# Two layers now, and the whole loop. There is no more to it than this: every training script you meet is these lines,
# with more around them.

# %%
def network():
    """Return a network of 64, 32 and 10, always with the same first weights."""
    tg.manual_seed(0)
    return tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))


def fit(model, optimizer, epochs, batch_size=32, clear=True, told=lambda step, loss: None):
    """Train, and return the loss of each step."""
    losses = []
    for images, labels in batches(epochs, batch_size):
        if clear:
            optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)         # forward
        loss.backward()                                     # backward
        optimizer.step()                                    # step
        losses.append(loss.item())
        told(len(losses), losses[-1])
    return losses


def batches(epochs, size):
    """Yield images and labels, all of them once in each epoch, in an order that is shuffled anew."""
    loader = tg.data.DataLoader(train, batch_size=size, shuffle=True, generator=0)
    for _ in range(epochs):
        yield from loader


def judged(model, data):
    """Return the loss and the share of right answers; nothing is recorded for gradients."""
    images, labels = data.tensors
    with tg.no_grad():
        scores = model(images)
        return cross_entropy(scores, labels).item(), accuracy(scores, labels)


model = network()
with tg.lab.LiveCurve(keys=("loss",)) as curve:
    fit(model, tg.optim.SGD(model.parameters(), lr=0.1), epochs=10,
        told=lambda step, loss: curve.add(step, loss=loss))
print("test: loss {:.3f}, right {:.1%}".format(*judged(model, test)))

# %% [markdown]
# A step sees 32 images, not all 1,442, and so the curve trembles: each loss is that of other images. Was that wise?
#
# **Guess.** Ten epochs, that is each image ten times, cost about the same arithmetic however you divide them. In steps
# of all images, or of 8 at a time: which learns more, and by how much?

# %%
learned = {}
for size in (1442, 256, 64, 32, 8):
    model = network()
    steps = len(fit(model, tg.optim.SGD(model.parameters(), lr=0.1), epochs=10, batch_size=size))
    learned[size] = judged(model, train)
    print(f"{size:>5} images a step, {steps:>4} steps: loss {learned[size][0]:.3f}, right {learned[size][1]:.1%}")

# %% [markdown]
# All images at once: ten steps, and it knows next to nothing (2.3, you remember). Eight at a time: 1,810 steps. The
# direction from 8 images is rough, but it is right on average, and 180 rough steps go further than a perfect one.
# Notebook 04 is about how rough it may be.
#
# Now forget `zero_grad` here.

# %%
model = network()
optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
with optimizer.watch() as watch:
    fit(model, optimizer, epochs=10, clear=False)
ruined = judged(model, test)
print("test: loss {:.3f}, right {:.1%}".format(*ruined))
print(watch.report())

# %% [markdown]
# The ball has left the valley, with noise to drive it. The watch knew. When a loss behaves strangely, open one:
# `with optimizer.watch() as watch:` costs a word.
#
# ## How large a step?
#
# You have used 0.1 so far, because one has to begin somewhere. **Guess.** Which of these rates is best, and what does
# the largest do?

# %%
rates = {}
for lr in (0.001, 0.01, 0.1, 0.5, 2.0):
    model = network()
    fit(model, tg.optim.SGD(model.parameters(), lr=lr), epochs=10)
    rates[lr] = judged(model, test)
    print(f"lr {lr:<6} test loss {rates[lr][0]:.3f}, right {rates[lr][1]:.1%}")

# %% [markdown]
# From useless to good to useless. Trying takes a training each. There is a cheaper way: one short run in which the rate
# *grows* at every step, and a look at where the loss falls fastest. (Model and optimizer are as before afterwards.)

# %%
model = network()
loader = tg.data.DataLoader(train, batch_size=32, shuffle=True, generator=0)
found = tg.lab.lr_find(model, loader, cross_entropy, "sgd", smallest=1e-4, largest=10.0)
print(found)
found.draw()

# %% [markdown]
# Read it from the left. Up to 0.01 next to nothing moves: too small. Then the loss falls, fastest at the red point.
# Soon after, it shoots up: there a step leaps over the valley. Take the red point if you are bold, or the orange one, a
# tenth of the rate with the lowest loss, if you are careful. Both lie among the rates that did well above.
#
# Why was 2 *useless*, and not only restless? Its loss was above 2.3, and one in ten was right: it knows nothing. Look
# inside with a `Monitor`.

# %%
model = network()
optimizer = tg.optim.SGD(model.parameters(), lr=2.0)
with tg.lab.Monitor(model, optimizer, every=10) as monitor:
    fit(model, optimizer, epochs=5, told=lambda step, loss: monitor.loss(loss))
print(monitor)
monitor.draw("loss", "dead")

# %% [markdown]
# The first steps threw the outputs of the first layer far below zero: their mean stands in the table. The ReLU after it
# passes on what is positive, and now that is nothing, for any image. Where nothing passes forward, no gradient comes
# back, so that these units can never return. They are *dead*, and what is left is ten offsets. The rate broke something
# that no patience mends.
#
# ## Learned, or learned by heart?
#
# Train longer, at the rate that was found, and judge after each epoch on images that were seen and on images that were
# not. **Guess.** Do the two losses stay together?

# %%
model = network()
optimizer = tg.optim.SGD(model.parameters(), lr=found.suggestion)
history = []
for images, labels in batches(40, 32):
    optimizer.zero_grad()
    cross_entropy(model(images), labels).backward()
    optimizer.step()
    if optimizer.step_count % 46 == 0:                      # an epoch
        history.append((*judged(model, train), *judged(model, test)))
train_loss, train_right, test_loss, test_right = np.array(history).T

with styled():
    picture = figure(6.4, 3.4)
    axes = picture.add_subplot()
    for (name, look), values in zip(looks(["training", "test"]).items(), (train_loss, test_loss)):
        axes.plot(range(1, 41), values, color=look.color, linestyle=look.linestyle, label=name)
    axes.set(yscale="log", xlabel="epoch", ylabel="loss")
    axes.legend()
print(f"right at the end: training {train_right[-1]:.1%}, test {test_right[-1]:.1%}")
picture

# %% [markdown]
# Together at first, peaks included (a bold rate has its price), then they part. The training loss falls on and on, the
# test loss stays where it is. From the fork on the network learns what is true of these 1,442 images, and not of
# digits. Only the test number says how well it reads, so no test image may ever be used to train, nor to choose by.
# (Strictly, the rate should have been chosen with a third set.)
#
# Which ones does it still misread?

# %%
with tg.no_grad():
    scores = model(test_x).numpy()
guesses, labels = scores.argmax(axis=1), test_y.numpy()
wrong = np.flatnonzero(guesses != labels)
print(len(wrong), "of", len(labels), "misread; most often",
      *[f"{truth} as {taken}," for (truth, taken), _ in Counter(zip(labels[wrong], guesses[wrong])).most_common(3)])
show(test_x.numpy()[wrong[:8]], [f"{labels[k]}, read as {guesses[k]}" for k in wrong[:8]])

# %% [markdown]
# Read them yourself, before you blame the network. The gray pictures show how little is left of a digit in 64 pixels.
#
# ## Stop, and go on
#
# A long training gets interrupted. To go on as if nothing had happened you have to save what the rest of the run
# depends on. **Guess.** Of weights, optimizer and the state of the shuffle, which can you leave out?

# %%
def begin(seed=0):
    """Return what a run consists of; SGD with momentum remembers its speed."""
    tg.manual_seed(seed)
    model = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))
    return {"model": model, "optimizer": tg.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
            "order": tg.Generator(seed)}


def go_on(run, epochs):
    loader = tg.data.DataLoader(train, batch_size=32, shuffle=True, generator=run["order"])
    for _ in range(epochs):
        for images, labels in loader:
            run["optimizer"].zero_grad()
            cross_entropy(run["model"](images), labels).backward()
            run["optimizer"].step()
    return np.concatenate([p.numpy().ravel() for p in run["model"].parameters()])


def resumed(parts, folder):
    """Return the weights of a run that was stopped after two epochs, and went on in a new process with some parts."""
    path = os.path.join(folder, "run.npz")
    run = begin()
    go_on(run, 2)
    tg.save({"model": run["model"].state_dict(), "optimizer": run["optimizer"].state_dict(),
             "order": run["order"].get_state()}, path)

    run, saved = begin(seed=1), tg.load(path)               # all else is new
    for part in parts:
        (run[part].set_state if part == "order" else run[part].load_state_dict)(saved[part])
    return go_on(run, 2)


uninterrupted = go_on(begin(), 4)
apart = {}
with tempfile.TemporaryDirectory() as folder:
    for parts in (("model", "optimizer", "order"), ("model", "order"), ("model", "optimizer"), ("model",)):
        apart[parts] = float(abs(resumed(parts, folder) - uninterrupted).max())
        print(f"{' + '.join(parts):<26} largest difference of a weight: {apart[parts]:.3g}")

# %% [markdown]
# None of them. Without the optimizer the ball begins at rest; without the order the images come in another sequence.
# Both train well enough, and that is why the mistake is not noticed: it only means that you can never again repeat what
# you did. With all three, every bit is as it would have been. (A model with dropout draws random numbers too: then the
# state of `tg.default_generator()` belongs to it.)
#
# ## Exercises
#
# Change the cell, run it again, and read what the check says.
#
# **1. A loop that learns nothing.** All four lines are there.

# %%
def my_epoch(model, optimizer, batches):
    for images, labels in batches:
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()


def check_epoch(epoch):
    model = network()
    optimizer = tg.optim.SGD(model.named_parameters(), lr=0.1)
    with optimizer.watch() as watch:
        epoch(model, optimizer, tg.data.DataLoader(train, batch_size=8, shuffle=True, generator=0))
    print("test: right {:.1%}".format(judged(model, test)[1]))
    print(watch.report())
    return not watch.report()


check_epoch(my_epoch);

# %% [markdown]
# **2. A rate for Adam.** Adam makes its steps in another way and needs another rate. Find one with which 10 epochs read
# at least 95 % of the test images. A range test with `"adam"`, from `smallest=1e-5`, finds it without trying.

# %%
rate = 1.0


def check_rate(rate):
    model = network()
    fit(model, tg.optim.Adam(model.parameters(), lr=rate), epochs=10)
    right = judged(model, test)[1]
    print(f"lr {rate:.2g}: right {right:.1%}", "" if right >= 0.95 else "(not yet)")
    return right >= 0.95


check_rate(rate);


# %% [markdown]
# **3. Forget on purpose.** The memory holds 32 images, but you want the step of 64. Leave in `.grad` the gradient of
# the mean loss of 64, with `backward` called twice on 32.

# %%
def in_halves(model, images, labels):
    for half in (slice(0, 32), slice(32, 64)):
        cross_entropy(model(images[half]), labels[half]).backward()


def check_halves(accumulate):
    gradients = []
    for whole in (True, False):
        model = network()
        if whole:
            cross_entropy(model(x[:64]), y[:64]).backward()
        else:
            accumulate(model, x[:64], y[:64])
        gradients.append(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
    ratio = gradients[1] @ gradients[0] / (gradients[0] @ gradients[0])
    right = np.allclose(gradients[0], gradients[1], atol=1e-6)
    print("right" if right else f"not yet: yours is {ratio:.2f} times the gradient of the 64")
    return right


check_halves(in_halves);


# %% [markdown]
# ## Solutions
#
# 1. `zero_grad` came after `backward`, so that at each step there was no gradient: clear, backward, step.
# 2. A tenth of the rate at which the range test has its lowest loss. (The steepest is good too, and bolder.)
# 3. The mean of 64 is the mean of both means: halve each loss.

# %%
def my_epoch(model, optimizer, batches):
    for images, labels in batches:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()


def in_halves(model, images, labels):
    for half in (slice(0, 32), slice(32, 64)):
        (cross_entropy(model(images[half]), labels[half]) / 2).backward()


rate = tg.lab.lr_find(network(), loader, cross_entropy, "adam", smallest=1e-5).minimum / 10
solved = [check_epoch(my_epoch), check_rate(rate), check_halves(in_halves)]

# %% [markdown]
# ## What you know now
#
# - Forward, backward, step, and a clean slate: the loop is four lines, and the third does the learning.
# - Forgotten, `zero_grad` turns descent into a ball without friction. It may look good for a while.
# - Many rough steps learn more than a few exact ones.
# - A range test finds the learning rate in a hundred steps. Too large can mean broken for good: dead units.
# - Only images that were never used say how well the network reads.
# - A run is its weights, its optimizer and its randomness. Save all three, or you cannot repeat it.

# %%
assert abs(loss.item() - np.log(10)) < 1e-5                             # a classifier that knows nothing
assert naive.item() == np.inf
assert after_one > 0.8 and same_step                                    # a single step, and the optimizer is that line
assert same_ball and forgotten[1][-1] < cleared[1][-1] and ruined[0] > 3 * rates[0.1][0]
assert sorted(learned, key=lambda size: learned[size][0]) == [8, 32, 64, 256, 1442]
assert rates[0.5][0] < rates[0.1][0] < rates[0.01][0] and rates[2.0][0] > 2
assert 0.1 < found.suggestion < 1
assert monitor.record.activations["1"].dead[-1] > 0.8                   # too large a step kills units
assert np.median(test_loss[-9:]) > 3 * np.median(train_loss[-9:])       # learned by heart
assert apart["model", "optimizer", "order"] == 0 and min(sorted(apart.values())[1:]) > 1e-3
assert all(solved)

# %% [markdown]
# Next: [Descent and momentum](03_descent_and_momentum.ipynb), where the ball gets some friction.
