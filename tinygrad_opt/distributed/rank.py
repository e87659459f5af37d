"""Rank: what each process of `tinygrad-opt launch` runs, a script; where it fails, it ends all ranks.

It is run by its path and imports nothing of the package, so that the script finds the world as if it ran alone.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
import traceback
from contextlib import suppress

PATIENCE = 5.0                                      # seconds for another rank, which has failed before, to end this one


def main() -> None:
    """Run `rank.py FOLDER SIZE SCRIPT ARGUMENTS...`, where the folder is shared with the launcher."""
    folder, size = sys.argv[1], int(sys.argv[2])
    del sys.argv[:3]
    script = sys.argv[0]
    sys.path[0] = os.path.dirname(os.path.realpath(script))
    # As in a terminal, and lines of ranks are not mixed; MPI kills without flushing.
    sys.stdout.reconfigure(line_buffering=True, write_through=False)
    if os.name == "posix":
        threading.Thread(target=follow, args=(folder,), daemon=True).start()
    from mpi4py import MPI
    try:
        if MPI.COMM_WORLD.size != size:
            sys.exit(f"mpiexec has started {size} processes, which do not see each other; it must belong to the MPI "
                     f"that mpi4py uses, {MPI.Get_library_version().splitlines()[0]}")
        runpy.run_path(script, run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        said = f"{stop.code}\n" if isinstance(stop.code, str) else ""
    except BaseException as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        error.add_note(f"on rank {MPI.COMM_WORLD.rank} of {size}")
        said = "".join(traceback.format_exception(error.with_traceback(_from(script, error.__traceback__))))
    if status % 256:
        fail(folder, f"{MPI.COMM_WORLD.rank} {status % 256}", said)
        MPI.COMM_WORLD.Abort(status % 256)


def fail(folder: str, words: str, said: str) -> None:
    """Note that this rank is the first to fail, and why; where another was first, let that one speak.

    The launcher says it: what a rank writes to stderr can be lost when MPI ends it.
    """
    try:
        note = os.open(os.path.join(folder, "failed"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except OSError:
        time.sleep(PATIENCE)
    else:
        sys.stdout.flush()
        with open(os.path.join(folder, "said"), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(said)
        os.write(note, words.encode())


def follow(folder: str) -> None:
    """End this process when its launcher has ended: nothing outlives it, even when it is killed."""
    import fcntl
    with suppress(OSError), open(os.path.join(folder, "launcher")) as file:
        fcntl.flock(file, fcntl.LOCK_SH)            # which it holds until then
    os._exit(1)


def _from(script: str, frames):
    """Return a traceback without the frames before those of the script."""
    while frames is not None and frames.tb_frame.f_code.co_filename != script:
        frames = frames.tb_next
    return frames


if __name__ == "__main__":
    main()
