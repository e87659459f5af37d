"""The failure gallery: famous ways in which training goes wrong, each run until it does, and then cured.

Every page asserts what it claims: when a failure no longer fails, or its cure no longer cures, it raises.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi, sqrt
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import ops
from ..optim import SGD, Adam
from ..optim.adam import adam
from ..optim.lr_scheduler import CosineAnnealingLR
from ..optim.registry import create, find
from ..optim.transforms import ClipNorm
from ..tensor import Tensor
from .objective import Objective
from .style import INK, figure, looks, styled
from .surfaces import surface
from .traces import record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves over the steps.

    Attributes
    ----------
    what : str
        What is measured.
    curves : dict of str to array
        By the name of each.
    scale : {"linear", "log", "symlog"}
        Of the vertical axis.
    marks : dict of str to float
        Heights to be marked, by what they are.
    """

    what: str
    curves: dict[str, np.ndarray]
    scale: str = "linear"
    marks: dict[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Failure:
    """A failure that has happened, and its cure; printed as its story.

    Attributes
    ----------
    name, title, question : str
        The question is to be answered before reading on.
    happens : tuple of str
        What was measured and asserted.
    why : str
        The reason.
    cure : str
        What to do.
    cured : tuple of str
        What was measured and asserted with the cure.
    panels : tuple of Panel
        The curves.
    """

    name: str
    title: str
    question: str
    happens: tuple[str, ...]
    why: str
    cure: str
    cured: tuple[str, ...]
    panels: tuple[Panel, ...]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All curves, by what is measured and the name of each."""
        return {f"{panel.what}: {name}": curve for panel in self.panels for name, curve in panel.curves.items()}

    def draw(self) -> Figure:
        """Draw the curves.

        Returns
        -------
        Figure
            Of matplotlib.
        """
        with styled():
            picture = figure(4.6 * max(len(self.panels), 1.5), 3.7)
            picture.suptitle(self.title, x=0.02, ha="left", fontsize=12)
            for axes, panel in zip(np.atleast_1d(picture.subplots(1, len(self.panels))), self.panels):
                _draw(axes, panel)
        return picture

    def __str__(self) -> str:
        parts = [("", self.question), *(("happens", line) for line in self.happens), ("why", self.why),
                 ("cure", self.cure), *(("cured", line) for line in self.cured)]
        lines, last = [f"{self.title} ({self.name})"], ""
        for head, text in parts:
            shown, last = "" if head == last else head, head
            lines.append(fill(text, 100, initial_indent=f"  {shown:<9}", subsequent_indent=" " * 11))
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the story; `draw` has the picture."""
        def listed(lines: tuple[str, ...]) -> str:
            return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
        return (f"<h4>{html.escape(self.title)}</h4><p><i>{html.escape(self.question)}</i></p>{listed(self.happens)}"
                f"<p>{html.escape(self.why)}</p><p><b>Cure:</b> {html.escape(self.cure)}</p>{listed(self.cured)}")


def _draw(axes: Any, panel: Panel) -> None:
    for (name, curve), look in zip(panel.curves.items(), looks(panel.curves).values()):
        axes.plot(np.arange(len(curve)), curve, color=look.color, linestyle=look.linestyle, label=name)
    for text, height in (panel.marks or {}).items():
        axes.axhline(height, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate(text, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
    axes.set(xlabel="step", title=panel.what)
    axes.set_yscale(panel.scale)
    axes.legend(fontsize=9)


def holds(condition: Any, sentence: str) -> str:
    """Return the sentence that a condition allows to say.

    Raises
    ------
    AssertionError
        When the condition does not hold.
    """
    if not condition:
        raise AssertionError(f"this does not hold: {sentence}")
    return sentence


def failures() -> dict[str, str]:
    """Return the failures of the gallery: name -> title.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> tg.lab.failures()["reddi"]
    'Adam goes to the worst point'
    """
    return {name: page.title for name, page in PAGES.items()}


def failure(name: str) -> Failure:
    """Let a failure happen, and cure it.

    Parameters
    ----------
    name : str
        One of `failures()`, whatever its case and punctuation.

    Returns
    -------
    Failure

    Raises
    ------
    ValueError
        When there is none of that name, naming the nearest.
    AssertionError
        When something that it claims does not hold.

    Examples
    --------
    >>> import tinygrad_opt as tg
    >>> print(tg.lab.failure("rmsprop start"))
    """
    told = PAGES[find(name, PAGES, "failure", "tg.lab.failures()")]
    happens, cured, panels = told.run()
    return Failure(told.name, told.title, told.question, happens, told.why, told.cure, cured, panels)


# ---- the pages ----------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a page has seen: what was asserted of the failure and of its cure, and the curves."""

    happens: tuple[str, ...]
    cured: tuple[str, ...]
    panels: tuple[Panel, ...]


Run = Callable[[], Outcome]


@dataclass(frozen=True)
class Page:
    """What is said of a failure, and what makes it happen."""

    name: str
    title: str
    question: str
    why: str
    cure: str
    run: Run


PAGES: dict[str, Page] = {}


def page(title: str, question: str, why: str, cure: str) -> Callable[[Run], Run]:
    """Put a function into the gallery, under its name."""
    def put(run: Run) -> Run:
        name = run.__name__.strip("_")
        PAGES[name] = Page(name, title, question, why, cure, run)
        return run
    return put


def _height(at: Any, path: np.ndarray) -> np.ndarray:
    """Return how far a surface is above its lowest point along a path."""
    return np.asarray(at(path.T)) - at.lowest


@page("Adam goes to the worst point",
      "Every third gradient is +3, the others are -1: on the whole the loss falls towards x = -1. Where does Adam go?",
      "Adam divides each gradient by the root of a mean square that it has forgotten at the next large one. The rare "
      "large gradient so moves it by no more than each of the small ones, of which there are two.",
      "Divide by the largest mean square so far: amsgrad=True. Or remember longer: a beta2 near 1.")
def _reddi() -> Outcome:
    runs = {name: record("adam", "reddi", 600, lr=lambda t: 0.5 / sqrt(t + 1), **options).path[:, 0]
            for name, options in (("Adam, beta2 = 0.1", dict(betas=(0, 0.1))),
                                  ("AMSGrad", dict(betas=(0, 0.1), amsgrad=True)),
                                  ("Adam, beta2 = 0.999", dict(betas=(0, 0.999))))}
    short, amsgrad, long = (run[-60:].mean() for run in runs.values())
    return Outcome((holds(short > 0.98, f"Adam ends at {short:+.3f}, where the mean loss is highest on [-1, 1]."),),
                   (holds(amsgrad < -0.98, f"AMSGrad ends at {amsgrad:+.3f}, the lowest point."),
                    holds(long < -0.98, f"With beta2 = 0.999 Adam itself ends at {long:+.3f}.")),
                   (Panel("x", runs, marks={"worst": 1.0, "best": -1.0}),))


@page("Adagrad never forgets a wall",
      "A run begins on a steep wall and comes to a gentle slope, with its goal at 10. Does Adagrad get there?",
      "Adagrad divides by the root of the sum of all squares. The gradients of the wall stay in that sum for ever, so "
      "the rate that they demanded is the rate on the slope too; it never grows again.",
      "Forget: a running mean of the squares, as in RMSprop and Adam.")
def _adagrad() -> Outcome:
    def wall(w: Any) -> Any:
        return ops.exp(-4 * w[0]) + 0.05 * (w[0] - 10) ** 2
    runs = {name: record(name, wall, 1000, start=np.array([-1.5]), **options)
            for name, options in (("Adagrad", dict(lr=0.5)), ("RMSprop", dict(lr=0.05, alpha=0.9)))}
    slow, fast = runs["Adagrad"], runs["RMSprop"]
    there = int(np.argmax(fast.path[:, 0] > 9.9))
    rates = slow.rates["w"][0, 0], slow.rates["w"][-1, 0], fast.rates["w"][there, 0]
    return Outcome((holds(slow.path[-1, 0] < 2, f"After 1000 steps with lr 0.5 Adagrad is at {slow.path[-1, 0]:.2f}."),
                    holds(all(np.diff(slow.rates["w"][:, 0]) <= 1e-12) and rates[1] < rates[2] / 50,
                          f"Its effective rate fell at every single step, to {rates[1]:.1e}; that of RMSprop has "
                          f"grown again to {rates[2]:.1f} where it arrives.")),
                   (holds(0 < there < 500, f"RMSprop, with a tenth of that lr, is at 9.9 after {there} steps."),),
                   (Panel("x", {name: run.path[:, 0] for name, run in runs.items()}, marks={"goal": 10.0}),
                    Panel("effective rate", {name: run.rates["w"][:, 0] for name, run in runs.items()}, "log")))


@page("Momentum beyond the edge of stability",
      "A bowl of curvature 10, momentum 0.9. At which lr does the run explode?",
      "On a bowl of curvature h the heavy ball is a linear map, and its spectral radius passes 1 at lr = 2 (1 + beta) / "
      "h exactly. Below, everything shrinks, above, everything grows: there is nothing in between.",
      "Lower lr below the edge, 2 (1 + beta) / h with h the largest curvature; momentum widens it, at most twice.")
def _momentum() -> Outcome:
    h, beta = 10.0, 0.9
    edge = 2 * (1 + beta) / h

    def bowl(w: Any) -> Any:
        return (h / 2 * w ** 2).sum()
    runs = {f"{share} of the edge": abs(record("sgd", bowl, 300, start=np.array([1.0]), lr=share * edge,
                                               momentum=beta).path[:, 0]) for share in (1.01, 0.99)}
    over, under = (run[-1] for run in runs.values())
    return Outcome((holds(over > 1e20, f"At lr {1.01 * edge:.4f}, a hundredth above the edge of {edge:.2f}, the distance "
                                       f"grows from 1 to {over:.0e} in 300 steps."),),
                   (holds(under < 1e-5, f"At lr {0.99 * edge:.4f}, a hundredth below it, it falls to {under:.0e}."),),
                   (Panel("distance from the minimum", runs, "log"),))


@page("Weight decay that spares the loud",
      "Two weights with gradients of mean 0, one a hundred times larger than the other. Which decays faster in Adam, "
      "with an L2 penalty?",
      "The penalty is added to the gradient, and Adam divides gradients by their size. So a weight whose gradients "
      "are large is hardly decayed: the division takes the penalty with it.",
      "Decouple the decay: AdamW shrinks every weight by the same share, lr * weight_decay.")
def _l2() -> Outcome:
    def walk(name: str) -> np.ndarray:
        w = Tensor(np.ones(2), requires_grad=True)
        optimizer, points = create(name, [w], lr=1e-3, weight_decay=1.0), [w.numpy().copy()]
        for k in range(1000):
            w.grad = Tensor(np.array([10.0, 0.1]) * (-1) ** k)
            optimizer.step()
            points.append(w.numpy().copy())
        return np.array(points)
    coupled, decoupled, share = walk("Adam"), walk("AdamW"), 0.999 ** 1000
    loud, quiet = coupled[-1]
    return Outcome((holds(loud > 0.88 and quiet < 0.3, f"With an L2 penalty in Adam the weight with large gradients keeps "
                                                       f"{loud:.0%} of its size, the one with small gradients {quiet:.0%}."),),
                   (holds(abs(decoupled[-1] - share).max() < 0.01, f"In AdamW they keep {decoupled[-1, 0]:.1%} and "
                          f"{decoupled[-1, 1]:.1%}, and (1 - lr * weight_decay)^1000 is {share:.1%}."),),
                   (Panel("weight, Adam with L2", {"gradients of 10": coupled[:, 0], "gradients of 0.1": coupled[:, 1]}),
                    Panel("weight, AdamW", {"gradients of 10": decoupled[:, 0], "gradients of 0.1": decoupled[:, 1]})))


@page("zero_grad forgotten",
      "Gradient descent on a bowl, and nobody clears the gradients. Does it diverge, converge, or neither?",
      "Backward adds to .grad, so each step goes along the sum of all gradients so far. That sum is a velocity that "
      "nothing brakes: the run is a pendulum without friction.",
      "optimizer.zero_grad() before each backward; optimizer.watch() names the mistake.")
def _zero_grad() -> Outcome:
    def walk(clear: bool) -> tuple[np.ndarray, str]:
        w = Tensor(np.ones(1), requires_grad=True)
        optimizer, points = SGD([w], lr=0.1), [1.0]
        with optimizer.watch() as watch:
            for _ in range(200):
                if clear:
                    optimizer.zero_grad()
                (w ** 2 / 2).sum().backward()
                optimizer.step()
                points.append(w.item())
            return np.array(points), str(watch.report())
    (swinging, found), (falling, nothing) = walk(False), walk(True)
    late = abs(swinging[-40:]).max()
    return Outcome((holds(0.95 < late < 1.05, f"It swings: in the last 40 of 200 steps it still goes out to {late:.2f}, from "
                                              "a start at 1."),
                    holds("gradients add up" in found, 'The watch says "gradients add up from step to step".')),
                   (holds(abs(falling[-1]) < 1e-8 and "add up" not in nothing,
                          f"With zero_grad it is at {falling[-1]:.0e}, and the watch finds nothing of the kind."),),
                   (Panel("w", {"without zero_grad": swinging, "with zero_grad": falling}),))


@page("The schedule stepped twice",
      "A cosine from lr 0.05 to 0 over 400 steps, but the scheduler is stepped twice in each of them. What is lr at "
      "the end?",
      "The schedule counts its own steps. At half of the run it has reached 0, where nothing is learned, and then the "
      "cosine climbs back: the run ends with the largest rate, in full noise.",
      "One scheduler.step() for each optimizer.step(), after it. Plot the lr that was used, not the one that you meant.")
def _schedule() -> Outcome:
    def walk(times: int, seed: int) -> tuple[list[float], np.ndarray]:
        objective = Objective("noisy_ravine", seed=seed)
        w, = objective.parameters.values()
        optimizer = SGD([w], lr=0.05)
        scheduler, rates, points = CosineAnnealingLR(optimizer, T_max=400), [], []
        for k in range(400):
            objective.begin(k)
            rates.append(optimizer.lr)
            optimizer.step(objective.backward)
            points.append(w.numpy().copy())
            for _ in range(times):
                scheduler.step()
        return rates, _height(objective.surface, np.array(points))
    runs = {name: [walk(times, seed) for seed in range(4)] for name, times in (("twice", 2), ("once", 1))}
    rates = {name: np.array(run[0][0]) for name, run in runs.items()}
    heights = {name: np.mean([height for _, height in run], axis=0) for name, run in runs.items()}
    twice, once = (height[-20:].mean() for height in heights.values())
    w = Tensor(np.ones(1), requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CosineAnnealingLR(SGD([w], lr=0.05), T_max=400).step()
    return Outcome((holds(rates["twice"][200] < 1e-9 and rates["twice"][-1] > 0.0499,
                          f"lr is {rates['twice'][200]:.2g} at step 200, and {rates['twice'][-1]:.4f} at the end."),
                    holds(twice > 10 * once, f"The last 20 steps lie {twice:.2g} above the minimum."),
                    holds("never used" in str(caught[0].message), "The other mistake, a scheduler.step() before the first "
                          'optimizer.step(), is told by a warning: "the first value 0.05 was never used".')),
                   (holds(once < 0.02, f"Stepped once, lr ends at {rates['once'][-1]:.1e} and the run {once:.2g} above the "
                                       "minimum."),),
                   (Panel("lr", rates), Panel("height above the minimum", heights, "log")))


@page("An eps that half precision does not have",
      "Adam with everything in float16, its eps the usual 1e-8. What is the first step where the gradient is 0?",
      "The smallest number of float16 is 6e-8: eps = 1e-8 is 0, and so is the mean square of any gradient below 5e-3. "
      "The step is then 0 / 0 or m / 0.",
      "Keep the state, and a copy of the weights, in float32, as every optimizer here does for float16 parameters. A "
      "larger eps alone only hides it.")
def _float16() -> Outcome:
    gradient = np.array([0, 1e-4, 1e-2], "float16")

    def rule(eps: float) -> np.ndarray:
        m = v = np.zeros(3, "float16")
        with np.errstate(all="ignore"):
            p, _, _ = adam(np.ones(3, "float16"), gradient, m, v, 1, *map(np.float16, (1e-3, 0.9, 0.999, eps)))
        return p - 1
    raw, hidden = rule(1e-8), rule(1e-3)
    w = Tensor(np.ones(3, "float16"), requires_grad=True)
    optimizer = Adam([w], lr=1e-3)
    w.grad = Tensor(gradient)
    optimizer.step()
    step = w.numpy().astype("float64") - 1
    return Outcome((holds(np.float16(1e-8) == 0, "In float16, 1e-8 is 0."),
                    holds(np.isnan(raw[0]) and np.isinf(raw[1]), f"The first steps for gradients of 0, 1e-4 and 1e-2 are "
                          f"{raw[0]}, {raw[1]} and {raw[2]:.1e}."),
                    holds(hidden[1] == 0, "With eps = 1e-3 they are finite, and the second weight does not move at all.")),
                   (holds(step[0] == 0 and abs(step[1:] + 1e-3).max() < 3e-5, "With float32 state they are 0, "
                          f"{step[1]:.1e} and {step[2]:.1e}, as in theory: -lr."),),
                   (Panel("first step of the three weights", {"float16, eps 1e-8": raw.astype("float64"),
                                                              "float16, eps 1e-3": hidden.astype("float64"),
                                                              "float32 state": step}),))


@page("RMSprop leaps at its first step",
      "RMSprop with lr 0.01 and alpha 0.99. How long is its first step, for any gradient?",
      "The mean square starts at 0 and after one step holds only a hundredth of the square. The step is divided by its "
      "root, a tenth of the gradient: it is lr / sqrt(1 - alpha).",
      "Correct the start as Adam does, or warm lr up over the first 1 / (1 - alpha) steps.")
def _rmsprop_start() -> Outcome:
    def slope(w: Any) -> Any:
        return (3 * w).sum()
    runs = {name: -record(optimizer, slope, 200, start=np.array([1.0]), lr=0.01, **options).updates["w"][:, 0] / 0.01
            for name, optimizer, options in (("RMSprop", "rmsprop", dict(alpha=0.99)),
                                             ("Adam, betas (0, 0.99)", "adam", dict(betas=(0, 0.99))))}
    leap, even = runs.values()
    return Outcome((holds(abs(leap[0] - 10) < 1e-5, f"The first step is {leap[0]:.2f} times lr, for every gradient."),
                    holds(leap[20] > 2, f"The step after 20 others still is {leap[20]:.1f} times lr.")),
                   (holds(abs(even - 1).max() < 1e-5, "With bias correction every step is lr: the longest of 200 is "
                                                      f"{even.max():.4f} times."),),
                   (Panel("length of the step, in lr", runs, marks={"lr": 1.0}),))


@page("Nesterov does not help with noise",
      "Nesterov's method finds the bottom of a ravine far faster than plain gradient descent. And with small batches?",
      "Near the minimum the gradients are noise, and momentum 0.9 adds up ten of them: the run is as noisy as one with "
      "a larger lr. Acceleration shortens the way down; it cannot go below the noise.",
      "Let lr fall at the end, or take larger batches: then the way down was worth it.")
def _nesterov() -> Outcome:
    noisy, still = surface("noisy_ravine"), surface("ravine", kappa=20)

    def walk(on: Any, lr: Any, seeds: int, steps: int, **options: Any) -> np.ndarray:
        return np.mean([_height(on, record("sgd", on, steps, lr=lr, seed=seed, **options).path)
                        for seed in range(seeds)], axis=0)
    ways = {"SGD": {}, "Nesterov": dict(momentum=0.9, nesterov=True)}
    exact = {name: walk(still, 0.02, 1, 100, **options) for name, options in ways.items()}
    rough = {name: walk(noisy, 0.02, 4, 200, **options) for name, options in ways.items()}
    sgd, nesterov = (run[-100:].mean() for run in rough.values())
    rough["Nesterov, falling lr"] = walk(noisy, lambda t: 0.01 * (1 + cos(pi * t / 200)), 4, 200, **ways["Nesterov"])
    last = rough["Nesterov, falling lr"][-10:].mean()
    gain = exact["SGD"][-1] / exact["Nesterov"][-1]
    return Outcome((holds(gain > 1000, f"Without noise Nesterov is {gain:,.0f} times lower than SGD after 100 steps."),
                    holds(nesterov > 2.5 * sgd, f"With batches of 8 it hovers {nesterov:.2f} above the minimum, "
                                                f"{nesterov / sgd:.1f} times as high as SGD with the same lr.")),
                   (holds(last < sgd / 3, f"With a cosine of lr to 0 it ends {last:.3f} above the minimum."),),
                   (Panel("height, exact gradients", exact, "log"), Panel("height, batches of 8", rough, "log")))


@page("A plateau where nothing moves",
      "A sigmoid should say 0 and says 0.999994, with a squared error. How far do 1000 steps of SGD move its weight?",
      "The slope of the squared error is multiplied by that of the sigmoid, which is flat there: the gradient is 1e-5, "
      "however wrong the answer. SGD moves by the gradient; Adam divides it by its own size, and walks.",
      "A loss whose slope does not vanish, here cross-entropy; or a method without a scale, such as Adam.")
def _plateau() -> Outcome:
    def squared(w: Any) -> Any:
        return (ops.sigmoid(w) ** 2).sum()

    def entropy(w: Any) -> Any:
        return ops.softplus(w).sum()
    runs = {name: record(optimizer, loss, steps, start=np.array([12.0]), lr=lr).path[:, 0]
            for name, optimizer, loss, lr, steps in (("SGD", "sgd", squared, 1.0, 1000),
                                                     ("Adam", "adam", squared, 0.1, 200),
                                                     ("SGD, cross-entropy", "sgd", entropy, 1.0, 200))}
    stuck, walks, other = runs.values()
    moved = 12 - stuck[-1]
    arrived = [int(np.argmax(run < -3)) for run in (walks, other)]
    return Outcome((holds(0 < moved < 0.02, f"1000 steps of SGD with lr 1 move the weight from 12 to {stuck[-1]:.3f}."),),
                   (holds(0 < arrived[0] < 300, f"Adam with lr 0.1 says less than 0.05 after {arrived[0]} steps."),
                    holds(0 < arrived[1] < 60, f"SGD on the cross-entropy does after {arrived[1]}.")),
                   (Panel("weight", {name: run[:201] for name, run in runs.items()}, marks={"the sigmoid says 0.05": -3.0}),))


@page("Signs that never settle",
      "Lion with a constant lr of 0.1, on a bowl. How close to the minimum does it come?",
      "Every step has the length lr, whatever the gradient: near the minimum it can only step across it, to and fro.",
      "Let lr fall to 0: the steps are as long as lr says, so lr has to shorten them.")
def _lion() -> Outcome:
    runs = {name: abs(record("lion", lambda w: (w ** 2).sum(), 200, start=np.array([1.03]), lr=lr).path[:, 0])
            for name, lr in (("lr 0.1", 0.1), ("lr falling to 0", lambda t: 0.1 * (1 - t / 200)))}
    hovering, settled = (run[-20:] for run in runs.values())
    return Outcome((holds(0.02 < hovering.min() and hovering.max() < 0.15, "In the last 20 of 200 steps it is between "
                          f"{hovering.min():.2f} and {hovering.max():.2f} away from it, without coming closer."),),
                   (holds(settled[-1] < 0.002, f"With lr falling to 0 it ends {settled[-1]:.4f} away."),),
                   (Panel("distance from the minimum", runs, "log"),))


@page("Over the cliff",
      "Gradient descent on w^4 / 4 with lr 0.3 works from w = 1. And from w = 3?",
      "The gradient grows with the third power, the step with it: the first one lands further away than it came from, "
      "where the gradient is larger still.",
      "Limit the length of the gradient: grad_transforms=[ClipNorm(1.0)].")
def _cliff() -> Outcome:
    def quartic(w: Any) -> Any:
        return (w ** 4 / 4).sum()

    def walk(start: float, steps: int = 40, **options: Any) -> np.ndarray:
        return abs(record("sgd", quartic, steps, start=np.array([start]), lr=0.3, **options).path[:, 0])
    near, far, clipped = walk(1.0), walk(3.0, 5), walk(3.0, grad_transforms=[ClipNorm(1.0)])
    return Outcome((holds(near[-1] < 0.3, f"From 1 it comes down to {near[-1]:.2f} in 40 steps."),
                    holds(far[5] > 1e30, f"From 3 it is at {far[1]:.1f} after one step, at {far[3]:.1e} after three and at "
                                         f"{far[5]:.0e} after five.")),
                   (holds(clipped[-1] < 0.3 and clipped.max() <= 3, "Clipped to length 1 it comes down from 3 to "
                                                                    f"{clipped[-1]:.2f} in 40 steps."),),
                   (Panel("distance from the minimum", {"from 3": far, "from 3, clipped": clipped, "from 1": near}, "log"),))
