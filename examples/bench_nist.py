"""GaussNewton on NIST's 27 certified nonlinear regressions, two starts each, beside SciPy's least_squares (MINPACK).

For each fit the number of correct digits of its worst parameter (11 are certified), and how often residuals + Jacobian
were evaluated. Nothing is set for ours. SciPy has method="lm" and Jacobians by our tape: once as it comes, once with
its tolerances at 1e-15 and as many evaluations as it likes. `python examples/bench_nist.py` takes ten seconds.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

import tinygrad_opt as tg
from tinygrad_opt.optim.second_order.gauss_newton import GaussNewton

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import _nist  # noqa: E402

TIGHT = dict(xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=10_000)


def ours(problem, start):
    b = [tg.tensor(value, dtype="float64", requires_grad=True) for value in start]
    optimizer = GaussNewton(b)
    optimizer.step(lambda: problem.residuals(b))
    return [value.item() for value in b], optimizer.report.functions, optimizer.report.gradients


def scipys(problem, start, **options):
    def residuals(b):
        return problem.residuals(tg.tensor(b)).numpy()

    def jacobian(b):
        columns = [tg.jvp(problem.residuals, tg.tensor(b), e)[1].numpy() for e in np.eye(len(b))]
        return np.stack(columns, axis=1)

    found = least_squares(residuals, start, jacobian, method="lm", **options)
    return found.x, found.nfev, found.njev


SOLVERS = {"ours": ours, "SciPy": scipys, "SciPy, 1e-15": lambda *fit: scipys(*fit, **TIGHT)}


def main():
    print(f"{'':10}{'start':>6}" + "".join(f"{name:>14}{'evaluations':>13}" for name in SOLVERS))
    digits, evaluations = [], []
    for name in _nist.MODELS:
        problem = _nist.read(name, tg.tensor)
        for k, start in enumerate(problem.starts, start=1):
            found = [solve(problem, start) for solve in SOLVERS.values()]
            digits.append([problem.digits(b) for b, *_ in found])
            evaluations.append([sum(counts) for _, *counts in found])
            print(f"{name:10}{k:6}" + "".join(f"{d:14.1f}{f'{functions} + {jacobians}':>13}"
                                             for d, (_, functions, jacobians) in zip(digits[-1], found)))
    solved, means = (np.array(digits) >= 6).sum(0), np.exp(np.log(evaluations).mean(0))
    print(f"{'6 digits':16}" + "".join(f"{f'{n} of {len(digits)}':>14}{'':13}" for n in solved))
    print(f"{'geometric mean':16}" + "".join(f"{'':14}{mean:13.1f}" for mean in means))


if __name__ == "__main__":
    with np.errstate(all="ignore"):                 # MINPACK tries points where a model overflows
        main()
