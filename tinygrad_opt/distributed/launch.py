"""Launch: start a script as several ranks by MPI, and end them all where one fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .mpi import INSTALL

# One thread a rank: ranks that compute with all cores each only stand in each other's way.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# Open MPI refuses to work as root, and with more ranks than cores; the names are of versions 4 and 5.
ALLOWED = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
           "OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
KILLING = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTERM, 7, 9}       # and BUS, KILL
RANK = Path(__file__).with_name("rank.py")
GRACE = 4.0                                         # seconds in which ranks may end by themselves


def find_mpiexec() -> str | None:
    """Return the path of the program that starts MPI's ranks: beside this interpreter, else on the PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")


def rank_environment() -> dict[str, str]:
    """Return the environment for ranks: as it is here, and what is not set yet is set so that they work well."""
    return {**ALLOWED, **dict.fromkeys(THREADS, "1"), **os.environ}


def launch_script(size: int, script: str, arguments: Sequence[str] = ()) -> int:
    """Run a script as several ranks and return when all have ended, which is within seconds when one fails.

    Parameters
    ----------
    size : int
        How many ranks; there may be more than cores.
    script : str
        Path of a Python file, in which `distributed.world()` is the communicator of the rank.
    arguments : sequence of str
        What the script finds in `sys.argv[1:]`.

    Returns
    -------
    int
        0, or the status of the first rank that failed, which is 128 + n for one killed by signal n. It and its reason
        are on stderr.

    Raises
    ------
    FileNotFoundError
        When there is no such script.
    RuntimeError
        When MPI cannot be used here; it says what to install.
    """
    if not Path(script).is_file():
        raise FileNotFoundError(f"there is no script {script}")
    mpiexec = _usable_mpiexec()
    command = [mpiexec, "-n", str(size), sys.executable, str(RANK)]
    with tempfile.TemporaryDirectory() as folder, _terminable(), _alive(Path(folder)):
        with subprocess.Popen([*command, folder, str(size), script, *arguments], env=rank_environment(),
                              stdin=subprocess.DEVNULL, start_new_session=True) as process:
            try:
                return _watch(process, Path(folder) / "failed")
            except KeyboardInterrupt:
                _end(process, signal.SIGINT)        # mpiexec, in a session of its own, has not heard of it
                raise
            finally:
                _end(process)


def _usable_mpiexec() -> str:
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise RuntimeError(f"no MPI is installed here, there is no mpiexec beside {sys.executable} or on the PATH; "
                           f"{INSTALL}")
    # In a process of its own, since whoever loads MPI cannot start MPI.
    asked = subprocess.run([sys.executable, "-m", "mpi4py", "--mpi-lib-version"], capture_output=True, text=True)
    if asked.returncode:
        raise RuntimeError(f"MPI cannot be used: {asked.stderr.strip().splitlines()[-1]}; {INSTALL}")
    return mpiexec


@contextmanager
def _alive(folder: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends; ranks wait for it, to end too."""
    with (folder / "launcher").open("w") as file:
        if os.name == "posix":
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _terminable() -> Iterator[None]:
    """Take SIGTERM as SIGINT, so that it ends the ranks too."""
    def stop(number: int, _frame: Any) -> None:
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(process: subprocess.Popen, note: Path) -> int:
    """Wait for the end, for GRACE when a rank has failed, which the first to fail notes, and return the status."""
    last = None
    while process.poll() is None and (last is None or time.monotonic() < last):
        if last is None and note.exists():
            last = time.monotonic() + GRACE
        time.sleep(0.05)
    status = process.poll()
    if status == 0:
        return 0
    if note.exists() and (said := note.read_text().split()):
        rank, status = map(int, said)
        sys.stderr.write(note.with_name("said").read_text(encoding="utf-8"))
        _say(f"rank {rank} has ended with status {status}")
        return status
    # Where Open MPI adds 128 to the number of a signal, MPICH does not.
    number = status - 128 if status > 128 else abs(status)
    if number in KILLING:
        _say(f"a rank was killed by signal {number} ({signal.Signals(number).name})")
        return 128 + number
    _say(f"mpiexec has ended with status {status}")
    return status


def _say(words: str) -> None:
    print(f"tinygrad-opt launch: {words}, so all are ended", file=sys.stderr)


def _end(process: subprocess.Popen, *gently: signal.Signals) -> None:
    """End mpiexec, which ends its ranks; a second Ctrl-C does not wait. A rank that has lost mpiexec ends itself."""
    for number in (*gently, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(GRACE)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                continue
