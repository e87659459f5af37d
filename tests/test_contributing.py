"""What CONTRIBUTING says about adding an optimizer is done, in a copy of the project, and suffices."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "CONTRIBUTING.md"
TEXT = GUIDE.read_text(encoding="utf-8") if GUIDE.exists() else ""
BLOCK = r":\n\n```python\n(.*?)```"
CREATE = re.findall(r"Create `([^`]+)`" + BLOCK, TEXT, flags=re.S)
INSERT = re.findall(r"In `([^`]+)`, after `([^`]+)`" + BLOCK, TEXT, flags=re.S)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a copy of the project in which everything has been written that the guide tells to write."""
    copy = tmp_path_factory.mktemp("project")
    for folder in ("tinygrad_opt", "tests", "examples", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", copy)
    for file, text in CREATE:
        assert not (copy / file).exists()
        (copy / file).write_text(text, encoding="utf-8")
    for file, after, text in INSERT:
        before, line, rest = (copy / file).read_text(encoding="utf-8").partition(f"{after}\n")
        assert line, f"{file} has no line that ends with {after}"
        (copy / file).write_text(before + line + text + rest, encoding="utf-8")
    return copy


def run(project, *command):
    path = os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, *command], cwd=project, env={**os.environ, "PYTHONPATH": path},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_every_block_is_used():
    python = re.findall(r"```python\n", TEXT)
    assert len(CREATE) + len(INSERT) == len(python) and len(CREATE) == 1


def test_five_steps_add_an_optimizer(project):
    assert [int(step) for step in re.findall(r"^\*\*(\d)\. ", TEXT, flags=re.M)] == [1, 2, 3, 4, 5]
    said = re.findall(r"^python (.*)$", TEXT.split("**5. ")[1], flags=re.M)
    assert said == ["examples/make_pages.py", "-m pytest -k LaProp"]
    run(project, *said[0].split())
    assert "# LaProp" in (project / "docs" / "optimizers" / "laprop.md").read_text(encoding="utf-8")
    out = run(project, *said[1].split(), "-q")
    assert int(re.search(r"(\d+) passed", out)[1]) > 40
