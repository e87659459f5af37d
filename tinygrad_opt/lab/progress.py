"""Progress: a bar for what takes long, where somebody can see it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

PATIENCE = 1.0                                  # seconds that need no bar


def in_notebook() -> bool:
    """Whether this runs in a cell of a notebook, which shows what is written over a line as a terminal does."""
    # Whoever runs in a notebook has loaded IPython already; asking needs no import.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def progress_bar(parts: Iterable[Any], total: int, words: str, shown: bool = True) -> tqdm:
    """Return parts with a bar that grows as they are gone through, in a terminal or a notebook, and then is gone.

    Parameters
    ----------
    parts : iterable
    total : int
        How many.
    words : str
        What is done.
    shown : bool, default True
        False: no bar anywhere.
    """
    from tqdm import tqdm
    seen = None if shown and not in_notebook() else not shown       # None: only where the output is a terminal
    return tqdm(parts, total=total, desc=words, leave=False, disable=seen, delay=PATIENCE)
