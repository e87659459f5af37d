"""Every notebook runs from top to bottom on the backend under test, says what its text says, and keeps no outputs."""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need the packages of the extra [test]")
pytest.importorskip("nbclient", reason="notebooks need the packages of the extra [test]")
jupytext = pytest.importorskip("jupytext", reason="notebooks need the packages of the extra [test]")

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs" / "_ext"))
import tutorials  # noqa: E402

FOLDER = ROOT / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
# What this run of the tests is for: the backend that was asked for, else the fastest on a CPU. CI runs both.
BACKEND = os.environ.get("TINYGRAD_OPT_BACKEND") or ("numba" if find_spec("numba") else "numpy")
each = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.filterwarnings("default")                  # those of the kernel's own machinery
@each
def test_it_runs_in_less_than_a_minute(path, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYGRAD_OPT_BACKEND", BACKEND)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    start, pair = time.monotonic(), path.with_suffix(".ipynb")
    notebook = tutorials.run(nbformat.read(pair, 4), FOLDER)
    assert time.monotonic() - start < 60
    if os.environ.get("TINYGRAD_OPT_KEEP_NOTEBOOKS"):   # for the documentation, which would execute them again
        tutorials.write(notebook, pair, ROOT / "docs" / "tutorials" / pair.name)


@each
def test_the_pair_is_in_step(path):
    """`jupytext --sync notebooks/*.py` brings it there."""
    text, notebook = jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), 4)
    assert [(c.cell_type, c.source) for c in text.cells] == [(c.cell_type, c.source) for c in notebook.cells]


@each
def test_it_is_kept_without_outputs(path):
    cells = [c for c in nbformat.read(path.with_suffix(".ipynb"), 4).cells if c.cell_type == "code"]
    assert cells and all(not c.outputs and c.execution_count is None for c in cells)


@each
def test_it_asserts_what_it_taught_and_asks_for_nothing_outside(path):
    cells = code(jupytext.read(path))
    assert any("assert " in cell for cell in cells[-6:]), "a lesson ends in assertions"
    assert not any("pip install" in cell or "/home/" in cell or "http" in cell for cell in cells)


def test_every_notebook_has_a_text():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in TEXTS}
