"""The family tree: which optimizer is which other one, at which options. Every edge is a test.

An edge says: `name` with `options` goes, step by step, where `other` with `others` goes. Exactly, to the last bit, or
but for rounding; for all parameters and gradients, or for those of `where`. Options that are not given are the
defaults of both, but for `lr`, which is the same number in both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .registry import find


class Edge(NamedTuple):
    """`name` with `options` is `other` with `others`; `words` say what it is besides."""

    name: str
    options: dict[str, Any]
    other: str
    others: dict[str, Any]
    words: str
    exact: bool = False
    where: str = ""

    def __str__(self) -> str:
        sides = (f"{name}({', '.join(f'{key}={value!r}' for key, value in options.items())})"
                 for name, options in ((self.name, self.options), (self.other, self.others)))
        return " is ".join(sides) + f" {self.where}" * bool(self.where) + ", exactly" * self.exact


# Optimizers that are no case of another one.
ROOTS = {
    "SGD": "the gradient",
    "Signum": "the sign of the mean gradient",
    "MADGRAD": "the sum of all gradients from the start, over the cube root of the sum of their squares",
}

# Not in the suite, but in books: the tests say what they are.
CONSTANT_NADAM, CORRECTED_RMSPROP = "NAdam with constant momentum", "bias-corrected RMSprop"
FULL_ADAGRAD = "full-matrix Adagrad"

FIXED = dict(growth_rate=1 + 1e-15, d0=0.05, lr=1)      # an estimate of the distance that hardly may grow
HUGE = 1e30                                             # as eps, beside which no gradient counts

EDGES = [
    # ---- sgd and its averages -------------------------------------------------------------------------------
    Edge("ASGD", dict(lambd=0), "SGD", {}, "SGD + an average of the path and a rate that falls", exact=True),
    Edge("AggMo", dict(betas=(0,)), "SGD", {}, "SGD + the mean of several momenta", exact=True),
    Edge("AggMo", dict(betas=(0.9,)), "SGD", dict(momentum=0.9), "SGD with momentum, where it has one", exact=True),
    Edge("QHM", dict(momentum=0.9, nu=0), "SGD", {}, "SGD + a share nu of averaged momentum", exact=True),
    Edge("QHM", dict(momentum=0.9, nu=1, lr=0.5), "SGD", dict(momentum=0.9, lr=0.05),
         "SGD with momentum, where nu is 1"),
    Edge("QHM", dict(momentum=0.9, nu=0.9, lr=0.5), "SGD", dict(momentum=0.9, nesterov=True, lr=0.05),
         "SGD with Nesterov's momentum, where nu is the momentum"),
    # ---- signs ----------------------------------------------------------------------------------------------
    Edge("Lion", dict(betas=(0.8, 0.8)), "Signum", dict(momentum=0.8),
         "Signum + a mean of its own for the step, and decoupled decay", exact=True),
    Edge("Rprop", dict(step_sizes=(0.05, 0.05)), "Signum", dict(momentum=0),
         "the sign of the gradient + a step size for each weight, which grows while the sign holds", exact=True,
         where="while gradients keep their signs"),
    # ---- the root of a mean square --------------------------------------------------------------------------
    Edge("Adagrad", dict(initial_accumulator_value=1e30, lr=0.05e15), "SGD", dict(lr=0.05),
         "SGD + a rate for each weight, over the root of its summed squares"),
    Edge("Adadelta", dict(eps=HUGE), "SGD", {}, "SGD + the size of recent steps over that of recent gradients",
         exact=True),
    Edge("RMSprop", dict(alpha=0, eps=0), "Signum", dict(momentum=0),
         "the sign of the gradient, softened: over the root of a mean square"),
    Edge("Adam", dict(betas=(0, 0.9)), CORRECTED_RMSPROP, dict(alpha=0.9), "bias-corrected RMSprop + a mean gradient"),
    Edge("Adam", dict(betas=(0, 0.9), eps=HUGE, lr=0.05 * HUGE), "SGD", dict(lr=0.05), "SGD, where eps is huge"),
    Edge("Adam", dict(decoupled_weight_decay=True, weight_decay=0.1), "AdamW", dict(weight_decay=0.1),
         "AdamW, where its decay is decoupled", exact=True),
    # ---- relatives of Adam ----------------------------------------------------------------------------------
    Edge("AdamW", dict(weight_decay=0), "Adam", {}, "Adam + decoupled decay", exact=True),
    Edge("Adamax", dict(betas=(0, 0), eps=0), "Signum", dict(momentum=0),
         "the sign of the gradient, softened: Adam over the largest recent gradient"),
    Edge("NAdam", dict(momentum_decay=1e9), CONSTANT_NADAM, {}, "Adam + Nesterov's look ahead, which warms up"),
    Edge("NAdam", dict(betas=(0, 0.9)), "Adam", dict(betas=(0, 0.9)), "Adam, where there is no momentum"),
    Edge("NAdam", dict(betas=(0, 0.9)), CORRECTED_RMSPROP, dict(alpha=0.9),
         "bias-corrected RMSprop, where there is no momentum"),
    Edge("RAdam", dict(betas=(0, 0.5)), "SGD", {}, "SGD with averaged momentum, until the mean square can be trusted",
         exact=True),
    Edge("QHAdam", {}, "Adam", {}, "Adam + shares of the plain gradient and of its square", exact=True),
    Edge("QHAdam", dict(nus=(0, 1)), "Adam", dict(betas=(0, 0.999)), "Adam without momentum, where nu1 is 0",
         exact=True),
    Edge("AdaBound", dict(gamma=1e-15, eps=0), "Adam", dict(eps=0), "Adam + bounds that close in on SGD's rate"),
    Edge("AdaBound", dict(gamma=1e-15, eps=0, amsbound=True), "Adam", dict(eps=0, amsgrad=True),
         "AMSGrad + these bounds, where amsbound is set"),
    Edge("Adan", dict(betas=(0.9, 0, 0.99)), "Adam", dict(betas=(0.9, 0.99)),
         "Adam + the mean change of the gradient", exact=True),
    Edge("AdEMAMix", dict(alpha=0), "Adam", {}, "Adam + a slow mean of the gradients"),
    Edge("AdEMAMix", dict(alpha=0, weight_decay=0.1), "AdamW", dict(weight_decay=0.1),
         "AdamW + a slow mean of the gradients"),
    Edge("AdaBelief", dict(betas=(0, 0.75), eps=0.25, lr=0.0625), "SGD", dict(lr=0.05),
         "SGD + less trust where the gradient surprises: Adam over the mean square of the surprise"),
    Edge("Yogi", dict(betas=(0, 0.9), eps=HUGE, lr=0.05 * HUGE), "SGD", dict(lr=0.05),
         "SGD + Adam's moments, the square of which moves by steps that do not depend on it"),
    Edge("ADOPT", dict(betas=(0.9, 0.99), eps=HUGE, lr=0.05 * HUGE), "QHM", dict(momentum=0.9, nu=1, lr=0.05),
         "QHM's momentum of gradients over the root of the mean square before", where="from the second step on"),
    # ---- steps from the loss or the distance ----------------------------------------------------------------
    Edge("PolyakSGD", dict(f_star=-1e9, max_lr=0.05), "SGD", dict(lr=0.05),
         "SGD + a rate from the loss: what is left of it over the squared gradient", exact=True),
    Edge("DoG", dict(reps_rel=1e6, lr=2.5e-8, eps=0), "Adagrad", dict(eps=0),
         "Adagrad with one rate for all weights + the distance from the start for lr", where="on a number"),
    Edge("DAdaptSGD", FIXED, "SGD", {}, "SGD from the start + an estimate of the distance for lr",
         where="where the first gradient has norm 1"),
    Edge("DAdaptAdam", dict(FIXED, betas=(0, 0.9)), "RMSprop", dict(alpha=0.9),
         "RMSprop + a mean gradient and an estimate of the distance for lr"),
    Edge("Prodigy", dict(d_coef=1e-300, d0=0.05, lr=1, use_bias_correction=True, eps=0), "Adam", dict(eps=0),
         "Adam + an estimate of the distance for lr"),
    # ---- layers ---------------------------------------------------------------------------------------------
    Edge("LARS", dict(exclude_1d=True), "SGD", dict(momentum=0.9), "SGD with momentum + a rate for each layer",
         where="on vectors"),
    Edge("LAMB", dict(trust_clip=True, weight_decay=0.1), "AdamW", dict(weight_decay=0.1, eps=1e-6),
         "AdamW + a rate for each layer", where="while parameters outweigh their step"),
    Edge("NovoGrad", dict(eps=HUGE, lr=0.05 * HUGE), "SGD", dict(momentum=0.9, lr=0.05),
         "SGD with momentum + each layer's gradient over its mean norm"),
    # ---- curvature ------------------------------------------------------------------------------------------
    Edge("SophiaG", dict(betas=(0.9, 0.99), rho=1e-30, weight_decay=0), "Signum", dict(momentum=0.9),
         "Signum + smaller steps where the curvature is large", exact=True),
    Edge("SophiaH", dict(betas=(0.9, 0.99), eps=1e-100), "Signum", dict(momentum=0.9),
         "Signum + a smaller step where it reaches the minimum of the curve", exact=True,
         where="while there is no estimate of the curvature"),
    # ---- without a schedule ---------------------------------------------------------------------------------
    Edge("ScheduleFreeSGD", dict(momentum=1e-300), "SGD", {},
         "SGD + an average of its path, near which gradients are taken", exact=True),
    Edge("ScheduleFreeAdamW", dict(betas=(1e-300, 0.9)), CORRECTED_RMSPROP, dict(alpha=0.9),
         "bias-corrected RMSprop + an average of its path, near which gradients are taken, and decay"),
    # ---- matrices -------------------------------------------------------------------------------------------
    Edge("Shampoo", {}, FULL_ADAGRAD, {}, "full-matrix Adagrad, one matrix for each axis", where="on vectors"),
    Edge("Shampoo", dict(eps=0.5), "Adagrad", dict(initial_accumulator_value=0.5, eps=0),
         "Adagrad + the products of gradients, not their squares alone", where="on a number"),
    Edge("SOAP", dict(max_precond_dim=0, betas=(0.9, 0.99), eps=0, weight_decay=0), "Adam",
         dict(betas=(0.9, 0.99), eps=0), "Adam in the eigenbasis of Shampoo", where="from the second step on"),
    Edge("Muon", dict(ns_steps=0, eps=1e3, momentum=0.9, weight_decay=0, lr=50), "QHM",
         dict(momentum=0.9, nu=0.9, lr=0.05), "QHM + singular values all near one", where="on wide matrices"),
    Edge("Adafactor", dict(beta2_decay=0, eps=(None, 1e3), lr=5e-5), "Signum", dict(momentum=0),
         "the sign of the gradient, softened: over mean squares of rows and columns, times the size of the parameter",
         where="on vectors"),
    # ---- wrappers -------------------------------------------------------------------------------------------
    Edge("SAM", dict(base_optimizer="SGD", momentum=0.9, rho=0), "SGD", dict(momentum=0.9),
         "its base, here SGD, + the gradient of where the loss is worst nearby", exact=True),
    Edge("SAM", dict(base_optimizer="Adam", rho=0, adaptive=True), "Adam", {},
         "its base, here Adam, + the same with the neighbourhood scaled by the parameters", exact=True),
    Edge("Lookahead", dict(base_optimizer="SGD", momentum=0.9, alpha=1), "SGD", dict(momentum=0.9),
         "its inner one, here SGD, + a slow path that follows every k steps", exact=True),
    Edge("Lookahead", dict(base_optimizer="Adam", alpha=1, k=3), "Adam", {},
         "its inner one, here Adam, + the same", exact=True),
]


class Lineage(list[Edge]):
    """The edges of the family tree that meet in one optimizer: first what it is itself, then what others make of it."""

    def __init__(self, name: str) -> None:
        super().__init__(sorted((edge for edge in EDGES if name in (edge.name, edge.other)),
                                key=lambda edge: edge.name != name))
        self.name = name

    def __str__(self) -> str:
        root = [f"{self.name} = {ROOTS[self.name]}"] if self.name in ROOTS else []
        return "\n".join(root + [f"{edge.name} = {edge.words}\n    {edge}" for edge in self])

    __repr__ = __str__


def lineage(name: str) -> Lineage:
    """Return what an optimizer is, in terms of the others: the edges of the family tree that meet in it.

    Parameters
    ----------
    name : str
        Of its class; case and punctuation do not matter.

    Returns
    -------
    Lineage
        A list of edges; printed, each says in words what an optimizer adds to another one, and at which options
        nothing is left of that.

    Raises
    ------
    ValueError
        When the tree has no such optimizer, naming the nearest.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.optim.lineage("Lion")
    Lion = Signum + a mean of its own for the step, and decoupled decay
        Lion(betas=(0.8, 0.8)) is Signum(momentum=0.8), exactly
    >>> print(tg.optim.lineage("AdamW")[0].words)
    Adam + decoupled decay
    """
    names = {*ROOTS, *(name for edge in EDGES for name in (edge.name, edge.other))}
    return Lineage(find(name, sorted(names), "optimizer in the family tree"))
