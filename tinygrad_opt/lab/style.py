"""The looks of the laboratory: one colour, line and marker an optimizer, told apart without colour too.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart. Nothing is set globally: whoever
draws opens a `figure` of these.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, INK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A400", "#333333")
HEIGHTS = "cividis"                             # of contours: even in lightness, and for every eye
DIVERGING = "PuOr"                              # around zero


class Look(NamedTuple):
    """How one of several lines is drawn."""

    color: str
    linestyle: Any
    marker: str


LOOKS = [Look(colour, line, marker) for colour, line, marker in zip(
    (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, YELLOW, INK),
    ("-", "--", "-.", (0, (5, 1)), ":", (0, (3, 1, 1, 1)), (0, (7, 2)), (0, (1, 1))), "osD^vPX*")]


def looks(names: Any) -> dict[str, Look]:
    """Return a look for each of some names, the same for the same place."""
    return dict(zip(names, cycle(LOOKS)))


@contextmanager
def styled() -> Iterator[None]:
    """Draw inside with the laboratory's fonts, lines and margins; afterwards all is as it was."""
    import matplotlib as mpl
    with mpl.rc_context({
        "font.size": 10.5, "axes.titlesize": 11.5, "axes.labelcolor": INK, "text.color": INK,
        "axes.edgecolor": "#888888",
        "xtick.color": "#555555", "ytick.color": "#555555", "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False, "lines.linewidth": 1.7, "figure.dpi": 110,
        "axes.titlelocation": "left", "savefig.bbox": None, "image.cmap": HEIGHTS, "axes.axisbelow": True,
    }):
        yield


def figure(width: float = 7.0, height: float = 4.5) -> Figure:
    """Return an empty figure, in inches; it needs no display, and a notebook shows it when it is a cell's value."""
    return _shown_by_itself()(figsize=(width, height), layout="constrained")


@cache
def _shown_by_itself() -> type[Figure]:
    from matplotlib.figure import Figure  # and not pyplot, which would choose a window system

    class Picture(Figure):
        """A figure that notebooks show without being told to."""

        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()
    return Picture
