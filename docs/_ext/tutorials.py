"""The tutorials are the notebooks, executed: each by a kernel of its own, two at a time, and only when it changed."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def execute(notebooks: Path, folder: Path) -> None:
    """Write every notebook with its outputs into a folder; an error in a cell stops the build.

    Parameters
    ----------
    notebooks : Path
        Where they are kept, without outputs.
    folder : Path
        Where they go; what lies there from an earlier build and is the same stays.
    """
    folder.mkdir(exist_ok=True)
    wanted = sorted(notebooks.glob("*.ipynb"))
    for old in folder.glob("*.ipynb"):
        if old.name not in {path.name for path in wanted}:
            old.unlink()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: _execute(path, folder / path.name), wanted))
    names = "\n".join(path.stem for path in wanted)
    (folder / "index.md").write_text(INDEX.format(names=names), encoding="utf-8")


def _execute(source: Path, target: Path) -> None:
    import nbformat
    if target.exists() and nbformat.read(target, 4).metadata.get("source") == seal(source):
        return
    write(run(nbformat.read(source, 4), source.parent), source, target)


def run(notebook, folder: Path):
    """Return a notebook, its cells executed from top to bottom in a kernel of its own; an error in one is raised."""
    from nbclient import NotebookClient
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
                          extra_arguments=["--IPKernelApp.log_level=40"]).execute()


def write(notebook, source: Path, target: Path) -> None:
    """Write an executed notebook, sealed: the documentation takes it as long as nothing has changed."""
    import nbformat
    notebook.metadata["source"] = seal(source)
    target.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, target)


def seal(source: Path) -> str:
    """Return a mark of a notebook and of the package that it runs on."""
    return hashlib.sha256(source.read_bytes() + _package()).hexdigest()


def _package() -> bytes:
    """Return the package's sources in one: when they change, the notebooks run again."""
    import tinygrad_opt
    return b"".join(path.read_bytes() for path in sorted(Path(tinygrad_opt.__file__).parent.rglob("*.py")))


INDEX = """# Tutorials

A course in sixteen lessons. Each begins with a question, lets you predict, runs the library's own optimizers, and ends
in assertions of what it taught and exercises that a grader checks.

```{{toctree}}
:maxdepth: 1

{names}
```
"""
