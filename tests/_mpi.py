"""Scripts, code and functions of tests run as several ranks by MPI, with a time limit; skipped where there is none."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tinygrad_opt.distributed.launch import find_mpiexec, rank_environment

ROOT = Path(__file__).parents[1]
needs_mpi = pytest.mark.skipif(find_mpiexec() is None or find_spec("mpi4py") is None,
                               reason="no MPI here: pip install 'tinygrad-opt[mpi]'")


def run_mpi(n, code, *args, timeout=60, backend="numpy", **environment):
    """Run a script (a Path, or a name that ends in .py) or code as n ranks, and return the CompletedProcess."""
    program = [str(code)] if str(code).endswith(".py") else ["-c", code]
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    command = [find_mpiexec(), "-n", str(n), sys.executable, "-m", "mpi4py", *program, *map(str, args)]
    environment = {**rank_environment(), "PYTHONPATH": path, "TINYGRAD_OPT_BACKEND": backend, **environment}
    with subprocess.Popen(command, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()                         # kill would leave the ranks behind
            out, err = process.communicate(timeout=10)
            pytest.fail(f"{n} ranks have not ended in {timeout} seconds\n{out}\n{err}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def on_ranks(n, function, *args, timeout=60):
    """Run a function of a test module, `function(world, *args)`, as n ranks; args are written out by their repr."""
    name, module = function.__name__, function.__module__
    done = run_mpi(n, f"from {module} import {name}\nfrom tinygrad_opt.distributed import world\n"
                   f"{name}(world(), *{args!r})", timeout=timeout)
    assert done.returncode == 0, f"{module}.{name} on {n} ranks\n{done.stdout}\n{done.stderr}"
    return done
