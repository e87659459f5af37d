"""JsonLines: numbers of a run as lines of JSON, through the method that TensorBoard's SummaryWriter has."""

from __future__ import annotations

import json
import math
import operator
from os import PathLike
from typing import Any, Self


class JsonLines:
    """A file of one number a line, with its tag and step; what `Monitor(writer=...)` takes.

    Parameters
    ----------
    path : str or path-like
        Lines are added to a file that is there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import tinygrad_opt as tg
    >>> path = pathlib.Path(tempfile.mkdtemp(), "run.jsonl")
    >>> with tg.lab.JsonLines(path) as writer:
    ...     writer.add_scalar("loss", 2.5, 0)
    >>> print(path.read_text(), end="")
    {"tag": "loss", "value": 2.5, "step": 0}
    """

    def __init__(self, path: str | PathLike) -> None:
        self._file = open(path, "a", buffering=1, encoding="utf-8")         # a line is on the disk when it is whole

    def add_scalar(self, tag: str, value: Any, step: int | None = None) -> None:
        """Add a line; NaN and infinities, which JSON lacks, are null."""
        value, step = float(value), None if step is None else operator.index(step)
        line = {"tag": tag, "value": value if math.isfinite(value) else None, "step": step}
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
