"""Workers: processes that try trials out. They hold no book; the desk, in the process that searches, tells them all."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .desk import Desk
from .trials import Trial, evaluate

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_workers(desk: Desk, objective: Callable[[Trial], float], jobs: int) -> None:
    """Let processes try out what the desk hands out, until it hands out no more."""
    from multiprocessing import get_context
    from multiprocessing.connection import wait
    context, sent = get_context("spawn"), _pickled(objective)
    lines, processes = {}, []
    try:
        with _one_thread_each():
            for k in range(jobs):
                ours, theirs = context.Pipe()
                process = context.Process(target=work, args=(theirs, sent), daemon=True)
                process.start()
                processes.append(process)
                theirs.close()
                lines[ours] = k
        idle, busy = list(lines), []
        while True:
            while idle and desk.room:
                line = idle.pop(0)
                trial = desk.ask(lines[line])
                line.send((trial.number, dict(trial), desk.budget - desk.gradients, desk.worst))
                busy.append(line)
            if not busy:
                return
            for line in wait(busy):
                if not _answer(desk, line):
                    busy.remove(line)
                    idle.append(line)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _answer(desk: Desk, line: Any) -> bool:
    """Answer one message of a worker, and return whether it is still at its trial."""
    try:
        kind, *content = line.recv()
    except (EOFError, ConnectionError):
        raise RuntimeError("a worker of the search has ended before its trial did: it was killed, or could not start, "
                           "which is said above; a script needs its `if __name__ == \"__main__\":`") from None
    if kind == "report":
        line.send(desk.hear(*content))
        return True
    if kind == "error":
        error, told = content
        error.add_note(f"in a worker of the search:\n{told}")
        raise error
    desk.tell(content[0])
    return False


def work(line: Any, sent: bytes) -> None:
    """Try out what comes along the line, one trial after the other, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)            # the search hears it, and ends its workers
    objective = pickle.loads(sent)
    while True:
        try:
            number, values, left, worst = line.recv()
        except (EOFError, ConnectionError):
            return

        def listen(step: int, value: float, gradients: int, number: int = number) -> str:
            line.send(("report", number, step, value, gradients))
            return line.recv()
        try:
            message = ("record", evaluate(objective, Trial(number, values, listen, left), worst))
        except (EOFError, ConnectionError):
            return
        except Exception as error:
            message = ("error", _sendable(error), traceback.format_exc())
        line.send(message)


def _sendable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _pickled(objective: Any) -> bytes:
    """Return what a worker makes the objective of, or say why it cannot."""
    remedy = "define it at the top of a module and import it from there, or search with jobs=1"
    main = sys.modules["__main__"]
    if getattr(objective, "__module__", None) == "__main__" and not os.path.isfile(getattr(main, "__file__", "")):
        raise ValueError("with jobs > 1 processes import the objective, which a notebook or a prompt has no file for; "
                         f"{remedy}")
    try:
        return pickle.dumps(objective)
    except Exception as error:
        raise ValueError(f"with jobs > 1 the objective goes to other processes, and this one cannot: {error}; "
                         f"{remedy}") from error


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes that start inside compute on one thread, unless the user has said otherwise."""
    added = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
