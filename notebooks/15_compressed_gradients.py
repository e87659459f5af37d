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
# # Compressed gradients
#
# Data parallel training sends 4 bytes for each parameter and step (lesson
# [13](13_data_parallel_digits.ipynb)). On a slow wire that is most of the time. Suppose you may send **one byte in
# thirteen**. Which one? The largest numbers? Random ones? One bit of each? A few directions of every matrix?
#
# And what becomes of the other twelve? That second question turns out to matter more than the first.

# %%
import math

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt import nn
from tinygrad_opt.distributed import DataParallel, PowerSGD, RandomK, ScaledSign, TopK, simulate

tg.manual_seed(0)
tg.backend.name

# %% [markdown]
# ## 1. What is not sent
#
# Begin with a rank alone, and a gradient of three numbers that is the same in every step: 1, 0.3 and 0.1. `TopK(1/3)`
# sends the largest number and 0 for the others. So the third is never the largest, and would never move.
#
# The remedy is to *remember*. What was not sent is the **residual**; it is added to the next gradient before the
# choice is made. **Guess:** in 30 steps, how often is each of the three sent?

# %%
guess_sent = [30, 0, 0]                         # yours?
constant = np.array([1.0, 0.3, 0.1])


def follow(world, compression, steps):
    """Return what was sent in each step, and the residual after it."""
    rows = [(compression.average(world, constant).copy(), compression.residuals[0].copy()) for _ in range(steps)]
    return np.array([sent for sent, _ in rows]), np.array([residual for _, residual in rows])


sent, residuals = simulate(1, follow, TopK(1 / 3), 30)[0]
often = (sent != 0).sum(axis=0).tolist()
print(f"you said {guess_sent}, it is {often}")
print(f"sent in all {sent.sum(axis=0).round(3)}, due was {(30 * constant).round(3)}")
tg.lab.draw_curves({f"{g:g}, sent so far": sent[:, k].cumsum() for k, g in enumerate(constant)}
                   | {f"{g:g}, due": constant[k] * np.arange(1, 31) for k, g in enumerate(constant)},
                   "small numbers come rarely, and then at once", first=1)

# %% [markdown]
# Each small number waits until its residual is the largest, and then comes all at once. Nothing is lost, it only comes
# later. That this must be so takes two lines. In step $t$, with gradient $g_t$, sent $s_t$ and residual $e_t$:
#
# $$s_t + e_t = g_t + e_{t-1} \quad\Longrightarrow\quad \sum_{t=1}^{T} s_t = \sum_{t=1}^{T} g_t - e_T$$
#
# All residuals in between cancel. Whatever the compression does, the sum of all that was sent is the sum of all
# gradients, but for the *last* residual. So it is enough that residuals stay small; this is called **error feedback**.
#
# For numbers that are picked, as in `TopK` and `RandomK`, $s_t + e_t$ is even right to the bit: each number is either
# sent or kept. A sign or a matrix product is rounded. **Guess** which of the four is exact below.

# %%
noise = np.random.default_rng(0).standard_normal((32, 64)).astype("float32")


def sent_and_kept(world, compression):
    return compression.average(world, noise), compression.residuals[0]


makers = {"TopK": lambda: TopK(0.08), "RandomK": lambda: RandomK(0.08), "ScaledSign": ScaledSign, "PowerSGD": PowerSGD}
error = {}
for name, make in makers.items():
    once, left = simulate(1, sent_and_kept, make())[0]
    error[name] = float(np.abs(once + left - noise).max())
    print(f"{name:<10}  |sent + residual - gradient| {error[name]:.1e}   residual {np.linalg.norm(left):.1f} of "
          f"{np.linalg.norm(noise):.1f}")

# %% [markdown]
# Look at the residuals too. Of pure noise the sign leaves 27 of 45 behind, the others still more. A gradient, however,
# is not noise.
#
# ## 2. What a gradient looks like
#
# `PowerSGD` bets that a gradient, as a matrix, has a few strong directions. Take one of a network for the digits, and
# its *singular values*: the strengths of its directions. **Guess:** how much of the gradient (of the sum of its
# squares) do the best one and the best four of 32 directions hold? And the largest 45 of its 2048 numbers?

# %%
guess_shares = 1 / 32, 4 / 32, 45 / 2048        # yours?
digits, examined = tg.data.digits()
x, y = digits.tensors


def network():
    return nn.Sequential(nn.Linear(64, 32, generator=tg.Generator(0)), nn.ReLU(),
                         nn.Linear(32, 10, generator=tg.Generator(1)))


model = network()
tg.cross_entropy(model(x[:128]), y[:128]).backward()
matrix = model[0].weight.grad.numpy().copy()


def shares(matrix):
    """Return which share of a matrix its best directions hold, and its largest numbers, from one to all."""
    strengths = np.linalg.svd(matrix, compute_uv=False) ** 2
    squares = np.sort(matrix.ravel() ** 2)[::-1]
    return strengths.cumsum() / strengths.sum(), squares.cumsum() / squares.sum()


by_direction, by_number = shares(matrix)
print(f"you said {guess_shares}")
print(f"one direction {by_direction[0]:.0%}, four {by_direction[3]:.0%}, 45 numbers {by_number[44]:.0%}")
noise_direction, noise_number = shares(noise)
costs = 4 * (32 + 64) * np.arange(1, 21), 8 * np.arange(1, 961)
tg.lab.draw_curves({"directions": (costs[0], by_direction[:20]), "numbers": (costs[1], by_number[:960]),
                    "directions of noise": (costs[0], noise_direction[:20]),
                    "numbers of noise": (costs[1], noise_number[:960])},
                   "what the bytes of one rank buy", xlabel="bytes handed over (of 8192)",
                   ylabel="share of the squares")

# %% [markdown]
# The gradient has structure, of both kinds. A direction of a 32 by 64 matrix costs $32 + 64$ numbers of 4 bytes, a
# picked number 8 bytes, 4 for its place; so the curves are drawn over bytes. For a gradient both stand far above noise,
# and directions buy more.
#
# Why directions? The gradient of a weight matrix is a sum over samples of $\delta\, a^{\mathsf T}$, the error behind
# the layer times the input before it: **one direction for each sample**, and samples are alike.
#
# ## 3. Directions without a decomposition
#
# A decomposition in every step would be dear, and those of four ranks cannot be averaged. PowerSGD does one step of the
# *power method*: $P = MQ$, averaged and made orthogonal; $Q = M^{\mathsf T} P$, averaged; sent is $P Q^{\mathsf T}$. It
# begins with a random $Q$ and keeps it. Both are linear in $M$, so the means over the ranks are those of the mean
# matrix.
#
# **Guess:** on the same matrix again and again, *without* its residual, how many steps until rank 1 is as good as the
# best direction?

# %%
def missed(world, rank, steps=8):
    """Return which share of the squares is not sent, step by step, with no residual added."""
    compression, rows = PowerSGD(rank), []
    for _ in range(steps):
        compression.residuals.clear()
        left = matrix - compression.average(world, matrix)
        rows.append(float((left ** 2).sum() / (matrix ** 2).sum()))
    return rows


missing = {rank: simulate(1, missed, rank)[0] for rank in (1, 4)}
best = {rank: 1 - by_direction[rank - 1] for rank in missing}
tg.lab.draw_curves({f"rank {rank}": rows for rank, rows in missing.items()}
                   | {f"best of rank {rank}": [best[rank]] * 8 for rank in missing}, "one power step at a time",
                   ylabel="share that is missed", first=1, ylim=(0, 1))

# %% [markdown]
# Four or five for one direction, two for four. In training that is soon enough, for gradients change slowly, and $Q$ is
# there already from the step before.
#
# **What does full rank mean?** With rank $r$ the two factors are $(32 + 64)\,r$ numbers. At the true full rank, 32,
# that is 3072, more than the 2048 of the matrix. So where the factors would be no smaller, here from $r = 22$, the
# matrix is sent whole, and the mean is exact. The same holds for vectors, such as the offsets, always.

# %%
def cost_and_residual(world, rank):
    compression = PowerSGD(rank)
    compression.average(world, matrix)
    return world.accounts["all_reduce"].bytes, float(np.abs(compression.residuals[0]).max())


for rank in (1, 21, 22, 32):
    size, left = simulate(1, cost_and_residual, rank)[0]
    print(f"rank {rank:2}: {size:5} bytes, largest residual {left:.1e}")

# %% [markdown]
# ## 4. Equal bytes
#
# To compare methods they must pay the same. The same *what*? Two verbs are at work, and a ring carries them
# differently: `all_reduce` of $b$ bytes sends $2 \frac{n-1}{n} b$; `all_gather`, in which each rank's $b$ bytes go
# round to all others, sends $(n - 1)\, b$. Places differ from rank to rank, so `TopK` must gather. PowerSGD and
# `RandomK`, whose ranks draw the same places, reduce.
#
# For four ranks that is $1.5\, b$ against $3\, b$. PowerSGD of rank 1 hands over
# $4\,(32 + 64 + 32 + 10 + 42) = 720$ bytes for our network. **Predict** how many numbers TopK may pick then, and
# RandomK.

# %%
RANKS, PARAMETERS = 4, 2410
factors = 4 * (32 + 64 + 32 + 10 + 32 + 10)     # two matrices as factors, two rows of offsets whole
top = int(1.5 * factors / (3 * 8))
random = int(1.5 * factors / (1.5 * 4))


def wire_bytes(world):
    """Return what a rank has sent so far for its gradients, if all verbs are done by rings."""
    weight = {"all_reduce": 2 * (world.size - 1) / world.size, "all_gather": world.size - 1}
    return sum(weight.get(verb, 0) * account.bytes for verb, account in world.accounts.items())


def train(world, make=None, lr=1.0, steps=100, feedback=True):
    """Train on 128 digits a step; return every fifth step bytes on the wire, loss on all digits, and residual."""
    model, compression = network(), make() if make else None
    parallel = DataParallel(model, world, compression=compression)
    optimizer = tg.optim.SGD(model.parameters(), lr=lr)
    order, rows = np.random.default_rng(0), []
    for step in range(steps):
        mine = order.permutation(len(x))[:128][world.rank::world.size]
        optimizer.zero_grad()
        tg.cross_entropy(parallel(x[mine]), y[mine]).backward()
        optimizer.step()
        if compression is not None and not feedback:
            compression.residuals.clear()
        if world.rank == 0 and step % 5 == 4:
            left = compression.residuals.values() if compression is not None else ()
            with tg.no_grad():
                rows.append((wire_bytes(world), tg.cross_entropy(model(x), y).item(),
                             math.sqrt(sum(float((e ** 2).sum()) for e in left))))
    return np.array(rows)


methods = {"everything": None, "TopK": lambda: TopK((top - 0.5) / PARAMETERS),
           "RandomK": lambda: RandomK((random - 0.5) / PARAMETERS), "ScaledSign": ScaledSign, "PowerSGD": PowerSGD}
print(f"TopK picks {top} of {PARAMETERS} numbers, RandomK {random}")
for name, make in methods.items():
    print(f"{name:<10} {simulate(RANKS, train, make, 1.0, 5)[0][-1, 0] / 5:7.0f} bytes a step")

# %% [markdown]
# Three of them are equal, to the byte. The sign has no knob: a bit for each number and one size, a little less. (Four
# flags a step, 6 bytes on the wire, are in all of them.) "Everything" pays 13 times as much.
#
# ## 5. Feedback or not
#
# Now train, 100 steps at rate 0.3, with and without residuals. **Guess:** for which method is the difference largest?

# %%
guess_largest = "TopK"                          # yours?
compressed = [name for name in methods if name != "everything"]
kept = {name: simulate(RANKS, train, methods[name], 0.3)[0] for name in compressed}
thrown = {name: simulate(RANKS, train, methods[name], 0.3, 100, False)[0] for name in compressed}
for name in compressed:
    print(f"{name:<10}  loss with residuals {kept[name][-1, 1]:.3f}, without {thrown[name][-1, 1]:.3f}")
tg.lab.draw_curves({name: (range(5, 101, 5), run[:, 1]) for name, run in kept.items()}
                   | {f"{name}, thrown away": (range(5, 101, 5), run[:, 1]) for name, run in thrown.items()},
                   "with residuals and without", ylabel="loss")

# %% [markdown]
# With residuals three lie together, and RandomK is a little behind. Without, every one is much slower, and RandomK,
# whose choice knows nothing of the gradient, simply makes a step of one number in thirteen: it has hardly begun. So you
# see what the memory is worth: **a poor choice with it beats the best choice without**.
#
# How large do residuals become? If they grew without end, so would the delay.

# %%
tg.lab.draw_curves({name: (range(5, 101, 5), run[:, 2]) for name, run in kept.items()},
                   "what rank 0 has not sent yet", ylabel="norm of all residuals")

# %% [markdown]
# They rise, stay of one size, and fall as the gradients do. The lower, the fresher is what is sent: here the choice
# shows after all. RandomK carries most with it, since a number waits 13 steps on average.
#
# ## 6. The race
#
# A rate that suits one need not suit the other. So each gets the best of three, and the curves are drawn over what was
# paid. **Guess** the order. And: does anything compressed end below "everything" after equally many steps?

# %%
rates = 0.3, 1.0, 2.0
tried = {(name, lr): kept[name] if lr == 0.3 and make else simulate(RANKS, train, make, lr)[0]
         for name, make in methods.items() for lr in rates}


def final(run):
    return float(run[-4:, 1].mean())            # of four points: single ones are noisy


finals = {name: {lr: final(tried[name, lr]) for lr in rates} for name in methods}
best_rate = {name: min(rates, key=finals[name].get) for name in methods}
print(f"{'':<10}" + "".join(f"{f'rate {lr}':>10}" for lr in rates))
for name in methods:
    print(f"{name:<10}" + "".join(f"{finals[name][lr]:10.3f}" for lr in rates))
best_runs = {name: tried[name, best_rate[name]] for name in methods}
tg.lab.draw_curves({f"{name}, rate {best_rate[name]}": (run[:, 0] / 1000, run[:, 1])
                    for name, run in best_runs.items()}, "what bytes buy", xscale="log", yscale="log",
                   xlabel="kilobytes sent by a rank", ylabel="loss")

# %% [markdown]
# Over bytes it is no contest: for the bytes of all 100 compressed steps, "everything" can make seven. And per step the
# good methods lose nothing to speak of.
#
# Three honest remarks.
#
# - **The winner of section 2 does not win here.** Directions bought more of a gradient than numbers did, but the
#   residual brings the rest soon enough, so a better single step is worth little. On this small network, with four
#   ranks, PowerSGD is no better than TopK or the sign.
# - **The table is mostly about the rate.** Some take a rate at which "everything" breaks down. That does not mean that
#   less information is better. A step that moves few weights, or all by one size, is less easily thrown out by one
#   steep direction, and "everything" with a finer grid, momentum or Adam may get there too. RandomK shows the
#   reverse: its late, large deliveries break at a rate that all others like.
# - One network, one seed, three rates: the differences between the good ones are not to be trusted.
#
# ## 7. And with more ranks?
#
# **Guess:** at equal bytes with PowerSGD of rank 1, how many numbers may TopK pick with 16 ranks? With 64?

# %%
def numbers_to_pick(n):
    """Return how many numbers TopK can pick for the bytes of PowerSGD of rank 1."""
    return int(2 * (n - 1) / n * factors / (8 * (n - 1)))


print({n: numbers_to_pick(n) for n in (2, 4, 16, 64)})
wide = {name: simulate(16, train, make, 0.3, 50)[0] for name, make in {
    "TopK": lambda: TopK((numbers_to_pick(16) - 0.5) / PARAMETERS), "PowerSGD": PowerSGD}.items()}
for name, run in wide.items():
    print(f"{name:<8} on 16 ranks: {run[-1, 0] / 50:.0f} bytes a step, loss {run[-1, 1]:.3f} after 50 steps")

# %% [markdown]
# What is gathered grows with the number of ranks, what is reduced does not. From 90 numbers at two ranks, two are left
# at 64. On 16 ranks TopK is clearly behind already, where on four they were about equal. That is PowerSGD's real
# argument, not the quality of its steps: **its messages can be added up on the way**.
#
# And whether any of it saves *time* is another question. Choosing and multiplying take time too, and on a fast wire,
# where the gradients are hidden behind the backward pass, the answer is usually no. Measure with
# `tg.distributed.report()` first: if `waited` is small, send everything.
#
# ## Exercises
#
# Change the cell, run it again.
#
# **1. Feedback by hand.** Return what is sent of a gradient, the `k` largest in absolute value and 0 elsewhere, and the
# new residual.

# %%
def send_largest(gradient, residual, k):
    sent = np.zeros_like(gradient)
    sent[np.argsort(np.abs(gradient))[-k:]] = np.sort(gradient)[-k:]
    return sent, gradient - sent


# %%
def check_feedback(answer):
    gradients = np.random.default_rng(1).standard_normal((20, 12))
    residual, compression = np.zeros(12), TopK(3 / 12)
    for step, g in enumerate(gradients, start=1):
        sent, residual = answer(g.copy(), residual.copy(), 3)
        right = simulate(1, lambda world, g=g: compression.average(world, g))[0]
        if not np.array_equal(sent, right) or not np.array_equal(residual, compression.residuals[0]):
            return f"step {step}: sent is off by {np.abs(sent - right).max():.3g}"
    return "right"


print(check_feedback(send_largest))

# %% [markdown]
# **2. Lossless.** A layer of `rows` by `columns` weights sees a batch of `batch` samples. Return the least rank of
# PowerSGD with which its gradient is sent without loss (but for rounding), also as a whole: section 3.

# %%
def lossless_rank(batch, rows, columns):
    return min(rows, columns)


# %%
def left_over(world, batch, rank):
    model, compression = network(), PowerSGD(rank)
    tg.cross_entropy(model(x[:batch]), y[:batch]).backward()
    compression.average(world, model[0].weight.grad)
    return float(np.abs(compression.residuals[0]).max() / np.abs(model[0].weight.grad.numpy()).max())


def check_lossless(answer):
    for batch in (1, 3, 5, 100):
        rank = answer(batch, 32, 64)
        if simulate(1, left_over, batch, rank)[0] > 1e-4:
            return f"{batch} samples: rank {rank} loses something"
        if rank > 1 and simulate(1, left_over, batch, rank - 1)[0] < 1e-4:
            return f"{batch} samples: rank {rank} is more than is needed"
    return "right"


print(check_lossless(lossless_rank))

# %% [markdown]
# **3. The break-even.** With how many ranks, at least 2, does TopK with places (8 bytes a number, gathered) send more
# than *everything* (4 bytes a number, reduced)? Return the smallest such number for a `fraction`.

# %%
def break_even(fraction):
    return 2


# %%
def check_break_even(answer):
    right = {0.5: 3, 0.1: 11, 0.01: 101, 0.3: 4}
    wrong = [fraction for fraction in right if answer(fraction) != right[fraction]]
    return f"fraction {wrong[0]}: expected {right[wrong[0]]}, got {answer(wrong[0])}" if wrong else "right"


print(check_break_even(break_even))

# %% [markdown]
# ## Solutions
#
# 1. The choice is made from gradient *plus* residual, and the new residual is what is left of the same sum.
# 2. One direction for each sample, at most as many as fit into the matrix, and from 22 on it is sent whole.
# 3. $8 f (n - 1) > 8 \frac{n - 1}{n}$ where $n > 1 / f$.

# %%
def with_feedback(gradient, residual, k):
    due = gradient + residual
    sent = np.zeros_like(due)
    places = np.argsort(np.abs(due))[-k:]
    sent[places] = due[places]
    return sent, due - sent


def by_samples(batch, rows, columns):
    return min(batch, math.ceil(rows * columns / (rows + columns)))


def from_formula(fraction):
    return max(2, math.floor(1 / fraction + 1e-9) + 1)


assert check_feedback(with_feedback) == check_lossless(by_samples) == check_break_even(from_formula) == "right"
assert "right" not in (check_feedback(send_largest), check_lossless(lossless_rank), check_break_even(break_even))

# %% [markdown]
# ## What you know now
#
# - Sent plus residual is the gradient, so the sum of what is sent is the sum of all gradients but for the last
#   residual.
# - Throwing the residual away costs far more than a poor choice of what to send.
# - A gradient has few strong directions, one a sample at most; one power step a step, with a memory, finds them.
# - Equal bytes must be counted on the wire: what is gathered grows with the ranks, what is reduced does not.
# - At a thirteenth of the bytes a step is nearly as good; which method is best depends on the rate more than on the
#   method.

# %%
# Nothing is lost: the sums agree but for the last residual, and picked numbers agree to the bit.
assert np.allclose(sent.sum(axis=0) + residuals[-1], 30 * constant) and all(n > 0 for n in often)
assert error["TopK"] == error["RandomK"] == 0 and max(error.values()) < 1e-5
# A gradient has structure that noise has not; the power method finds the best directions.
assert by_direction[0] > by_number[47] > noise_number[47] > noise_direction[0]      # each for 384 bytes
assert by_direction[0] > 2 * noise_direction[0] and by_number[44] > 1.5 * noise_number[44]
assert all(best[rank] - 1e-6 < rows[-1] < 1.1 * best[rank] and rows[-1] < rows[0] for rank, rows in missing.items())
assert simulate(1, cost_and_residual, 22)[0] == (4 * 2048, 0.0) and simulate(1, cost_and_residual, 21)[0][1] > 0
# Equal bytes, a thirteenth of all.
assert len({tried[name, 1.0][-1, 0] for name in ("TopK", "RandomK", "PowerSGD")}) == 1
assert tried["everything", 1.0][-1, 0] > 13 * tried["PowerSGD", 1.0][-1, 0] > 13 * tried["ScaledSign", 1.0][-1, 0]
# The residual is worth more than the choice; without it each is far behind.
assert all(kept[name][-1, 1] < 0.75 * thrown[name][-1, 1] for name in compressed)
assert max(run[-1, 1] for run in kept.values()) < min(run[-1, 1] for run in thrown.values())
# Per step as good as everything, at the rate that suits all.
assert all(abs(finals[name][0.3] - finals["everything"][0.3]) < 0.12 for name in ("TopK", "ScaledSign", "PowerSGD"))
# The rate decides: at 2 everything breaks down, the largest numbers and the signs do not.
assert finals["everything"][2.0] > 1 > 2 * max(finals["TopK"][2.0], finals["ScaledSign"][2.0])
# What is gathered grows with the ranks; the bytes of the two stay equal but for one number.
assert [numbers_to_pick(n) for n in (2, 4, 16, 64)] == [90, 45, 11, 2]
assert wide["PowerSGD"][-1, 1] < wide["TopK"][-1, 1]
assert 0 <= wide["PowerSGD"][-1, 0] - wide["TopK"][-1, 0] < 50 * 8 * 15

# %% [markdown]
# Next: [08, one rule, three backends](08_one_rule_three_backends.ipynb), if you have skipped it: write the optimizer
# that these gradients are handed to.
