"""Animations: runs over a surface as a moving picture in a GIF, which any page and any slide shows."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ...optim.ranges import Range, check
from ..arguments import whole
from ..style import INK, figure, looks, styled
from ..traces import Trace
from .contours import Interval, Scene, by_label, draw_legend

PIXELS, DOTS = (400, 320), 66                       # of a picture, and per inch
REST = 1500                                         # milliseconds for which the last picture stays


def to_gif(traces: Any, surface: Any, path: str | PathLike, *, fps: float = 15, frames: int = 60,
           box: tuple[Interval, Interval] | None = None) -> Path:
    """Write runs over a function of two numbers as a GIF, all at the pace of the gradients that they take.

    The surface is drawn once, and each picture is that background with the lines so far: a second for a race of four.

    Parameters
    ----------
    traces : Trace, iterable of Trace, or mapping of labels to Traces
        What `record` returned; a label stands in the legend.
    surface : Surface, str or callable
        What they ran on, as for `draw_contour`.
    path : path-like
        Where to write.
    fps : float, default 15
        Pictures a second, above 0 and at most 50, the most that browsers show.
    frames : int, default 60
        Pictures from the start to the end, at least 2.
    box : two intervals, optional
        What part of the plane to show; needed for what is no Surface.

    Returns
    -------
    Path

    Raises
    ------
    TypeError, ValueError
        When there is no trace, or an argument is out of range.

    Examples
    --------
    >>> import tempfile
    >>> import tinygrad_opt as tg
    >>> traces = [tg.lab.record(name, "himmelblau", 40, lr=0.1) for name in ("adam", "rmsprop")]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tg.lab.to_gif(traces, "himmelblau", f"{folder}/race.gif", frames=10).name
    'race.gif'
    """
    traces = by_label(traces)
    if not traces:
        raise ValueError("traces is empty; give the record of a run, from tg.lab.record(...)")
    check("to_gif", "fps", fps, Range("(0, 50]"))
    path = Path(path)
    pictures = draw_frames(traces, surface, frames, box)
    palette = _palette(pictures[0], [look.color for look in looks(traces).values()])
    pictures = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    pictures[0].save(path, format="GIF", save_all=True, append_images=pictures[1:], loop=0,
                     duration=[10 * round(100 / fps)] * (len(pictures) - 1) + [REST])      # GIF counts hundredths
    return path


def draw_frames(traces: Any, surface: Any, frames: int = 60, box: tuple[Interval, Interval] | None = None) -> list[Any]:
    """Return the pictures of such an animation as Pillow images, for those who write another format.

    Parameters
    ----------
    traces, surface, frames, box
        As for `to_gif`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    frames, traces = whole("frames", frames, 2), by_label(traces)
    scene, shown = Scene(surface, traces, box, 121), moments(traces, frames)
    most = max(int(trace.evaluations[-1]) for trace in traces.values())
    with styled():
        fig = figure(PIXELS[0] / DOTS, PIXELS[1] / DOTS)
        fig.set_dpi(DOTS)
        canvas, axes = FigureCanvasAgg(fig), fig.add_subplot()
        scene.draw_ground(axes)
        artists = {label: scene.draw_path(axes, label) for label in scene.paths}
        counter = axes.set_title("", loc="right", fontsize="medium")
        axes.set(xlabel="", ylabel="")                # there is little room
        draw_legend(fig, axes, places=False)
        moving = [artist for pair in artists.values() for artist in pair]
        for artist in (*moving, counter):
            artist.set_animated(True)               # so that the background is drawn without
        canvas.draw()
        ground, pictures = canvas.copy_from_bbox(fig.bbox), []
        for frame in range(frames):
            canvas.restore_region(ground)
            for label, (line, head) in artists.items():
                path = scene.paths[label][:shown[label][frame] + 1]
                line.set_data(*path.T)
                head.set_data(*path[-1:].T)
            counter.set_text(f"{round(most * frame / (frames - 1))} gradients")
            for artist in (*moving, counter):
                axes.draw_artist(artist)
            pictures.append(_picture(canvas))
    return pictures


def moments(traces: dict[str, Trace], frames: int) -> dict[str, np.ndarray]:
    """Return for each trace which of its points stands at the head in each frame: the last that is paid for.

    Parameters
    ----------
    traces : dict of str to Trace
    frames : int
        From no gradient to as many as the dearest run takes.

    Returns
    -------
    dict of str to (frames,) array of int
    """
    most = max(trace.evaluations[-1] for trace in traces.values())
    spent = np.linspace(0, most, frames)
    return {label: np.searchsorted(trace.evaluations, spent, side="right") for label, trace in traces.items()}


def _picture(canvas: Any) -> Any:
    from PIL import Image  # which comes with matplotlib
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())


def _palette(ground: Any, colours: list[str]) -> Any:
    """Return the colours of the background, and those of the lines in full and faded to white at their edges."""
    from matplotlib.colors import to_rgb
    from PIL import Image
    found = [255, 255, 255, *ground.quantize(96).getpalette()[:3 * 96]]
    for colour in dict.fromkeys([INK, *colours]):
        for share in (1.0, 0.75, 0.5, 0.25):
            found += [round(255 * (1 + share * (part - 1))) for part in to_rgb(colour)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(found)
    return palette
