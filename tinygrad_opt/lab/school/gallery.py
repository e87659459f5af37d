"""The failure gallery: famous ways in which training goes wrong, each run until it does, and then cured.

Every page asserts what it claims: when a failure no longer fails, or its cure no longer cures, it raises.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, pi, sqrt
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import ops
from ...optim import SGD, Adam
from ...optim.adam import adam
from ...optim.lr_scheduler import CosineAnnealingLR
from ...optim.registry import create, find
from ...optim.transforms import ClipNorm
from ...tensor import Tensor
from ..objective import Objective
from ..style import INK, LOOKS, figure, styled
from ..surfaces import surface
from ..traces import record

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
    places : tuple of str
        What the values belong to, where they are no steps.
    """

    what: str
    curves: dict[str, np.ndarray]
    scale: str = "linear"
    marks: dict[str, float] = field(default_factory=dict)
    places: tuple[str, ...] = ()


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
    """Draw a panel; what fails is the first curve, red and on top."""
    healthy, failing, *others = LOOKS
    for k, ((name, curve), look) in enumerate(zip(panel.curves.items(), (failing, healthy, *others))):
        steps = np.arange(len(curve)) + 0.12 * (k - 1) * bool(panel.places)
        style = dict(linestyle="", marker=look.marker) if panel.places else dict(linestyle=look.linestyle)
        axes.plot(steps, curve, color=look.color, label=name, zorder=9 - k, **style)
        for step, value in zip(steps, curve):
            if not np.isfinite(value):
                axes.annotate(str(value), (step, 0.5), xycoords=("data", "axes fraction"), ha="center",
                              color=look.color)
    for text, height in panel.marks.items():
        axes.axhline(height, color=INK, linewidth=0.9, linestyle=":")
        axes.annotate(text, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
    axes.set_title(panel.what)
    axes.set_yscale(panel.scale)
    if panel.places:
        axes.set_xticks(range(len(panel.places)), panel.places)
        axes.margins(x=0.15)
    else:
        axes.set_xlabel("step")
    axes.legend(fontsize=9, frameon=True, framealpha=0.9, edgecolor="none").set_zorder(10)


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
    RMSprop leaps at its first step (rmsprop_start)
               RMSprop with lr 0.01 and alpha 0.99. How long is its first step, for any gradient?
      happens  The first step is 10.00 times lr, for every gradient.
               The step after 20 others still is 2.3 times lr.
      why      The mean square starts at 0 and after one step holds only a hundredth of the square. The
               step is divided by its root, a tenth of the gradient: it is lr / sqrt(1 - alpha).
      cure     Correct the start as Adam does, or warm lr up over the first 1 / (1 - alpha) steps.
      cured    With bias correction every step is lr: the longest of 200 is 1.0000 times lr.
    """
    told = PAGES[find(name, PAGES, "failure", "tg.lab.failures()")]
    story = Story()
    told.run(story)
    return Failure(told.name, told.title, told.question, tuple(story.happened), told.why, told.cure,
                   tuple(story.were_cured), tuple(story.panels))


# ---- the pages ----------------------------------------------------------------------------------------------------


class Story:
    """What a page tells while it runs; a claim that does not hold raises."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.were_cured: list[str] = []
        self.panels: list[Panel] = []

    def happens(self, condition: Any, sentence: str) -> None:
        """Claim something of the failure."""
        self._claim(condition, sentence, self.happened)

    def cured(self, condition: Any, sentence: str) -> None:
        """Claim something of its cure."""
        self._claim(condition, sentence, self.were_cured)

    def _claim(self, condition: Any, sentence: str, told: list[str]) -> None:
        if not condition:
            raise AssertionError(f"this does not hold: {sentence}")
        told.append(sentence)

    def panel(self, what: str, curves: dict[str, np.ndarray], scale: str = "linear", **more: Any) -> None:
        """Show curves: what fails first."""
        self.panels.append(Panel(what, curves, scale, **more))


@dataclass(frozen=True)
class Page:
    """What is said of a failure, and what makes it happen."""

    name: str
    title: str
    question: str
    why: str
    cure: str
    run: Callable[[Story], None]


PAGES: dict[str, Page] = {}


def page(title: str, question: str, why: str, cure: str) -> Callable[[Callable], Callable]:
    """Put a function into the gallery, under its name."""
    def put(run: Callable[[Story], None]) -> Callable[[Story], None]:
        name = run.__name__.strip("_")
        PAGES[name] = Page(name, title, question, why, cure, run)
        return run
    return put


def _height(at: Any, path: np.ndarray) -> np.ndarray:
    """Return how far a surface is above its lowest point along a path."""
    return np.asarray(at(path.T)) - at.lowest


def _smooth(runs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.convolve(run, np.ones(10) / 10, "valid") for name, run in runs.items()}


@page("Adam goes to the worst point",
      "Every third gradient is +3, the others are -1: on the whole the loss falls towards x = -1. Where does Adam go?",
      "Adam divides each gradient by the root of a mean square that it has forgotten at the next large one. The rare "
      "large gradient so moves it by no more than each of the small ones, of which there are two.",
      "Divide by the largest mean square so far: amsgrad=True. Or remember longer: a beta2 near 1.")
def _reddi(story: Story) -> None:
    runs = {name: record("adam", "reddi", 450, lr=lambda t: 0.5 / sqrt(t + 1), **options).path[:, 0]
            for name, options in (("Adam, beta2 = 0.1", dict(betas=(0, 0.1))),
                                  ("AMSGrad", dict(betas=(0, 0.1), amsgrad=True)),
                                  ("Adam, beta2 = 0.999", dict(betas=(0, 0.999))))}
    short, amsgrad, long = (run[-60:].mean() for run in runs.values())
    story.happens(short > 0.98, f"Adam ends at {short:+.3f}, where the mean loss is highest on [-1, 1].")
    story.cured(amsgrad < -0.98, f"AMSGrad ends at {amsgrad:+.3f}, the lowest point.")
    story.cured(long < -0.98, f"With beta2 = 0.999 Adam itself ends at {long:+.3f}.")
    story.panel("x", runs, marks={"worst": 1.0, "best": -1.0})


@page("Adagrad never forgets a wall",
      "A run begins on a steep wall and comes to a gentle slope, with its goal at 10. Does Adagrad get there?",
      "Adagrad divides by the root of the sum of all squares. The gradients of the wall stay in that sum for ever, so "
      "the rate that they demanded is the rate on the slope too; it never grows again.",
      "Forget: a running mean of the squares, as in RMSprop and Adam.")
def _adagrad(story: Story) -> None:
    def wall(w: Any) -> Any:
        return ops.exp(-4 * w[0]) + 0.05 * (w[0] - 10) ** 2
    runs = {name: record(name, wall, 500, start=np.array([-1.5]), **options)
            for name, options in (("Adagrad", dict(lr=0.5)), ("RMSprop", dict(lr=0.05, alpha=0.9)))}
    paths, rates = ({name: values[:, 0] for name, values in each} for each in (
        [(name, run.path) for name, run in runs.items()], [(name, run.rates["w"]) for name, run in runs.items()]))
    there = int(np.argmax(paths["RMSprop"] > 9.9))
    last, again = rates["Adagrad"][-1], rates["RMSprop"][there]
    story.happens(paths["Adagrad"][-1] < 2, f"After 500 steps with lr 0.5 Adagrad is at {paths['Adagrad'][-1]:.2f}.")
    story.happens((np.diff(rates["Adagrad"]) < 1e-12).all() and last < again / 50,
                  f"Its effective rate fell at every single step, to {last:.1e}; that of RMSprop has grown again to "
                  f"{again:.1f} where it arrives.")
    story.cured(0 < there < 500, f"RMSprop, with a tenth of that lr, is at 9.9 after {there} steps.")
    story.panel("x", paths, marks={"goal": 10.0})
    story.panel("effective rate", {"Adagrad": rates["Adagrad"], "RMSprop": rates["RMSprop"][:there + 1]}, "log")


@page("Momentum beyond the edge of stability",
      "A bowl of curvature 10, momentum 0.9. At which lr does the run explode?",
      "On a bowl of curvature h the heavy ball is a linear map, and its spectral radius passes 1 exactly at "
      "lr = 2 (1 + beta) / h. Below everything shrinks, above it everything grows: there is nothing in between.",
      "Lower lr below the edge, 2 (1 + beta) / h with h the largest curvature; momentum widens it, at most twice.")
def _momentum(story: Story) -> None:
    h, beta = 10.0, 0.9
    edge = 2 * (1 + beta) / h

    def distance(share: float) -> np.ndarray:
        return abs(record("sgd", lambda w: (h / 2 * w ** 2).sum(), 300, start=np.array([1.0]), lr=share * edge,
                          momentum=beta).path[:, 0])
    over, under = distance(1.01), distance(0.99)
    story.happens(over[-1] > 1e20, f"At lr {1.01 * edge:.4f}, a hundredth above the edge of {edge:.2f}, the distance "
                                   f"grows from 1 to {over[-1]:.0e} in 300 steps.")
    story.cured(under[-1] < 1e-5, f"At lr {0.99 * edge:.4f}, a hundredth below it, it falls to {under[-1]:.0e}.")
    story.panel("distance from the minimum", {"1.01 of the edge": over, "0.99 of the edge": under}, "log")


@page("Weight decay that spares the loud",
      "Two weights with gradients of mean 0, one a hundred times larger than the other. Which decays faster in Adam, "
      "with an L2 penalty?",
      "The penalty is added to the gradient, and Adam divides gradients by their size. So a weight whose gradients "
      "are large is hardly decayed: the division takes the penalty with it.",
      "Decouple the decay: AdamW shrinks every weight by the same share, lr * weight_decay.")
def _l2(story: Story) -> None:
    def walk(name: str) -> tuple[np.ndarray, np.ndarray]:
        w = Tensor(np.ones(2), requires_grad=True)
        optimizer, points = create(name, [w], lr=2e-3, weight_decay=1.0), [w.numpy().copy()]
        for k in range(500):
            w.grad = Tensor(np.array([10.0, 0.1]) * (-1) ** k)
            optimizer.step()
            points.append(w.numpy().copy())
        return np.array(points)[:, 0], np.array(points)[:, 1]
    (loud, quiet), (loud_w, quiet_w), share = walk("Adam"), walk("AdamW"), 0.998 ** 500
    story.happens(loud[-1] > 0.88 and quiet[-1] < 0.3,
                  f"With an L2 penalty in Adam the weight with large gradients keeps {loud[-1]:.0%} of its size, the "
                  f"one with small gradients {quiet[-1]:.0%}.")
    story.cured(max(abs(loud_w[-1] - share), abs(quiet_w[-1] - share)) < 0.01,
                f"In AdamW they keep {loud_w[-1]:.1%} and {quiet_w[-1]:.1%}, and (1 - lr * weight_decay)^500 is "
                f"{share:.1%}.")
    story.panel("weight, Adam with L2", {"gradients of 10": loud, "gradients of 0.1": quiet})
    story.panel("weight, AdamW", {"gradients of 10": loud_w, "gradients of 0.1": quiet_w})


@page("zero_grad forgotten",
      "Gradient descent on a bowl, and nobody clears the gradients. Does it diverge, converge, or neither?",
      "Backward adds to .grad, so each step goes along the sum of all gradients so far. That sum is a velocity that "
      "nothing brakes: the run is a pendulum without friction.",
      "optimizer.zero_grad() before each backward; optimizer.watch() names the mistake.")
def _zero_grad(story: Story) -> None:
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
    story.happens(0.95 < late < 1.05, f"It swings: in the last 40 of 200 steps it still goes out to {late:.2f}, from a "
                                      "start at 1.")
    story.happens("gradients add up" in found, 'The watch says "gradients add up from step to step".')
    story.cured(abs(falling[-1]) < 1e-8, f"With zero_grad it is at {falling[-1]:.0e}.")
    story.cured("add up" not in nothing, "The watch finds nothing of the kind.")
    story.panel("w", {"without zero_grad": swinging, "with zero_grad": falling})


@page("The schedule stepped twice",
      "A cosine from lr 0.05 to 0 over 200 steps, but the scheduler is stepped twice in each. What is lr at the end?",
      "The schedule counts its own steps. At half of the run it has reached 0, where nothing is learned, and then the "
      "cosine climbs back: the run ends with the largest rate, in full noise.",
      "One scheduler.step() for each optimizer.step(), after it. Plot the lr that was used, not the one you meant.")
def _schedule(story: Story) -> None:
    def walk(times: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        objective = Objective("noisy_ravine", seed=seed)
        w, = objective.parameters.values()
        optimizer = SGD([w], lr=0.05)
        scheduler, rates, points = CosineAnnealingLR(optimizer, T_max=200), [], []
        for k in range(200):
            objective.begin(k)
            rates.append(optimizer.lr)
            optimizer.step(objective.backward)
            points.append(w.numpy().copy())
            for _ in range(times):
                scheduler.step()
        return np.array(rates), _height(objective.surface, np.array(points))
    runs = {name: [walk(times, seed) for seed in range(4)] for name, times in (("twice", 2), ("once", 1))}
    rates = {name: run[0][0] for name, run in runs.items()}
    heights = {name: np.mean([height for _, height in run], axis=0) for name, run in runs.items()}
    twice, once = (height[-20:].mean() for height in heights.values())
    story.happens(rates["twice"][100] < 1e-9 and rates["twice"][-1] > 0.0499,
                  f"lr is {rates['twice'][100]:.2g} at step 100, and {rates['twice'][-1]:.4f} at the end.")
    story.happens(twice > 10 * once, f"The last 20 steps lie {twice:.2g} above the minimum.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CosineAnnealingLR(SGD([Tensor(np.ones(1), requires_grad=True)], lr=0.05), T_max=200).step()
    story.happens("never used" in str(caught[0].message), "The sister mistake, a scheduler.step() before the first "
                  'optimizer.step(), is told by a warning: "the first value 0.05 was never used".')
    story.cured(once < 0.02, f"Stepped once, lr ends at {rates['once'][-1]:.1e} and the run {once:.2g} above the "
                             "minimum.")
    story.panel("lr", rates)
    story.panel("height above the minimum, mean of 10", _smooth(heights), "log")


@page("An eps that half precision does not have",
      "Adam with everything in float16, its eps the usual 1e-8. What is the first step where the gradient is 0?",
      "The smallest number of float16 is 6e-8: eps = 1e-8 is 0, and so is the mean square of any gradient below 5e-3. "
      "The step is then 0 / 0 or m / 0.",
      "Keep the state, and a copy of the weights, in float32, as every optimizer here does for float16 parameters. A "
      "larger eps alone only hides it.")
def _float16(story: Story) -> None:
    gradient, zero = np.array([0, 1e-4, 1e-2], "float16"), np.zeros(3, "float16")

    def step(eps: float) -> np.ndarray:
        with np.errstate(all="ignore"):
            p, _, _ = adam(zero, gradient, zero, zero, 1, *map(np.float16, (1e-3, 0.9, 0.999, eps)))
        return p.astype("float64")
    raw, hidden = step(1e-8), step(1e-3)
    w = Tensor(zero, requires_grad=True)
    w.grad = Tensor(gradient)
    Adam([w], lr=1e-3).step()
    right = w.numpy().astype("float64")
    story.happens(np.float16(1e-8) == 0, "In float16, 1e-8 is 0.")
    story.happens(np.isnan(raw[0]) and np.isinf(raw[1]), "The first steps for gradients of 0, 1e-4 and 1e-2 are "
                                                         f"{raw[0]}, {raw[1]} and {raw[2]:.1e}.")
    story.happens(abs(hidden[1]) < 2e-4, f"With eps = 1e-3 they are {hidden[0]:.0f}, {hidden[1]:.1e} and "
                                         f"{hidden[2]:.1e}: finite, but the second is an eighth of what it should be.")
    story.cured(right[0] == 0 and abs(right[1:] + 1e-3).max() < 1e-6, f"With float32 state they are 0, {right[1]:.1e} "
                                                                      f"and {right[2]:.1e}: -lr, as it should be.")
    story.panel("the first step", {"float16, eps 1e-8": raw, "float32 state": right, "float16, eps 1e-3": hidden},
                places=("gradient 0", "gradient 1e-4", "gradient 1e-2"))


@page("RMSprop leaps at its first step",
      "RMSprop with lr 0.01 and alpha 0.99. How long is its first step, for any gradient?",
      "The mean square starts at 0 and after one step holds only a hundredth of the square. The step is divided by its "
      "root, a tenth of the gradient: it is lr / sqrt(1 - alpha).",
      "Correct the start as Adam does, or warm lr up over the first 1 / (1 - alpha) steps.")
def _rmsprop_start(story: Story) -> None:
    runs = {name: -record(optimizer, lambda w: (3 * w).sum(), 200, start=np.array([1.0]), lr=0.01,
                          **options).updates["w"][:, 0] / 0.01
            for name, optimizer, options in (("RMSprop", "rmsprop", dict(alpha=0.99)),
                                             ("Adam, betas (0, 0.99)", "adam", dict(betas=(0, 0.99))))}
    leap, even = runs.values()
    story.happens(abs(leap[0] - 10) < 1e-5, f"The first step is {leap[0]:.2f} times lr, for every gradient.")
    story.happens(leap[20] > 2, f"The step after 20 others still is {leap[20]:.1f} times lr.")
    story.cured(abs(even - 1).max() < 1e-5, "With bias correction every step is lr: the longest of 200 is "
                                            f"{even.max():.4f} times lr.")
    story.panel("length of the step, in lr", runs)


@page("Nesterov does not help with noise",
      "Nesterov's method finds the bottom of a ravine far faster than plain gradient descent. And with small batches?",
      "Near the minimum the gradients are noise, and momentum 0.9 adds up ten of them: the run is as noisy as one with "
      "a larger lr. Acceleration shortens the way down; it cannot go below the noise.",
      "Let lr fall at the end, or take larger batches: then the way down was worth it.")
def _nesterov(story: Story) -> None:
    noisy, still = surface("noisy_ravine"), surface("ravine", kappa=20)

    def walk(on: Any, lr: Any, seeds: int, steps: int, **options: Any) -> np.ndarray:
        return np.mean([_height(on, record("sgd", on, steps, lr=lr, seed=seed, **options).path)
                        for seed in range(seeds)], axis=0)
    ways = {"SGD": {}, "Nesterov": dict(momentum=0.9, nesterov=True)}
    exact = {name: walk(still, 0.02, 1, 100, **options) for name, options in ways.items()}
    rough = {name: walk(noisy, 0.02, 4, 200, **options) for name, options in ways.items()}
    sgd, nesterov = (run[-100:].mean() for run in rough.values())
    rough["Nesterov, falling lr"] = walk(noisy, lambda t: 0.01 * (1 + cos(pi * t / 200)), 4, 200, **ways["Nesterov"])
    gain, last = exact["SGD"][-1] / exact["Nesterov"][-1], rough["Nesterov, falling lr"][-10:].mean()
    story.happens(gain > 1000, f"Without noise Nesterov is {gain:,.0f} times lower than SGD after 100 steps.")
    story.happens(nesterov > 2.5 * sgd, f"With batches of 8 it hovers {nesterov:.2f} above the minimum, "
                                        f"{nesterov / sgd:.1f} times as high as SGD with the same lr.")
    story.cured(last < sgd / 3, f"With a cosine of lr to 0 it ends {last:.3f} above the minimum.")
    story.panel("height, exact gradients", dict(reversed(exact.items())), "log")
    story.panel("height, batches of 8, mean of 10", _smooth({name: rough[name] for name in (
        "Nesterov", "SGD", "Nesterov, falling lr")}), "log")


@page("A plateau where nothing moves",
      "A sigmoid should say 0 and says 0.999994, with a squared error. How far do 500 steps of SGD move its weight?",
      "The slope of the squared error is multiplied by that of the sigmoid, which is flat there: the gradient is 1e-5, "
      "however wrong the answer. SGD moves by the gradient; Adam divides it by its own size, and walks.",
      "A loss whose slope does not vanish, here cross-entropy; or a method without a scale, such as Adam.")
def _plateau(story: Story) -> None:
    def squared(w: Any) -> Any:
        return (ops.sigmoid(w) ** 2).sum()

    def entropy(w: Any) -> Any:
        return ops.softplus(w).sum()
    runs = {name: record(optimizer, loss, steps, start=np.array([12.0]), lr=lr).path[:, 0]
            for name, optimizer, loss, lr, steps in (("SGD", "sgd", squared, 1.0, 500),
                                                     ("Adam", "adam", squared, 0.1, 200),
                                                     ("SGD, cross-entropy", "sgd", entropy, 1.0, 200))}
    stuck, walking, other = runs.values()
    walked, steps = (int(np.argmax(run < -3)) for run in (walking, other))
    story.happens(11.98 < stuck[-1] < 12, f"500 steps of SGD with lr 1 move the weight from 12 to {stuck[-1]:.3f}.")
    story.cured(0 < walked < 150, f"Adam with lr 0.1 says less than 0.05 after {walked} steps.")
    story.cured(0 < steps < 60, f"SGD on the cross-entropy does after {steps}.")
    story.panel("weight", {name: run[:201] for name, run in runs.items()}, marks={"the sigmoid says 0.05": -3.0})


@page("Signs that never settle",
      "Lion with a constant lr of 0.1, on a bowl. How close to the minimum does it come?",
      "Every step has the length lr, whatever the gradient: near the minimum it can only step across it, to and fro.",
      "Let lr fall to 0: the steps are as long as lr says, so lr has to shorten them.")
def _lion(story: Story) -> None:
    runs = {name: abs(record("lion", lambda w: (w ** 2).sum(), 200, start=np.array([1.03]), lr=lr).path[:, 0])
            for name, lr in (("lr 0.1", 0.1), ("lr falling to 0", lambda t: 0.1 * (1 - t / 200)))}
    hovering, settled = (run[-20:] for run in runs.values())
    story.happens(0.02 < hovering.min() and hovering.max() < 0.15, "In the last 20 of 200 steps it is between "
                  f"{hovering.min():.2f} and {hovering.max():.2f} away from it, without coming closer.")
    story.cured(settled[-1] < 0.002, f"With lr falling to 0 it ends {settled[-1]:.4f} away.")
    story.panel("distance from the minimum", runs, "log")


@page("Over the cliff",
      "Gradient descent on w^4 / 4 with lr 0.3 works from w = 1. And from w = 3?",
      "The gradient grows with the third power, the step with it: the first one lands further away than it came from, "
      "where the gradient is larger still.",
      "Limit the length of the gradient: grad_transforms=[ClipNorm(1.0)].")
def _cliff(story: Story) -> None:
    def walk(start: float, steps: int = 40, **options: Any) -> np.ndarray:
        return abs(record("sgd", lambda w: (w ** 4 / 4).sum(), steps, start=np.array([start]), lr=0.3,
                          **options).path[:, 0])
    near, far, clipped = walk(1.0), walk(3.0, 5), walk(3.0, grad_transforms=[ClipNorm(1.0)])
    story.happens(near[-1] < 0.3, f"From 1 it comes down to {near[-1]:.2f} in 40 steps.")
    story.happens(far[5] > 1e30, f"From 3 it is at {far[1]:.1f} after one step, at {far[3]:.1e} after three and at "
                                 f"{far[5]:.0e} after five.")
    story.cured(clipped[-1] < 0.3 and clipped.max() <= 3, "Clipped to length 1 it comes down from 3 to "
                                                          f"{clipped[-1]:.2f} in 40 steps.")
    story.panel("distance from the minimum", {"from 3": far[:4], "from 3, clipped": clipped, "from 1": near}, "log")
