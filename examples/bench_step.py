"""One eager training step against a hand-written floor, PyTorch and JAX.

A step is forward, cross-entropy, backward and Adam in float32 on a small ReLU network:

- floor    NumPy and Numba by hand, every buffer reused: what this machine can do in these languages
- torch    eager, with its fused Adam
- jax      the whole step compiled by jit, with Optax
"""

import functools
import itertools
import math
import statistics

import _peers

MODELS = [((64, 32, 10), 32), ((64, 128, 64, 10), 64), ((784, 128, 10), 64), ((784, 512, 512, 10), 128)]
TOYS = 3
GOALS = {"floor": 2.0, "torch": 0.35, "jax": 1.0}
STEPS_COMPARED = 20
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def problem(sizes, batch):
    """Weights (out, in), biases, inputs and labels: the same for every peer.

    Every input comes twice and with two labels, so that the loss stays away from zero and no gradient
    becomes a denormal number, which some processors handle very slowly.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    weights = [rng.uniform(-1, 1, (o, i)).astype("f4") / np.sqrt(i, dtype="f4")
               for i, o in itertools.pairwise(sizes)]
    biases = [np.zeros(o, "f4") for o in sizes[1:]]
    inputs = np.tile(rng.standard_normal((batch // 2, sizes[0]), dtype="f4"), (2, 1))
    return weights, biases, inputs, rng.integers(0, sizes[-1], batch)


def ours(sizes, batch):
    import tinygrad_opt as tg

    weights, biases, inputs, labels = problem(sizes, batch)
    layers = []
    for weight, bias in zip(weights, biases):
        layers += [tg.nn.Linear(*weight.T.shape), tg.nn.ReLU()]
        layers[-2].load_state_dict({"weight": weight, "bias": bias})
    model = tg.nn.Sequential(*layers[:-1])
    optimizer = tg.optim.Adam(model.parameters(), lr=LR)
    x, y = tg.Tensor(inputs), tg.Tensor(labels)

    def step():
        optimizer.zero_grad()
        loss = tg.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def eager_torch(sizes, batch):
    import torch
    from torch.nn import functional as F

    weights, biases, inputs, labels = problem(sizes, batch)
    layers = []
    for weight, bias in zip(weights, biases):
        layers += [torch.nn.Linear(*weight.T.shape), torch.nn.ReLU()]
        layers[-2].load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def compiled_jax(sizes, batch):
    import jax
    import optax

    weights, biases, inputs, labels = problem(sizes, batch)
    params = jax.device_put(list(zip(weights, biases)))
    x, y = jax.device_put((inputs, labels.astype("i4")))
    optimizer = optax.adam(LR)
    state = optimizer.init(params)

    def loss_of(params, h, y):
        for weight, bias in params[:-1]:
            h = jax.nn.relu(h @ weight.T + bias)
        weight, bias = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(h @ weight.T + bias, y).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, x, y):
        loss, gradients = jax.value_and_grad(loss_of)(params, x, y)
        changes, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, changes), state, loss

    def step():
        nonlocal params, state
        params, state, loss = update(params, state, x, y)
        jax.block_until_ready((params, state, loss))
        return loss

    return step


def kernels():
    """The floor's four kernels. They stand in a function so that only the floor's process loads Numba."""
    import numba
    from numpy import float32 as f4

    kernel = numba.njit(cache=True, fastmath=True, error_model="numpy")

    @kernel
    def bias_relu(h, b):
        for i in range(h.shape[0]):
            for j in range(h.shape[1]):
                h[i, j] = max(h[i, j] + b[j], f4(0))

    @kernel
    def cross_entropy(z, b, y, gb):
        """The loss of the logits z + b; z becomes its gradient, gb that of the bias."""
        n, classes = z.shape
        gb[:] = 0
        loss, share = 0.0, f4(1) / f4(n)
        for i in range(n):
            top = z[i, 0] + b[0]
            for j in range(classes):
                z[i, j] += b[j]
                top = max(top, z[i, j])
            total, target = f4(0), z[i, y[i]] - top
            for j in range(classes):
                z[i, j] = math.exp(z[i, j] - top)
                total += z[i, j]
            loss += math.log(total) - target
            for j in range(classes):
                z[i, j] *= share / total
            z[i, y[i]] -= share
            for j in range(classes):
                gb[j] += z[i, j]
        return loss / n

    @kernel
    def relu_backward(g, h, gb):
        gb[:] = 0
        for i in range(g.shape[0]):
            for j in range(g.shape[1]):
                g[i, j] = g[i, j] if h[i, j] > 0 else f4(0)
                gb[j] += g[i, j]

    @kernel
    def adam(p, g, m, v, lr, root, eps):
        for i in range(p.size):
            m[i] += f4(1 - BETA1) * (g[i] - m[i])
            v[i] += f4(1 - BETA2) * (g[i] * g[i] - v[i])
            p[i] -= lr * m[i] / (math.sqrt(v[i]) * root + eps)

    return bias_relu, cross_entropy, relu_backward, adam


def floor(sizes, batch):
    """One flat vector each for parameters, gradients and moments; weights and biases are views into them."""
    import numpy as np

    bias_relu, cross_entropy, relu_backward, adam = kernels()
    weights, biases, inputs, labels = problem(sizes, batch)
    p = np.concatenate([a.ravel() for pair in zip(weights, biases) for a in pair])
    g, m, v = np.zeros((3, p.size), "f4")

    def views(flat):
        ends = np.cumsum([a.size for pair in zip(weights, biases) for a in pair])[:-1]
        parts = np.split(flat, ends)
        return [w.reshape(like.shape) for w, like in zip(parts[::2], weights)], parts[1::2]

    (W, b), (gW, gb) = views(p), views(g)
    h = [inputs] + [np.empty((batch, o), "f4") for o in sizes[1:]]  # the last one becomes its own gradient
    gh = [np.empty_like(a) for a in h[:-1]] + h[-1:]
    last, t = len(W) - 1, 0

    def step():
        nonlocal t
        t += 1
        for k in range(last):
            np.dot(h[k], W[k].T, out=h[k + 1])
            bias_relu(h[k + 1], b[k])
        np.dot(h[last], W[last].T, out=h[-1])
        loss = cross_entropy(h[-1], b[last], labels, gb[last])
        for k in range(last, 0, -1):
            np.dot(gh[k + 1].T, h[k], out=gW[k])
            np.dot(gh[k + 1], W[k], out=gh[k])
            relu_backward(gh[k], h[k], gb[k - 1])
        np.dot(gh[1].T, h[0], out=gW[0])
        lr, root = LR / (1 - BETA1 ** t), 1 / math.sqrt(1 - BETA2 ** t)
        adam(p, g, m, v, np.float32(lr), np.float32(root), np.float32(EPS))
        return loss

    return step


PEERS = {"tinygrad_opt": ours, "floor": floor, "torch": eager_torch, "jax": compiled_jax}
REQUIREMENTS = {"tinygrad_opt": ["tinygrad_opt"], "floor": ["numba"], "torch": ["torch"], "jax": ["jax", "optax"]}


@functools.cache
def prepared(peer, model):
    step = PEERS[peer](*MODELS[model])
    return step, [float(step()) for _ in range(STEPS_COMPARED)]


def answer(peer, model, seconds=None):
    """In a peer's process: without `seconds` prepare the model, with them time a burst."""
    step, losses = prepared(peer, model)
    return {"losses": losses, "memory": _peers.peak_memory()} if seconds is None else _peers.burst(step, seconds)


def check(model, answers):
    """Whoever computes something else is not a peer."""
    reference = next(iter(answers.values()))["losses"]
    for name, result in answers.items():
        if not all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in zip(result["losses"], reference)):
            raise SystemExit(f"{name} trains {title(*MODELS[model])} to other losses: {result['losses']}, "
                             f"not {reference}")


def title(sizes, batch):
    return f"{'-'.join(map(str, sizes))}, {batch}"


def compare_memory(names):
    """Fresh processes that train the largest model only."""
    with _peers.running(names) as peers:
        peak = {name: result["memory"] for name, result in _peers.ask_all(peers, model=len(MODELS) - 1).items()}
    print(f"\nPeak memory of a process that trains {title(*MODELS[-1])}, in MB")
    for name in names:
        print(f"  {name:14}{peak[name]:8,.0f}")
    if len(names) == 2:
        print(f"  {'ours/torch':14}{_peers.verdict(peak['tinygrad_opt'] / peak['torch'], 1.0)}")


def main(quick):
    rounds, seconds = (1, 0.05) if quick else (11, 0.2)
    print(__doc__)
    names = _peers.installed(REQUIREMENTS)
    rivals = [name for name in GOALS if {name, "tinygrad_opt"} <= set(names)]
    print(f"Microseconds a step, {_peers.THREADS} threads a peer\n\n{'model, batch':20}"
          + "".join(f"{name:>13}" for name in names) + "".join(f"{'ours/' + name:>12}" for name in rivals))
    ratios = {name: [] for name in rivals}
    with _peers.running(names) as peers:
        for model, (sizes, batch) in enumerate(MODELS):
            check(model, _peers.ask_all(peers, model=model))
            times = _peers.ask_in_turn(peers, rounds, model=model, seconds=seconds)
            for name in rivals:
                ratios[name].append(times["tinygrad_opt"] / times[name])
            print(f"{title(sizes, batch):20}" + "".join(f"{times[name]:13,.1f}" for name in names)
                  + "".join(f"{ratios[name][-1]:12.2f}" for name in rivals), flush=True)
    compare_memory([name for name in names if name in ("tinygrad_opt", "torch")])
    if rivals:
        print(f"\nGeometric mean over the first {TOYS} models")
    for name in rivals:
        mean = statistics.geometric_mean(ratios[name][:TOYS])
        print(f"  {'ours/' + name:14}{_peers.verdict(mean, GOALS[name])}")


if __name__ == "__main__":
    _peers.start(main, answer)
