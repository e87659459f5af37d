"""What a product with a Jacobian, a Hessian, a Gauss-Newton or a Fisher matrix costs, in gradients.

The models are ReLU networks with cross-entropy, in float32; a gradient is its forward pass and backward. Beside the
times stands how many functions a task calls of those that operations and their gradients consist of: the small
model spends its time on these calls, the large one on arithmetic, and only there the goal applies. With an operator
(the last rows) the forward pass and the first backward are there already, as in every product but the first of
conjugate gradients or of Lanczos iteration.
"""

import functools
import sys

import _peers

MODELS = [((784, 128, 10), 128), ((64, 32, 10), 32)]
GOAL = 3.0
TASKS = ["gradient", "jvp", "hvp", "vhp", "ggn_vp", "fisher_vp exact", "fisher_vp mc", "fisher_vp empirical",
         "hessian_operator @", "ggn_operator @", "fisher_operator @"]


@functools.lru_cache
def tasks(model):
    """A function without arguments for each task."""
    import tinygrad_opt as tg

    tg.manual_seed(0)
    sizes, batch = MODELS[model]
    layers = [layer for n, m in zip(sizes, sizes[1:]) for layer in (tg.nn.Linear(n, m), tg.nn.ReLU())]
    network = tg.nn.Sequential(*layers[:-1])
    x, y = tg.randn(batch, sizes[0]), tg.randint(sizes[-1], (batch,))
    problem = tg.autograd.Problem.of_model(network, tg.cross_entropy, x, y)
    inputs = problem.parameters
    v = [tg.randn(p.shape) for p in inputs]
    flat = tg.cat([part.reshape(-1) for part in v])
    found = {"gradient": lambda: tg.grad(problem(*inputs), inputs)}
    for name in TASKS[1:]:
        tool, _, kind = name.partition(" ")
        tool = getattr(tg.autograd, tool)
        if kind == "@":
            found[name] = functools.partial(tool(problem).__matmul__, flat)
        else:
            function = problem.outputs if name == "jvp" else problem
            found[name] = functools.partial(tool, function, inputs, v, **({"kind": kind} if kind else {}))
    return found


def calls(task):
    """How often a task calls a function of the package's ops."""
    count = 0

    def watch(frame, event, argument):
        nonlocal count
        count += event == "call" and "tinygrad_opt/ops/" in frame.f_code.co_filename.replace("\\", "/")
    task()
    sys.setprofile(watch)
    try:
        task()
    finally:
        sys.setprofile(None)
    return count


def answer(peer, model, task, seconds=None):
    """In the peer's process: without `seconds` the calls of a task, with them its time in a burst."""
    task = tasks(model)[task]
    return calls(task) if seconds is None else _peers.burst(task, seconds)


def main(quick):
    rounds, seconds = (3, 0.05) if quick else (11, 0.2)
    print(__doc__)
    with _peers.running(["tinygrad_opt"]) as (peer,):
        for model, (sizes, batch) in enumerate(MODELS):
            work = {task: peer.ask(model=model, task=task) for task in TASKS}
            bursts = [{task: peer.ask(model=model, task=task, seconds=seconds) for task in TASKS}
                      for _ in range(rounds)]
            times = {task: min(burst[task] for burst in bursts) for task in TASKS}
            print(f"{'-'.join(map(str, sizes))}, {batch}".ljust(22) + f"{'us':>8}{'calls':>7}   gradients")
            for task in TASKS:
                ratio = times[task] / times["gradient"]
                print(f"{task:22}{times[task]:8,.0f}{work[task]:7}   "
                      + (f"{ratio:.2f}" if model or task == "gradient" else _peers.verdict(ratio, GOAL)), flush=True)
            print()


if __name__ == "__main__":
    _peers.start(main, answer)
