"""Every notebook runs from top to bottom on every backend, says the same as its text, and is kept without outputs."""

import time
from importlib.util import find_spec
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need the packages of the extra [test]")
nbclient = pytest.importorskip("nbclient", reason="notebooks need the packages of the extra [test]")
jupytext = pytest.importorskip("jupytext", reason="notebooks need the packages of the extra [test]")

FOLDER = Path(__file__).parents[1] / "notebooks"
TEXTS = sorted(FOLDER.glob("*.py"))
BACKENDS = ["numpy"] + ["numba"] * (find_spec("numba") is not None)
each = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.filterwarnings("default")                  # those of the kernel's own machinery
@pytest.mark.parametrize("backend", BACKENDS)
@each
def test_it_runs_in_less_than_a_minute(path, backend, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYGRAD_OPT_BACKEND", backend)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    start = time.monotonic()
    notebook = jupytext.read(path)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": FOLDER}},
                            extra_arguments=["--IPKernelApp.log_level=40"]).execute()
    assert time.monotonic() - start < 60


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
