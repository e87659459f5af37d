"""Our minimizers beside SciPy's on the problems of Moré, Garbow & Hillstrom: what is solved, and what it costs.

SciPy is given our gradients and Hessian products, so that the method is all that differs; both have the same tight
tolerances and limits. Evaluations are those of function and gradient together, products with the Hessian beside them
(a whole Hessian is n of them). `lm` is least squares: residuals and Jacobians are counted, and ours has no option set.
`*` is not solved: further than 1e-6 from every known minimum.

    python examples/bench_minimize.py [METHOD ...]
"""

import math
import sys
import warnings
from pathlib import Path
from statistics import fmean

import numpy as np

import tinygrad_opt as tg
from tinygrad_opt.optim import LBFGS, GaussNewton, NewtonCG, TrustRegion

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from _mgh import PROBLEMS  # noqa: E402

TIGHT, EVALUATIONS = 1e-8, 15_000


def iterations(problem):
    """Return the limit of both: SciPy's default for Newton's methods."""
    return 200 * problem.start.size


# SciPy's method -> its options, and ours: class and options.
METHODS = {
    "L-BFGS-B": (dict(gtol=TIGHT, ftol=1e-15, maxfun=EVALUATIONS, maxiter=EVALUATIONS), LBFGS, dict(
        tolerance_grad=TIGHT, tolerance_change=1e-15, max_eval=EVALUATIONS, max_iter=EVALUATIONS,
        line_search_fn="strong_wolfe")),
    "Newton-CG": (dict(xtol=TIGHT), NewtonCG, dict(xtol=TIGHT)),
    "trust-ncg": (dict(gtol=TIGHT), TrustRegion, dict(gtol=TIGHT)),
    "dogleg": (dict(gtol=TIGHT), TrustRegion, dict(gtol=TIGHT, subproblem="dogleg")),
    "lm": (dict(ftol=1e-15, xtol=TIGHT, gtol=1e-15, max_nfev=EVALUATIONS), GaussNewton, dict(max_iter=EVALUATIONS)),
}


def ours(problem, method):
    """Return the loss at the end, evaluations of function and gradient, and products."""
    _, optimizer_class, options = METHODS[method]
    x = tg.tensor(problem.start, dtype=tg.float64, requires_grad=True)
    optimizer = optimizer_class([x], **{"max_iter": iterations(problem), **options})

    def closure():
        if method == "lm":
            return problem.residuals(x)
        optimizer.zero_grad()
        loss = problem.loss(x)
        loss.backward()
        return loss
    with np.errstate(all="ignore"):
        optimizer.step(closure)
    report = optimizer.report
    return problem.loss(x).item(), report.functions + report.gradients, report.products


def scipys(problem, method):
    """Return the same of SciPy's."""
    from scipy.optimize import least_squares, minimize

    calls = {"f": 0, "g": 0, "H": 0}

    def counted(what, function, weight=1):
        def call(x, *v):
            calls[what] += weight
            return function(tg.tensor(x, dtype=tg.float64), *v)
        return call
    curvature = {}
    if method == "dogleg":
        curvature["hess"] = counted("H", lambda x: np.stack([tg.hvp(problem.loss, x, e)[1].numpy()
                                                             for e in np.eye(len(x))]), problem.start.size)
    elif method != "L-BFGS-B":
        curvature["hessp"] = counted("H", lambda x, v: tg.hvp(problem.loss, x, v)[1].numpy())
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if method == "lm":
            result = least_squares(counted("f", lambda x: problem.residuals(x).numpy()), problem.start, method="lm",
                                   jac=counted("g", lambda x: tg.autograd.jacobian(problem.residuals, x).numpy()),
                                   **METHODS[method][0])
            return 2 * result.cost, calls["f"] + calls["g"], 0
        try:
            result = minimize(
                counted("f", lambda x: problem.loss(x).item()), problem.start, method=method,
                jac=counted("g", lambda x: tg.vjp(problem.loss, x)[1].numpy()),
                options={"maxiter": iterations(problem), **METHODS[method][0]}, **curvature)
            value = result.fun
        except ValueError:                          # dogleg, of a Hessian that is not finite
            value = math.nan
    return value, calls["f"] + calls["g"], calls["H"]


def compare(method, problems):
    """Print a line for each problem; return how many each has solved, and the ratio of evaluations where both have."""
    print(f"\n{method:32s}{'n':>3s}  {'ours':>12s}{'f+g':>7s}{'Hv':>7s}   {'SciPy':>12s}{'f+g':>7s}{'Hv':>7s}")
    solved, logs = np.zeros(2, int), []
    for problem in problems:
        runs = [ours(problem, method), scipys(problem, method)]
        good = [problem.solved(value) for value, *_ in runs]
        solved += good
        if all(good):
            logs.append(math.log(runs[0][1] / runs[1][1]))
        cells = "  ".join(f"{value:12.5e}{'' if ok else '*':1s}{evaluations:6d}{products:7d}"
                          for (value, evaluations, products), ok in zip(runs, good))
        print(f"{problem.name:32s}{problem.start.size:3d}  {cells}")
    ratio = math.exp(fmean(logs))
    print(f"solved {solved[0]} : {solved[1]} of {len(problems)}; evaluations, geometric mean of ours / SciPy's: "
          f"{ratio:.3f}")
    return *solved.tolist(), ratio


if __name__ == "__main__":
    for name in sys.argv[1:] or METHODS:
        compare(name, list(PROBLEMS.values()))
