"""A bar is seen in a terminal and in a notebook, and nowhere else."""

import sys
import types

import pytest

import tinygrad_opt as tg
from tinygrad_opt.lab import progress


def shown(monkeypatch, capsys, terminal=False, notebook=False, wanted=True):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    shell = types.SimpleNamespace(kernel=None) if notebook else None
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    with progress.progress_bar([1, 2, 3], 3, "counting", wanted) as bar:
        assert list(bar) == [1, 2, 3]
    return "counting" in capsys.readouterr().err


@pytest.mark.parametrize("place, seen", [({}, False), (dict(terminal=True), True), (dict(notebook=True), True),
                                         (dict(terminal=True, wanted=False), False),
                                         (dict(notebook=True, wanted=False), False)])
def test_where_a_bar_is_seen(monkeypatch, capsys, place, seen):
    assert shown(monkeypatch, capsys, **place) is seen


def test_what_is_over_in_a_moment_has_none(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    tg.lab.interpolate("booth", [0.0, 0.0], [1.0, 1.0])
    tg.lab.lr_find("ravine", optimizer="sgd")
    assert capsys.readouterr().err.strip() == ""
