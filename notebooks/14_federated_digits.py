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
# # Federated digits
#
# Five hospitals have images, and none may give them away. They want one model all the same. So the model travels:
# a server sends its parameters to all, each trains on its own images for a while, sends back where it arrived, and the
# server takes the average. That is **federated averaging**, FedAvg.
#
# Now let every hospital have seen *two* digits only. What goes wrong? And what helps?
#
# Guess where you are asked to, then run.

# %%
import copy

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.distributed import class_counts, federated, simulate, split_by_class
from tinygrad_opt.lab.style import figure, looks, styled

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## 1. Two digits each
#
# `split_by_class` deals the classes out. Beside these clients we keep five others, who share the same images at
# random; they are what everybody wishes for.

# %%
train, test = tg.data.digits()
clients = split_by_class(train, clients=5, classes_each=2, seed=0)
shuffled = np.random.default_rng(0).permutation(len(train))
mixed = [tg.data.Subset(train, part) for part in np.array_split(shuffled, 5)]
print(class_counts(clients), class_counts(mixed), sep="\n\n")

# %% [markdown]
# A row is a client, a column a digit. All start from one network with the same weights.

# %%
start = tg.nn.Sequential(tg.nn.Linear(64, 32), tg.nn.ReLU(), tg.nn.Linear(32, 10))


def network():
    return copy.deepcopy(start)


def numbers(model):
    return tg.nn.utils.parameters_to_vector(model.parameters()).numpy()


def read(model):
    """Return of each digit the share of its test images that are read correctly."""
    images, labels = (part.numpy() for part in test[:])
    with tg.no_grad():
        said = model(tg.tensor(images)).numpy().argmax(axis=1)
    return [(said == labels)[labels == digit].mean() for digit in range(10)]


numbers(start).size, np.mean(read(start))

# %% [markdown]
# ## 2. Alone, and averaged
#
# Each client takes 20 steps on all of its images. **Guess:** how many test digits can it read then? And how many can
# the average of the five?

# %%
guess_alone, guess_average = 0.5, 0.9           # yours?

alone = {f"client {k}": federated(network, [client], rounds=1, local_steps=20, batch_size=None, lr=0.2).model
         for k, client in enumerate(clients)}
average = federated(network, clients, rounds=1, local_steps=20, batch_size=None, lr=0.2).model
shares = {name: read(model) for name, model in {**alone, "average": average}.items()}


def draw_shares(shares):
    with styled():
        fig = figure(7.6, 0.9 + 0.36 * len(shares))
        axes = fig.add_subplot(title="share read correctly", xlabel="digit")
        axes.imshow(list(shares.values()), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.grid(False)
        axes.set_xticks(range(10))
        axes.set_yticks(range(len(shares)), labels=shares)
        for row, values in enumerate(shares.values()):
            for digit, value in enumerate(values):
                axes.text(digit, row, f"{value:.0%}", ha="center", va="center", fontsize=9,
                          color="white" if value > 0.6 else "#333333")
    return fig


print(f"you said {guess_alone:.0%} and {guess_average:.0%}; one client reads {np.mean(shares['client 0']):.0%}, "
      f"the average {np.mean(shares['average']):.0%}")
draw_shares(shares)

# %% [markdown]
# Alone, everyone has learned one thing: *it is always one of my two*. The average reads two digits well and knows
# little of the others, although each of them is known by somebody. An average of parameters is no vote: five networks
# that have gone five ways meet in a place where none of them has been.
#
# There is no more to the server than this average, weighted by how many images a client has:

# %%
sizes = [len(client) for client in clients]
by_hand = sum(size * numbers(model) for size, model in zip(sizes, alone.values())) / sum(sizes)
np.abs(by_hand - numbers(average)).max()

# %% [markdown]
# ## 3. One step is gradient descent
#
# Take the other extreme: one step on all images, then average, and again. **Guess:** how far does this come from
# gradient descent on all images in one place, after 10 rounds? And one client alone, how far from SGD?

# %%
guess_five, guess_one = 0.1, 1e-6               # yours?


def descend(dataset, steps, lr):
    model = network()
    optimizer = tg.optim.SGD(model.parameters(), lr=lr)
    (x, y), = tg.data.DataLoader(dataset, len(dataset))
    for _ in range(steps):
        optimizer.zero_grad()
        tg.cross_entropy(model(x), y).backward()
        optimizer.step()
    return numbers(model)


one_step = dict(rounds=10, local_steps=1, batch_size=None, lr=0.1)
five = numbers(federated(network, clients, **one_step).model)
one = numbers(federated(network, clients[:1], **one_step).model)
five_apart = np.abs(five - descend(train, 10, lr=0.1)).max()
one_same = np.array_equal(one, descend(clients[0], 10, lr=0.1))
print(f"you said {guess_five}; five clients and gradient descent are {five_apart:.0e} apart")
print(f"one client and SGD: the same bits is {one_same}")

# %% [markdown]
# Rounding, and nothing at all. With one step each the clients' average is
#
# $$\sum_k \frac{n_k}{n} \left(w - \eta \nabla f_k(w)\right) = w - \eta \nabla f(w),\qquad
#   f = \sum_k \frac{n_k}{n} f_k,$$
#
# gradient descent on the loss of all images, however they are dealt out. So it is not the data that makes the trouble.
# It is the *second* step: the client takes it from a place where nobody else is.
#
# ## 4. Then why not always one step?
#
# Because messages are dear. In each round each client receives all parameters and sends them all.

# %%
run = federated(network, clients, rounds=3, local_steps=1, test=test)
formula = 2 * 5 * numbers(start).size * 4       # there and back, clients, numbers, bytes of each
print("bytes after each round:", run.bytes, "by the formula", formula * np.arange(1, 4))
print(f"all training images, as float32: {train[:][0].numpy().nbytes:,} bytes")

# %% [markdown]
# (A look at the last line: four rounds cost as much as sending all the images. For a model that is larger than its
# data nobody federates to save bytes.)
#
# Let us fix the messages: 12 rounds, that is 1.2 MB, and let clients take 1, 4, 16 or 64 steps on batches of 32 in
# each. **Guess** for both kinds of clients: how does the test accuracy grow with the local steps?

# %%
guess_mixed = {1: 0.2, 64: 0.95}                # yours?
guess_two = {1: 0.2, 64: 0.95}

swept = {}
for kind, parts in {"mixed": mixed, "two digits": clients}.items():
    for steps in (1, 4, 16, 64):
        run = swept[kind, steps] = federated(network, parts, rounds=12, local_steps=steps, test=test)
        print(f"{kind:>10}, {steps:2} local steps: accuracy {run.accuracy[-1]:5.1%}, loss {run.loss[-1]:.2f}, "
              f"drift in the last round {run.drift[-1]:.2f}")

# %% [markdown]
# For mixed clients local steps are nearly as good as steps: 64 times the work for the same messages, and it pays. With
# two digits each, the first few pay too. From 16 to 64 steps the accuracy hardly moves.
#
# The last column says why. **Drift** is how far the clients arrive from their average, the root of the mean square.
# Let us look at it.
#
# ## 5. Client drift

# %%
with styled():
    fig = figure(9.0, 3.6)
    panels = fig.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("mixed", "two digits")):
        for steps, look in looks([1, 4, 16, 64]).items():
            axes.plot(range(1, 13), swept[kind, steps].drift, color=look.color, linestyle=look.linestyle,
                      marker=look.marker, markersize=4, label=f"{steps} local steps")
        axes.set(xlabel="round", title=f"drift of the clients: {kind}")
    panels[0].set_ylim(0, 2.4)
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
fig

# %% [markdown]
# With the same number of steps, clients of two digits end several times as far from each other. And what does a client
# *lose* on its way? Take the server's model after the 12 rounds of 16 steps, and let each client train for 64 steps
# more. **Guess:** of the other eight digits, of which the server could read most, how much does a client still know?

# %%
guess = 0.5                                     # yours?

served = swept["two digits", 16].model
after = {"server": read(served)}
for k, client in enumerate(clients):
    after[f"client {k}"] = read(federated(lambda: copy.deepcopy(served), [client], rounds=1, local_steps=64).model)
after["average"] = read(federated(lambda: copy.deepcopy(served), clients, rounds=1, local_steps=64).model)

others = [np.mean([after[f"client {k}"][digit] for digit in range(10) if not counts[digit]])
          for k, counts in enumerate(class_counts(clients))]
print(f"you said {guess:.0%}; of the other eight digits the clients read", *(f"{share:.0%}" for share in others))
print(f"server {np.mean(after['server']):.1%}, average of the five who were sent out {np.mean(after['average']):.1%}")
draw_shares(after)

# %% [markdown]
# Nothing. Within one round every client has forgotten all that it does not see, and is as narrow as in section 2.
# (Unlike there, their average is a good reader: they started from a place that knew all ten, and what each lost is
# still with the other four.) Compare the first row with the last: 320 steps of work, and nothing is gained. They went
# into unlearning what the others had taught, and the average has taken that back.
#
# ## 6. Two parabolas: where does FedAvg end?
#
# The network hides one question: is FedAvg slow, or does it end in a wrong place? Two clients with one weight are
# enough to see. Client 0 wants $w = 0$, and its loss is $w^2$. Client 1 wants $w = 1$, with $9\,(w - 1)^2$. The sum is
# lowest at $w = 0.9$.
#
# **Guess:** where does FedAvg end with 1 local step, with 10, with very many?

# %%
guess = {1: 0.9, 10: 0.9, 1000: 0.9}            # yours?


def parabola(scale, goal):
    """Return a client whose loss is scale * (w - goal)^2: one row, (x, y) = (a, a * goal) with a^2 = scale."""
    x = tg.tensor([[scale ** 0.5]], dtype="float64")
    return tg.data.TensorDataset(x, goal * x)


def weight():
    model = tg.nn.Linear(1, 1, bias=False, dtype="float64")
    model.weight.data[:] = 0.0
    return model


parabolas = [parabola(1, 0), parabola(9, 1)]


def end(method="fedavg", steps=10, lr=0.02, rounds=60, **options):
    """Return the run, and the weight of its server."""
    run = federated(weight, parabolas, method, rounds, local_steps=steps, lr=lr, loss=tg.mse_loss, **options)
    return run, numbers(run.model)[0]


ended = {steps: end(steps=steps)[1] for steps in (1, 3, 10, 30)}
print("you said", guess)
print("after 60 rounds", {steps: round(float(w), 4) for steps, w in ended.items()})

# %% [markdown]
# Only with one step it is 0.9. The end can be computed. A gradient step on $\frac{h}{2}(w - g)^2$ multiplies the
# distance to the goal $g$ by $1 - \eta h$. After $K$ steps client $k$ has gone the share $a_k = 1 - (1 - \eta h_k)^K$
# of its way:
#
# $$x_k = w + a_k (g_k - w).$$
#
# The server stands still where the average of $a_k (g_k - w)$ is zero, that is at
#
# $$w^* = \frac{a_0 g_0 + a_1 g_1}{a_0 + a_1}.$$
#
# For one step $a_k = \eta h_k$: the goals count by their curvatures, as they should. For very many steps both $a_k$
# are 1: each client simply arrives, and $w^*$ is the mean of the goals, **0.5, whatever the losses are**. (The
# curvatures here are $h = 2$ and $18$.)

# %%
def computed_end(steps, lr, curvatures=(2, 18), goals=(0, 1)):
    gone = 1 - (1 - lr * np.array(curvatures)) ** steps
    return float(gone @ goals / gone.sum())


steps = np.unique(np.geomspace(1, 1000, 60).round())
with styled():
    fig = figure(7.4, 3.6)
    axes = fig.add_subplot(xscale="log", xlabel="local steps K", title="where FedAvg ends", ylim=(0.45, 0.95))
    for lr, look in looks([0.02, 0.002, 0.0002]).items():
        axes.plot(steps, [computed_end(k, lr) for k in steps], color=look.color, linestyle=look.linestyle,
                  label=f"computed, lr {lr}")
    axes.plot(list(ended), list(ended.values()), "o", color="#333333", label="run, lr 0.02")
    for height, text in ((0.9, "the minimum"), (0.5, "the mean of the goals")):
        axes.axhline(height, color="#999999", linewidth=0.9, linestyle=":")
        axes.text(1.05, height + 0.008, text, fontsize=9)
    fig.legend(loc="outside right upper")
fig

# %% [markdown]
# So FedAvg is not only slow: with several steps and a constant rate it ends in a wrong place, and more rounds do not
# help. A smaller rate does, since what counts is about $\eta K$; but then the clients go less far, which is what we
# had the local steps for.
#
# ## 7. Control variates: SCAFFOLD
#
# Why does client 1 run off? Its own gradient leads it. If it only knew where *all* would go, it could follow that
# instead. It knows a little: what everyone's gradients were in the last round. Let $c_k$ be the mean gradient of client
# $k$ along its last way, and $c$ their mean. SCAFFOLD steps by
#
# $$x \leftarrow x - \eta\left(\nabla f_k(x) - c_k + c\right).$$
#
# Take out your own habit, put in everyone's. The new $c_k$ costs nothing: a client that went from $w$ to $x$ in $K$
# steps had the mean (corrected) gradient $(w - x)/(K\eta)$. Written out for our two parabolas:

# %%
def walk(method, rounds, steps=10, lr=0.02):
    """Return the server's weight, the two controls, and where both clients were, (rounds, steps + 1, 2)."""
    curvatures, goals, w, controls, ways = np.array([2.0, 18.0]), np.array([0.0, 1.0]), 0.0, np.zeros(2), []
    for _ in range(rounds):
        correction = controls.mean() - controls if method == "scaffold" else np.zeros(2)
        way = [np.full(2, w)]
        for _ in range(steps):
            way.append(way[-1] - lr * (curvatures * (way[-1] - goals) + correction))
        controls = (w - way[-1]) / (steps * lr) - correction
        w = way[-1].mean()
        ways.append(way)
    return w, controls, np.array(ways)


by_hand, controls, ways = walk("scaffold", 60)
run, by_library = end("scaffold")
print(f"the end by hand {by_hand:.6f}, by the library {by_library:.6f}")
print("controls by hand", controls.round(4), "by the library", run.controls[:, 0].round(4))

# %% [markdown]
# The minimum, with the same ten steps. **Guess** before you draw: what do the two clients do within a round, when the
# server has arrived?

# %%
guess = "one goes left, one goes right"         # yours?

with styled():
    fig = figure(9.0, 3.8)
    panels = fig.subplots(1, 2, sharey=True)
    for axes, method, title in zip(panels, ("fedavg", "scaffold"), ("FedAvg", "SCAFFOLD")):
        ways = walk(method, 12)[2]
        for turn, way in enumerate(ways):
            for client, look in looks(["client 0", "client 1"]).items():
                axes.plot(turn + np.linspace(0, 1, 11), way[:, int(client[-1])], color=look.color,
                          linestyle=look.linestyle, label=client if turn == 0 else None)
        axes.plot(range(12), ways[:, 0, 0], "o", color="#333333", markersize=5, label="server")
        axes.axhline(0.9, color="#999999", linewidth=0.9, linestyle=":")
        axes.set(xlabel="round", title=title)
    panels[0].axhline(computed_end(10, 0.02), color="#999999", linewidth=0.9, linestyle="--")
    panels[0].set_ylabel("w")
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
fig

# %% [markdown]
# Under FedAvg (left) both pull as hard in round 12 as in round 3; the server stands where the pulls cancel, on the
# dashed line, and not at the minimum, the dotted line. Under SCAFFOLD the first round is the same, since the controls
# start at zero. Then both clients begin to move together, and in the end neither moves at all: there
# $c_k = \nabla f_k(w^*)$, which is $+1.8$ and $-1.8$, and every corrected gradient is zero.
#
# ## 8. All four on the parabolas
#
# Two more have been proposed. **FedProx** holds clients back by a spring to the server, $\frac{\mu}{2} |x - w|^2$.
# **FedAdam** leaves the clients alone; its server takes the way back from the average for a gradient, and gives it to
# Adam. **Guess:** who ends at 0.9?

# %%
guess = {"fedprox": True, "scaffold": True, "fedadam": True}                 # yours?

ends = {"fedavg": end()[1], "fedprox": end("fedprox", mu=5.0)[1], "scaffold": by_library,
        "fedadam": end("fedadam", server_lr=0.1, rounds=150)[1]}
print("you said", guess)
for method, w in ends.items():
    print(f"{method:<8} ends at {w:.4f}")

# %% [markdown]
# SCAFFOLD alone. FedProx comes a little nearer, and exercise 3 says how near. FedAdam ends where FedAvg does, and has
# to: its server stands still when its pseudo-gradient is zero, and that is where the clients' pulls cancel. A better
# optimizer on the server finds the wrong place.
#
# ## 9. All four on digits
#
# So SCAFFOLD should win here too? Twelve rounds, eight local steps. So that no method suffers from a setting that
# suits another, each may try four, two client rates and two values of its own option, on seed 0; what was best is
# then run with seed 1. **Guess** the order.

# %%
guess = ["scaffold", "fedadam", "fedprox", "fedavg"]                         # yours?

own = {"fedavg": [dict(server_lr=1), dict(server_lr=2)], "fedprox": [dict(mu=0.01), dict(mu=0.1)],
       "scaffold": [dict(server_lr=1), dict(server_lr=2)], "fedadam": [dict(server_lr=0.03), dict(server_lr=0.1)]}


def digits_run(method, seed=0, parts=clients, **options):
    return federated(network, parts, method, rounds=12, local_steps=8, test=test, seed=seed, **options)


chosen, runs = {}, {}
for method, options in own.items():
    settings = [dict(lr=lr, **option) for option in options for lr in (0.1, 0.3)]
    losses = [digits_run(method, **setting).loss[-1] for setting in settings]
    chosen[method] = settings[int(np.argmin(losses))]
    runs[method] = digits_run(method, seed=1, **chosen[method])
print("you said", guess)
for method, run in sorted(runs.items(), key=lambda item: item[1].loss[-1]):
    print(f"{run}, with {chosen[method]}")
twice = int(np.searchsorted(runs["scaffold"].bytes, runs["fedadam"].bytes[-1]))
print(f"SCAFFOLD with the bytes that the others have spent: loss {runs['scaffold'].loss[twice + 1]:.3f}")
runs["fedavg"].draw(*(runs[method] for method in ("fedprox", "scaffold", "fedadam")))

# %% [markdown]
# Look at the loss; the accuracy, on 355 images, hardly tells three of them apart. SCAFFOLD does what it was made for:
# it is ahead of FedAvg in as many rounds. But FedAdam is as good in as many rounds, and for the same bytes it is far
# ahead, although it corrects nothing. And FedAvg itself did best when the server went *twice* as far as the average
# (FedProx, whose server does not, is last). How can strides help, after section 8?
#
# The parabolas cannot agree. No $w$ is good for both, so where the pulls cancel is a compromise, and a wrong one. Five
# clients of a network with 2,410 parameters *can* agree: one model reads all digits, and at that model every client's
# gradient is nearly zero, so that nobody pulls. There is hardly a wrong place to end in. The illness here is another:
# the pulls cancel on the *way*, so that the average moves little, and a server that takes longer strides in the
# directions that persist gets there earlier.
#
# Watch the clients agree. **Guess:** with the plain average, after 40 rounds in the place of 12, is FedAvg stuck?

# %%
guess = "stuck"                                 # yours?

longer = federated(network, clients, rounds=40, local_steps=8, lr=0.3, test=test, seed=1)
for turn in (0, 11, 23, 39):
    print(f"after {turn + 1:2} rounds: loss {longer.loss[turn + 1]:.2f}, drift {longer.drift[turn]:.2f}")

# %% [markdown]
# Not stuck, slow, and its drift shrinks as the clients agree. Keep both pictures in mind. Where clients truly
# contradict each other (five writers who want five different next words), FedAvg is biased. Where one model can please
# all, it is slow. What you have is a question about the data, and papers that show one kind of data show one answer.
#
# ## 10. On many machines
#
# Clients need not wait for each other. Give `federated` a world of several ranks, and each trains some of the clients.
# `simulate` makes ranks of threads; under `tinygrad-opt launch` the same call runs on MPI. **Guess:** with 3 ranks,
# how many of the digits of the result agree with those of one process?

# %%
guess = 6                                       # yours?


def train_here(world):
    run = federated(network, clients, "scaffold", rounds=2, local_steps=4, test=test, world=world)
    return numbers(run.model), run.loss, run.controls


single = train_here(tg.distributed.world())
ranks = simulate(3, train_here)
same_bits = all(np.array_equal(part, expected) for rank in ranks for part, expected in zip(rank, single))
print(f"you said {guess} digits; all bits on all ranks are the same: {same_bits}")

# %% [markdown]
# All. A sum of floats depends on its order, so the server adds in the order of the *clients*, never of the ranks; and
# what a client draws depends on the seed, the round and its number, not on the machine it runs on.
#
# ## 11. And nobody has seen the images?
#
# "Parameters and never data." A client with a single image takes a single step and sends where it arrived. **Guess:**
# what can the server know about the image?

# %%
guess = "which digit it is"                     # yours?

secret = 7
w = network()
received = federated(network, [tg.data.Subset(train, [secret])], rounds=1, local_steps=1, lr=0.1).model
moved = [(before.numpy() - after.numpy()) for before, after in zip(w.parameters(), received.parameters())]
unit = np.abs(moved[1]).argmax()
guessed_image = moved[0][unit] / moved[1][unit]

with styled():
    fig = figure(4.6, 2.6)
    for axes, image, title in zip(fig.subplots(1, 2), (train[secret][0].numpy(), guessed_image),
                                  ("the client's image", "what the server computes")):
        axes.imshow(image.reshape(8, 8), cmap="Greys")
        axes.set_title(title, fontsize=10)
        axes.axis("off")
fig

# %% [markdown]
# The image. A unit of the first layer computes $z = w \cdot x + b$, so its gradients are $\delta\,x$ for the weights
# and $\delta$ for the bias: divide, and there is $x$. Batches and local steps mix images and make this harder, not
# impossible. Federated learning keeps data in their place. It is not privacy by itself; secure aggregation and added
# noise are what people use for that.
#
# ## Exercises
#
# Change a cell and run it again: its last line is the checker. Solutions are at the end.
#
# **1. Whom to weigh how.** The server takes an average of where clients arrive. One full-batch step of each must be a
# step of gradient descent on *all* rows, for clients of any sizes. What stands here runs and is wrong.

# %%
def my_average(arrived, sizes):
    return sum(arrived) / len(arrived)


def check_average(average):
    parts = [tg.data.Subset(train, range(*ends)) for ends in ((0, 10), (10, 300), (300, 500))]
    arrived = [descend(part, 1, lr=0.1) for part in parts]
    expected = descend(tg.data.Subset(train, range(500)), 1, lr=0.1)
    apart = np.abs(average(arrived, [len(part) for part in parts]) - expected).max()
    return "solved" if apart < 1e-6 else f"{apart:.1e} away from gradient descent; which client had 10 rows?"


check_average(my_average)

# %% [markdown]
# **2. A budget of bytes.** Return how many whole rounds a budget of bytes is enough for, when `fraction` of the clients
# take part in each. SCAFFOLD sends a control beside the parameters, in both directions.

# %%
def my_rounds(budget, method, clients, fraction, numbers, bytes_each=4):
    return budget // (clients * numbers * bytes_each)


def check_rounds(function):
    for method, fraction in (("fedavg", 1.0), ("scaffold", 1.0), ("scaffold", 0.4)):
        run = federated(network, clients, method, rounds=2, local_steps=1, fraction=fraction)
        for budget, expected in ((int(run.bytes[1]), 2), (int(run.bytes[1]) - 1, 1)):
            got = function(budget, method, 5, fraction, numbers(start).size)
            if got != expected:
                return f"{method}, fraction {fraction}: {budget:,} bytes are {expected} rounds, you said {got}"
    return "solved"


check_rounds(my_rounds)

# %% [markdown]
# **3. Where FedProx ends.** With the spring a client's gradient is $h (x - g) + \mu (x - w)$. It is still a parabola:
# which curvature, which goal? Return the share of the way from $w$ to $g$ that a client goes in $K$ steps. What stands
# here is FedAvg's.

# %%
def my_share(steps, lr, curvature, mu):
    return 1 - (1 - lr * curvature) ** steps


def check_share(share):
    for mu in (0.0, 5.0):
        gone = [share(10, 0.02, curvature, mu) for curvature in (2, 18)]
        computed, ran = gone[1] / sum(gone), end("fedprox", mu=mu, rounds=40)[1]
        if abs(computed - ran) > 1e-4:
            return f"with mu {mu} it ends at {ran:.4f}, you computed {computed:.4f}"
    return "solved"


check_share(my_share)

# %% [markdown]
# ## Solutions
#
# 1\. By their sizes. 2\. There and back, and at least one client takes part. 3\. The curvature is $h + \mu$, and the
# goal lies at the share $\frac{h}{h + \mu}$ of the way from $w$ to $g$. For a large $\mu$ the share is about
# proportional to $h$ again, as for one step of FedAvg: the bias goes, and the clients hardly move.

# %%
def average_solved(arrived, sizes):
    return sum(size * x for x, size in zip(arrived, sizes)) / sum(sizes)


def rounds_solved(budget, method, clients, fraction, numbers, bytes_each=4):
    present = max(1, round(fraction * clients))
    vectors = 2 if method == "scaffold" else 1
    return budget // (2 * present * vectors * numbers * bytes_each)


def share_solved(steps, lr, curvature, mu):
    return (1 - (1 - lr * (curvature + mu)) ** steps) * curvature / (curvature + mu)


assert check_average(average_solved) == check_rounds(rounds_solved) == check_share(share_solved) == "solved"

# %% [markdown]
# ## What you know now
#
# - One local step, averaged by size, is gradient descent on all data, and one client with one step is SGD to the bit.
# - More local steps save messages while clients are alike. When they are not, they drift, and forget within a round.
# - On losses that contradict each other FedAvg ends at a biased point, which you can compute; so does FedAdam.
# - SCAFFOLD's controls become the clients' gradients at the minimum, and nobody moves there. They cost twice the bytes.
# - On data that one model can fit the bias goes away, and what is left is slowness: a better server helps as well.
# - What clients send tells about their data.

# %%
# Alone everyone knows two digits; the average is the server's whole work.
assert all(np.mean(row) <= 0.21 for name, row in shares.items() if name != "average")
assert np.mean(shares["average"]) < 0.5 and sorted(shares["average"])[-3] < 0.5 < sorted(shares["average"])[-2]
assert all(max(row[digit] for row in shares.values()) > 0.85 for digit in range(10))
assert np.allclose(sum(s * numbers(m) for s, m in zip(sizes, alone.values())) / sum(sizes), numbers(average), atol=1e-5)
# One step each is gradient descent; bytes are the formula.
assert five_apart < 1e-5 and one_same and np.abs(five - one).max() > 0.01
assert formula == runs["fedavg"].bytes[0] and 2 * formula == runs["scaffold"].bytes[0]
# Local steps pay for mixed clients, less and less for others, who drift.
loss = {key: run.loss[-1] for key, run in swept.items()}
assert loss["mixed", 64] < loss["mixed", 16] / 2 and loss["two digits", 64] > loss["two digits", 16] / 2
assert loss["two digits", 64] > 3 * loss["mixed", 64]
assert all(swept["two digits", k].drift[-1] > 2 * swept["mixed", k].drift[-1] for k in (1, 4, 16, 64))
assert max(others) < 0.2 and np.mean(after["average"]) > 0.6 > np.mean(shares["average"])
# The biased point, the unbiased one, and the controls.
assert all(abs(w - computed_end(k, 0.02)) < 1e-3 for k, w in ended.items()) and abs(computed_end(1, 0.02) - 0.9) < 1e-12
assert abs(computed_end(10 ** 6, 0.02) - 0.5) < 1e-9 and abs(ends["fedadam"] - ends["fedavg"]) < 1e-3
assert abs(by_library - walk("scaffold", 60)[0]) < 1e-12 and abs(by_library - 0.9) < 1e-3
assert np.allclose(controls, [1.8, -1.8], atol=1e-2) and 0.76 < ends["fedprox"] < 0.89
# Digits, ranks, and what is not private.
last = {method: run.loss[-1] for method, run in runs.items()}
assert 1.2 * max(last["scaffold"], last["fedadam"]) < last["fedavg"] < last["fedprox"] / 1.2
assert chosen["fedavg"]["server_lr"] == 2
assert runs["scaffold"].loss[twice + 1] > 1.5 * last["fedadam"] and longer.loss[-1] < longer.loss[12] / 1.5
assert same_bits and np.allclose(guessed_image, train[secret][0].numpy(), atol=1e-3)

# %% [markdown]
# Next: [16, a tuned race](16_a_tuned_race.ipynb), where optimizers are compared after the same tuning.
