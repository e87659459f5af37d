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
# # Four machines, one batch
#
# Your training takes four days, and you are offered four machines. Cut every batch into four parts, let each machine
# work on one, and put the gradients together again: done in one day?
#
# Two questions decide it. **Is it still the same training**, or another one that is merely similar? And **what has to
# go over the wire**, how many bytes a step, and who can say so beforehand? You will predict both, and count.
#
# No cluster is needed. Here a machine is a *rank*, a thread of this notebook, and the same lines run on real ones.

# %%
import numpy as np

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.distributed import DataParallel, DistributedSampler, ShardedOptimizer, ring_all_reduce, simulate

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## 1. A world
#
# `simulate(4, function)` runs a function as four ranks and returns what each returned. Every rank is handed its
# `world`: who am I, of how many, and a few verbs to speak with the others. The most important verb is `all_reduce`:
# each rank gives an array, and all receive the sum, or the mean.
#
# **Guess:** what does each rank print below?

# %%
def mean_of_squares(world):
    return world.all_reduce([float(world.rank ** 2)], "mean").tolist()


simulate(4, mean_of_squares)

# %% [markdown]
# $(0 + 1 + 4 + 9) / 4 = 3.5$, on all four. Nobody is the boss: all call the same verb, and all have the answer.
#
# That verb is nearly all that data parallel training needs. The loss of a batch is a mean over its samples, so its
# gradient is a mean too, and the mean of four means over equally many samples is the mean over all:
#
# $$\nabla \frac{1}{4m} \sum_{i=1}^{4m} \ell_i = \frac{1}{4} \sum_{r=0}^{3} \nabla \frac{1}{m} \sum_{i \in r} \ell_i$$
#
# ## 2. The same training?
#
# First alone, in float64: a plain loop, 144 digits a batch.

# %%
digits, examined = tg.data.digits()
dataset = tg.data.TensorDataset(digits.tensors[0].double(), digits.tensors[1])


def network(seed=0):
    return nn.Sequential(nn.Linear(64, 32, generator=tg.Generator(seed)), nn.ReLU(),
                         nn.Linear(32, 10, generator=tg.Generator(seed + 1)))


def numbers(model):
    """Return a copy of all parameters, as one row."""
    return np.concatenate([p.numpy().ravel() for p in model.parameters()])


def train(model, sampler, batch_size, epochs=3):
    """Train, and return all parameters after it."""
    optimizer = tg.optim.AdamW(model.parameters(), lr=0.01)
    loader = tg.data.DataLoader(dataset, batch_size=batch_size, sampler=sampler, drop_last=True)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            tg.cross_entropy(model(x), y).backward()
            optimizer.step()
    return numbers(model)


alone = train(network().double(), DistributedSampler(dataset, drop_last=True), 144)
alone[:4]

# %% [markdown]
# `DistributedSampler` deals the digits out like cards. All ranks know the same order, drawn anew for each epoch, and
# rank $r$ takes the cards $r, r + 4, r + 8, \dots$ In a world of one that is every card. So the batches of 36 of four
# ranks are, taken together, the batch of 144 that you just had.

# %%
def deal(world):
    sampler = DistributedSampler(range(12), shuffle=False)
    return list(sampler)


simulate(4, deal)

# %% [markdown]
# For four ranks `train` stays as it is. What changes are two arguments: the model is put into `DataParallel`, and the
# batch is 36. `DataParallel` gives all ranks the weights of rank 0 at the start, and averages the gradients at the end
# of each `backward()`. The optimizer knows of nothing.
#
# To make it harder, each rank begins with another network. **Guess:** how far is any weight, after 30 steps of AdamW,
# from where it came alone? And how far are the ranks from each other?

# %%
guess_from_alone, guess_apart = 1e-3, 1e-3      # yours?


def four(world):
    model = DataParallel(network(seed=10 * world.rank).double())
    return train(model, DistributedSampler(dataset, drop_last=True), 36)


ranks = simulate(4, four)
from_alone = np.abs(ranks[0] - alone).max()
apart = max(np.abs(one - ranks[0]).max() for one in ranks)
print(f"from alone: you said {guess_from_alone}, it is {from_alone:.1e}; apart: you said {guess_apart}, it is {apart}")

# %% [markdown]
# From alone it differs in the last digit, around $10^{-16}$; from each other by 0. These are two different statements.
#
# The first is *rounding*: 144 numbers were added up in another order, and addition on a computer depends on the
# order in the last digit. That is all: the same training, not a similar one.
#
# The ranks must have the *same bits*, because nobody ever compares their weights again. A difference of one bit would
# be carried along and grow. So `all_reduce` promises the same bits on all ranks, whatever carries it.
#
# What is it good for? Leave the averaging away, and each rank trains on what it is dealt:

# %%
def without_averaging(world):
    return train(network().double(), DistributedSampler(dataset, drop_last=True), 36)


drifted = simulate(4, without_averaging)
drift = max(np.abs(one - drifted[0]).max() for one in drifted)
print(f"without DataParallel the ranks are {drift:.2f} apart after 30 steps")

# %% [markdown]
# No error, no warning: you have four models, each trained on a quarter of the digits.
#
# ## 3. The byte account
#
# Now the wire. In float32, as one trains, our network has some parameters. **Predict**: how many bytes does a rank
# hand over in one step, and how many bytes once, at the start? Count before you run.

# %%
parameters = 64 * 32 + 32 + 32 * 10 + 10
predicted_step, predicted_start = 4 * parameters, 4 * parameters
STEPS = 5


def five_steps(world, bucket_bytes=1 << 20):
    x, y = digits.tensors
    model = DataParallel(network(), bucket_bytes=bucket_bytes)
    optimizer = tg.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(STEPS):
        optimizer.zero_grad()
        tg.cross_entropy(model(x[world.rank::world.size]), y[world.rank::world.size]).backward()
        optimizer.step()
    return world.accounts, tg.distributed.report()


accounts, table = simulate(4, five_steps)[0]
step_bytes = accounts["all_reduce"].bytes / STEPS
print(f"{parameters} parameters; predicted {predicted_step} bytes a step, counted {step_bytes:.0f}")
print(f"at the start predicted {predicted_start}, counted {accounts['broadcast'].bytes}")

# %% [markdown]
# Four bytes for each parameter, and four bytes that the prediction has not: one for each of the four tensors, in which
# a rank says whether it has used it. (A rank that skips a layer counts as a gradient of 0 there.)
#
# The size of the batch is not in the formula, nor the number of ranks. Images are never sent, nor activations: just
# gradients. So a larger batch makes the wire matter less, and a larger model makes it matter more.
#
# `tg.distributed.report()` is the whole account, with the mean over the ranks and the most on one.

# %%
table

# %% [markdown]
# Only rank 0 hands something to the `broadcast`, so the mean is a quarter of the most. `seconds` and `waited` are of
# this machine; in `hidden` stands the share of the time in which the rank did something else meanwhile. For that,
# gradients are sent in *buckets*: that of the last layer is under way while the backward pass is still in the first.
#
# **Guess:** with buckets of at most 2000 bytes, do the bytes change? The calls?

# %%
small = simulate(4, five_steps, 2000)[0][0]["all_reduce"]
large = accounts["all_reduce"]
print(f"one bucket: {large.calls / STEPS:.0f} calls and {large.bytes / STEPS:.0f} bytes a step")
print(f"2000 bytes: {small.calls / STEPS:.0f} calls and {small.bytes / STEPS:.0f} bytes a step")

# %% [markdown]
# The same bytes in more messages: the last layer (its 10 offsets and 320 weights) and the offsets of the first travel
# together, the 2048 weights of the first by themselves, and the flags as always. A message costs a latency each, so
# there is a best size, and it is neither "all at once" nor "each tensor by itself".
#
# ## 4. What `all_reduce` does: a ring
#
# A rank hands over $B = 9640$ bytes. But how do the sums come about? The obvious way: all send to rank 0, it adds up
# and sends the result to each.
#
# **Guess:** with $n$ ranks, how many bytes does rank 0 send and receive that way? And can there be a way in which no
# rank sends more than $2B$, with a thousand ranks?

# %%
def ring(world):
    return ring_all_reduce(np.full(2412, world.rank, "float32"), world)


rings = simulate(4, ring)
rings[0].draw()

# %% [markdown]
# Read a row: rank 0 speaks to rank 1 and to nobody else. The array is cut in four chunks. In each step every rank
# passes one chunk on, and adds the chunk that comes to its own. After three steps each rank has one chunk of the sum
# of all four (the full boxes). Three more steps hand these around.
#
# That is $2 (n - 1)$ steps of $B / n$ bytes each: a rank sends $\frac{2 (n - 1)}{n} B$, always below $2B$.

# %%
B = 2412 * 4
for one in (0, 3):
    print(f"rank {one} sent {rings[0].bytes_sent(one)} bytes, 2 (n - 1) / n of {B} is {2 * 3 * B // 4}")

sizes = [2, 4, 8, 12]
sent = [simulate(n, lambda world: ring_all_reduce(np.ones(2400), world).bytes_sent(world.rank))[0] / (2400 * 8)
        for n in sizes]
tg.lab.draw_curves({"ring, any rank": (sizes, sent), "all through rank 0": (sizes, [n - 1 for n in sizes])},
                   "what the busiest rank sends", xlabel="ranks", ylabel="times the array")

# %% [markdown]
# Through rank 0 the wire of one machine carries the work of all. In the ring every wire carries the same, and with more
# ranks it hardly grows. It is paid in steps: $2 (n - 1)$ messages one after the other, so for small arrays and many
# ranks other ways are faster, and a real MPI chooses.
#
# ## 5. Who keeps the optimizer's state?
#
# AdamW keeps two numbers for each parameter, and in data parallel training every rank keeps them all: four copies of
# the same numbers. `ShardedOptimizer` deals them out: each rank keeps and steps one part, and then all exchange the new
# weights of their parts.
#
# **Predict** the bytes of state on a rank, with 2410 parameters, four ranks and float32. And does sharding change the
# weights?

# %%
predicted_state = 2 * 4 * -(-parameters // 4)   # two numbers of 4 bytes for a quarter of the parameters, rounded up


def bytes_of(optimizer):
    """Return the bytes of all arrays in an optimizer's state that have an element for each parameter."""
    return sum(value.data.nbytes for state in optimizer.state.values() for value in state.values()
               if isinstance(value, tg.Tensor) and value.shape)


def sharded(world, stage):
    x, y = digits.tensors
    model = network()
    if stage == 0:
        model = DataParallel(model)
        optimizer = inner = tg.optim.AdamW(model.parameters(), lr=0.01)
    else:
        optimizer = ShardedOptimizer(tg.optim.AdamW, model.parameters(), stage=stage, lr=0.01)
        inner = optimizer.local
    for _ in range(STEPS):
        optimizer.zero_grad()
        tg.cross_entropy(model(x[world.rank::world.size]), y[world.rank::world.size]).backward()
        optimizer.step()
    return numbers(model), bytes_of(inner), {verb: account.bytes for verb, account in world.accounts.items()}


stages = [simulate(4, sharded, stage) for stage in (0, 1, 2)]
for stage, results in enumerate(stages):
    print(f"stage {stage}: bytes of state on each rank {[kept for _, kept, _ in results]}")
print(f"predicted {8 * parameters} and {predicted_state}")
print("same bits:", all(np.array_equal(stages[0][0][0], one[0]) for results in stages for one in results))

# %% [markdown]
# A quarter on each rank (the last has what is left), and the weights are the same to the bit: AdamW looks at one
# element after the other, and does not notice who its neighbours are. An optimizer that takes norms of whole tensors
# could not be cut like this, and `ShardedOptimizer` refuses it with the reason.
#
# In stage 1 the gradients are averaged as before. In stage 2 a rank is sent *only its share* of the mean gradient, by
# the verb `reduce_scatter`, and the rest is freed. **Guess:** which stage sends more?

# %%
for stage, results in enumerate(stages):
    print(f"stage {stage}, a step:",
          {verb: size // STEPS for verb, size in results[0][2].items() if verb not in ("broadcast", "gather_objects")})

# %% [markdown]
# The bytes handed over are not yet those on the wire. Look at the ring again: its left half *is* a `reduce_scatter`
# and sends $\frac{n-1}{n} B$; its right half *is* an `all_gather`. So:
#
# | | averages gradients | exchanges weights | on the wire |
# |---|---|---|---|
# | stage 0 | `all_reduce` | | $2 \frac{n-1}{n} B$ |
# | stage 1 | `all_reduce` | `all_gather` | $3 \frac{n-1}{n} B$ |
# | stage 2 | `reduce_scatter` | `all_gather` | $2 \frac{n-1}{n} B$ |
#
# Stage 2 keeps a quarter of the state and of the gradients, and sends what plain data parallelism sends. It only puts
# the optimizer's step between the two halves of the ring.
#
# ## 6. On real machines
#
# Nothing above is about threads. A script calls `tg.distributed.world()`; alone that is a world of one, inside
# `simulate` the thread's, and under a launcher MPI's:
#
# ```bash
# pip install 'tinygrad-opt[mpi]'
# tinygrad-opt launch -n 4 train.py
# ```
#
# `examples/data_parallel_digits.py` is section 2 as such a script. Three things are new in it. Only rank 0 prints and
# saves, since all have the same. All ranks load a checkpoint, and compare where they begin. And no rank may skip a
# verb that the others call: with `if world.rank == 0: world.all_reduce(...)` the others would never come.
#
# ## Exercises
#
# Each cell runs as it is, and its checker says what is wrong. Change it and run it again; solutions follow.
#
# **1. The wire.** Return the bytes that a rank sends in a ring of `n`, when it hands `size` bytes to a verb:
# `"all_reduce"`, `"reduce_scatter"` or `"all_gather"` (where each hands over its own part and receives those of all).

# %%
def on_the_wire(verb, size, n):
    return size


# %%
def check_wire(answer):
    for verb, size, n, right in (("all_reduce", 800, 4, 1200), ("reduce_scatter", 800, 4, 600),
                                 ("all_gather", 200, 4, 600), ("all_reduce", 800, 1, 0), ("all_gather", 100, 8, 700)):
        if answer(verb, size, n) != right:
            return f"{verb} of {size} bytes, {n} ranks: expected {right}, got {answer(verb, size, n)}"
    return "right"


print(check_wire(on_the_wire))

# %% [markdown]
# **2. Parts that are not equal.** Two ranks have 1 and 3 of four samples. The gradient shall be that of the mean over
# all four. Which line is missing? (`model.weighted`.)

# %%
def gradient_of_unequal(world, x):
    mine = x[:1] if world.rank == 0 else x[1:]
    model = DataParallel(nn.Linear(1, 1, bias=False))
    model(mine).mean().backward()
    return model.module.weight.grad.item()


# %%
def check_unequal(answer):
    x = tg.tensor([[1.0], [2.0], [3.0], [6.0]])
    found = simulate(2, answer, x)
    return "right" if np.allclose(found, 3.0) else f"the mean of 1, 2, 3 and 6 is 3, the ranks have {found}"


print(check_unequal(gradient_of_unequal))

# %% [markdown]
# **3. Does it fit?** A model of `parameters` numbers in float32, trained with AdamW on `n` ranks: return the bytes for
# weights, gradients and state on a rank in stage 0, 1 and 2 (where what is dealt out divides evenly).

# %%
def memory(parameters, n, stage):
    return 4 * parameters


# %%
def check_memory(answer):
    right = {0: 16e9, 1: 10e9, 2: 7e9}          # a thousand million parameters on four ranks
    wrong = [stage for stage, size in right.items() if answer(10 ** 9, 4, stage) != size]
    return f"stage {wrong[0]}: expected {right[wrong[0]] / 1e9:g} GB" if wrong else "right"


print(check_memory(memory))

# %% [markdown]
# ## Solutions
#
# 1. Each half of the ring sends $n - 1$ chunks. A chunk is an $n$-th of what is handed to `all_reduce` and
#    `reduce_scatter`, and all of what is handed to `all_gather`.
# 2. The mean of the ranks' means is $(1 + 11/3) / 2$; each has to be weighed by its number of samples.
# 3. Weights are whole everywhere; the state is dealt out from stage 1, the gradients in stage 2.

# %%
def wire(verb, size, n):
    return (n - 1) * {"all_reduce": 2 * size / n, "reduce_scatter": size / n, "all_gather": size}[verb]


def weighed(world, x):
    mine = x[:1] if world.rank == 0 else x[1:]
    model = DataParallel(nn.Linear(1, 1, bias=False))
    with model.weighted(len(mine)):
        model(mine).mean().backward()
    return model.module.weight.grad.item()


def needed(parameters, n, stage):
    gradients, state = (n if stage == 2 else 1), (n if stage >= 1 else 1)
    return 4 * parameters + 4 * parameters / gradients + 8 * parameters / state


assert check_wire(wire) == check_unequal(weighed) == check_memory(needed) == "right"
assert "right" not in (check_wire(on_the_wire), check_unequal(gradient_of_unequal), check_memory(memory))

# %% [markdown]
# ## What you know now
#
# - The gradient of a mean is a mean of gradients, so a batch can be cut and the training stays the same: to rounding
#   as alone, to the bit among the ranks.
# - A step costs 4 bytes for each parameter, whatever the batch. Forgetting to send them raises no error.
# - A ring sends $2 (n - 1) / n$ of the array, on every wire alike; its halves are `reduce_scatter` and `all_gather`.
# - A sharded optimizer keeps $1/n$ of the state, gives the same bits, and with sharded gradients sends no more.

# %%
# The same training, the same bits.
assert from_alone < 1e-12 and apart == 0 and drift > 0.01
# The account: 4 bytes a parameter, and a flag for each tensor; buckets change the calls only.
assert parameters == 2410 and step_bytes == predicted_step + 4 and accounts["broadcast"].bytes == predicted_start
assert small.bytes == large.bytes and (large.calls, small.calls) == (2 * STEPS, 3 * STEPS)
# The ring: each rank sends 2 (n - 1) / n, and all have the same sum.
assert all(rings[0].bytes_sent(one) == 2 * 3 * B // 4 for one in range(4)) and np.all(rings[2].result == 6)
assert np.allclose(sent, [2 * (n - 1) / n for n in sizes])
# Sharding: a quarter of the state, the same bits, and in stage 2 the bytes on the wire of stage 0, filled up to 2412.
assert [kept for _, kept, _ in stages[0]] == [8 * parameters] * 4
assert max(kept for _, kept, _ in stages[1]) == max(kept for _, kept, _ in stages[2]) == predicted_state
assert sum(kept for _, kept, _ in stages[2]) == 8 * parameters
assert all(np.array_equal(stages[0][0][0], one[0]) for results in stages for one in results)
halves = [wire(verb, stages[2][0][2][verb], 4) for verb in ("reduce_scatter", "all_gather")]
assert halves[0] == halves[1] and sum(halves) == wire("all_reduce", STEPS * 4 * 2412, 4)

# %% [markdown]
# Next: [15, compressed gradients](15_compressed_gradients.ipynb): must all 4 bytes a parameter be sent?
