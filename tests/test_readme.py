"""What the README says is run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text() if README.exists() else ""
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_block_runs_and_prints_what_the_readme_says(block, tmp_path):
    (tmp_path / "block.py").write_text(block)
    done = subprocess.run([sys.executable, "-W", "error", "block.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = re.search(re.escape(block) + r"```\s+It prints `([^`]*)`", TEXT)
    if said:
        assert done.stdout.strip() == said[1]


def test_the_first_block_is_fifteen_lines_and_says_what_it_prints():
    assert len(BLOCKS[0].strip().splitlines()) == 15
    assert "It prints `" in TEXT.split(BLOCKS[0])[1][:40]


def test_the_commands_are_single_lines():
    commands = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S)
    assert len(commands) == 3 and all(len(c.strip().splitlines()) == 1 for c in commands)
