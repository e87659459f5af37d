"""The reference: a page for every part of the package, made from its public names, and a gate: none is missing."""

import inspect
from importlib import import_module
from pathlib import Path

from sphinx.errors import ExtensionError

# Parts of the package, in the order of the house, and what stands over their pages.
PARTS = {
    "tinygrad_opt": "Tensors", "tinygrad_opt.ops": "Operations", "tinygrad_opt.autograd": "Gradients and curvature",
    "tinygrad_opt.nn": "Layers and losses", "tinygrad_opt.nn.functional": "Functions of networks",
    "tinygrad_opt.nn.init": "Initial values", "tinygrad_opt.optim": "Optimizers",
    "tinygrad_opt.optim.schedule": "Schedules", "tinygrad_opt.optim.lr_scheduler": "Schedulers in PyTorch's manner",
    "tinygrad_opt.amp": "Mixed precision", "tinygrad_opt.data": "Data", "tinygrad_opt.lab": "The laboratory",
    "tinygrad_opt.distributed": "Beyond one process", "tinygrad_opt.tune": "Tuning",
    "tinygrad_opt.tune.tasks": "Tasks to tune on",
    "tinygrad_opt.sklearn": "Estimators for scikit-learn", "tinygrad_opt.rule": "Rules",
}


def public(module):
    """Return the public names of a module that are described there: classes and functions, by name."""
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items()
            if callable(value) and getattr(value, "__module__", "").startswith("tinygrad_opt")}


def described():
    """Return where each public object is described: under the first part that has it, and its aliases nowhere else."""
    places, seen = {part: {} for part in PARTS}, {}
    for part in reversed(PARTS):                            # the more special part is its home
        for name, value in public(import_module(part)).items():
            if id(value) not in seen and not inspect.ismodule(value):
                seen[id(value)] = part
                places[part][name] = value
    return places


def write(folder: Path) -> None:
    """Write the pages of the reference, as sources for the build."""
    folder.mkdir(exist_ok=True)
    pages = {"index.md": "# Reference\n\n```{toctree}\n:maxdepth: 1\n\n" + "\n".join(PARTS) + "\n```\n"}
    for part, names in described().items():
        module = import_module(part)
        lines = [PARTS[part], "=" * len(PARTS[part]), "", f".. currentmodule:: {part}", "", f"``{part}``", "",
                 inspect.getdoc(module).split("\n\n")[0].replace("`", "``"), ""]
        for name, value in names.items():
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            lines += [f".. {kind}:: {name}", ""]
        pages[f"{part}.rst"] = "\n".join(lines)
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _check(app, error):
    """Stop the build when a public name is not in the reference, or says nothing about itself."""
    if error is not None or app.builder.format != "html":
        return
    known = set(app.env.domaindata["py"]["objects"])
    absent = [f"{part}.{name}" for part, names in described().items() for name, value in names.items()
              if f"{part}.{name}" not in known or not inspect.getdoc(value)]
    if absent:
        raise ExtensionError(f"public, but not in the reference: {', '.join(absent)}")


def _list_optimizers(app, name, source):
    """Give the guide to the optimizers its pages as children; on their own they are plain links."""
    if name == "optimizers/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n[a-z]*\n```\n"


def setup(app):
    """Hold the build to the list of public names."""
    app.connect("source-read", _list_optimizers)
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}
