"""The house: imports only go down, imports stay light, everything public says what it is, files stay short."""

import ast
import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import tinygrad_opt as tg

PACKAGE = Path(tg.__file__).parent
ROOT = PACKAGE.parent
# Each may import what stands before it; optim, data and io, and ops and creation, do not know of each other.
FLOORS = [{"language", "spelling"}, {"lowering"}, {"rule"}, {"backend"}, {"tensor"}, {"random", "precision"},
          {"gradients"}, {"ops", "creation"}, {"autograd"}, {"gradcheck", "nn", "tape"}, {"optim", "amp", "data", "io"},
          {"lab"}, {"train", "distributed", "tune", "sklearn"}, {"cli"}, {"__main__"}]
FLOOR = {name: k for k, floor in enumerate(FLOORS) for name in floor}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imports(name, lazy=True):
    """Return the full names of the modules that a module imports; without `lazy`, only those at its top level."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    found, waiting = set(), [TREES[name]]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            found |= {full if (full := f"{base}.{alias.name}") in SOURCES else base for alias in node.names}
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def floor_name(module):
    """Return the part of the house that a module of the package belongs to; "" for its entrance."""
    return module.split(".")[1] if "." in module else ""


INSIDE = {name: {m for m in imports(name) if m.split(".")[0] == "tinygrad_opt"} for name in SOURCES}


def test_every_file_has_a_floor():
    assert {floor_name(name) for name in SOURCES} - {""} == set(FLOOR)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "tinygrad_opt"])
def test_imports_only_go_down(name):
    here = floor_name(name)
    for other in INSIDE[name]:
        there = floor_name(other)
        allowed = there == here or (there == "" and here == "cli") or (there and FLOOR[there] < FLOOR[here])
        assert allowed, f"{name} imports {other}, which stands on the same floor or above"


# An averaged model is a model, tables of embeddings are routed by their kind, and Hutchinson's estimate of the
# curvature differentiates twice.
MODULES = {"tinygrad_opt.optim.swa_utils": {"nn"}, "tinygrad_opt.optim.multi": {"nn"},
           "tinygrad_opt.optim.hutchinson": {"autograd"}}


@pytest.mark.parametrize("name", [name for name in SOURCES if floor_name(name) == "optim"])
def test_optimizers_see_arrays_and_rules_never_the_tape(name):
    allowed = {"optim", "rule", "lowering", "language", "spelling", "backend", "tensor", "random", "gradients"}
    if name.startswith("tinygrad_opt.optim.second_order"):              # curvature comes from the tape
        allowed |= {"autograd", "ops", "nn", "creation"}
    assert {floor_name(other) for other in INSIDE[name]} <= allowed | MODULES.get(name, set())


def test_no_import_cycle():
    edges = {name: {m for m in imports(name, lazy=False) if m in SOURCES} for name in SOURCES}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name):], name])
        if name not in done:
            path.append(name)
            for other in edges[name]:
                visit(other)
            done.add(path.pop())
    for name in SOURCES:
        visit(name)


OWNERS = {"numba": {"tinygrad_opt.backend.loops"}, "sklearn": {"tinygrad_opt.sklearn"},
          **dict.fromkeys(("cupy", "cupyx"), {"tinygrad_opt.backend.cupy", "tinygrad_opt.distributed.nccl"})}
LAZY = {"matplotlib", "PIL", "IPython", "tqdm", "safetensors", "torch", "mpi4py", "optuna"}


@pytest.mark.parametrize("name", SOURCES)
def test_what_comes_from_outside(name):
    def outside(lazy):
        roots = {m.split(".")[0] for m in imports(name, lazy)} - {"tinygrad_opt", "numpy", "__future__"}
        return {root for root in roots - set(sys.stdlib_module_names) if name not in OWNERS.get(root, ())}
    assert outside(lazy=False) == set(), "imported when the package is"
    assert outside(lazy=True) <= LAZY


# ---- a light import ---------------------------------------------------------------------------------------

BACKENDS = ["numpy"] + ["numba"] * (find_spec("numba") is not None)


def python(code, backend="numpy", **environment):
    environment = {**os.environ, "TINYGRAD_OPT_BACKEND": backend, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.parametrize("backend", BACKENDS)
def test_importing_loads_nothing_heavy(backend):
    alone = python("import numpy, sys; print(*sys.modules)")
    more = set(python("import tinygrad_opt, sys; print(*sys.modules)", backend)) - set(alone)
    assert more.isdisjoint({"numba", "llvmlite", "cupy", "matplotlib", "tqdm", "scipy", "torch", "numpy.random",
                            "numpy.testing", "unittest", "asyncio", "multiprocessing", "json", "zipfile"})


@pytest.mark.parametrize("backend", BACKENDS)
def test_importing_takes_little_longer_than_numpy(backend, tmp_path):
    def seconds(module):
        start = time.perf_counter()
        python(f"import {module}", backend, PYTHONPYCACHEPREFIX=str(tmp_path), PYTHONDONTWRITEBYTECODE="")
        return time.perf_counter() - start

    seconds("tinygrad_opt")                             # bytecode is written
    for _ in range(4):                                  # a machine may be busy
        times = [(seconds("numpy"), seconds("tinygrad_opt")) for _ in range(5)]
        alone, ours = (statistics.median(column) for column in zip(*times))
        if ours <= 1.6 * alone:
            return
    pytest.fail(f"import tinygrad_opt takes {ours / alone:.2f} times import numpy, it may take 1.6")


# ---- names and their descriptions -------------------------------------------------------------------------


def public(tree):
    """Return the public functions and classes at the top of a file, and the methods of these classes."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                yield from ((f"{node.name}.{name}", method) for name, method in public(node))


DESCRIBED = {key.split(".")[1] for tree in TREES.values() for key, node in public(tree)
             if "." in key and ast.get_docstring(node)} | {"rule"}               # which the class describes


@pytest.mark.parametrize("name", SOURCES)
def test_everything_public_says_what_it_is(name):
    def needs_no_words(key, node):
        if "." in key:                                  # a method that a base class describes; a setter
            return key.split(".")[1] in DESCRIBED or "setter" in map(ast.unparse, node.decorator_list)
        return floor_name(name) == "optim" and not callable(getattr(tg.optim, key, None))          # a rule, likewise
    assert ast.get_docstring(TREES[name])
    assert [key for key, node in public(TREES[name])
            if not ast.get_docstring(node) and not needs_no_words(key, node)] == []


def test_every_public_name_exists_once():
    assert len(tg.__all__) == len(set(tg.__all__))
    assert [name for name in tg.__all__ if not hasattr(tg, name)] == []
    assert all(getattr(tg.ops, name).__doc__ for name in tg.ops.__all__)
    for module in (tg.nn, tg.optim, tg.data, tg.creation):
        assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []


@pytest.mark.parametrize("folder", ["tinygrad_opt", "tests", "examples"])
def test_files_stay_short(folder):
    long = {str(path.relative_to(ROOT)): n for path in sorted((ROOT / folder).rglob("*.py"))
            if (n := len(path.read_text(encoding="utf-8").splitlines())) > 700}
    assert long == {}
