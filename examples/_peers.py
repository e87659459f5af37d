"""Peers: rival programs that run the same task, each in a process of its own and asked in turn.

Thread pools of several libraries inside one process spin against each other and slow every column tenfold.
So a script starts itself once per peer (`--peer NAME`), sends it requests through a pipe, and keeps
the best of several short bursts. A peer that waits for a request does nothing.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time

THREADS = min(2, os.cpu_count() or 1)
POOLS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM")
ENVIRONMENT = {**os.environ, **{f"{pool}_NUM_THREADS": str(THREADS) for pool in POOLS},
               "TINYGRAD_OPT_BACKEND": "numba"}  # the comparison is on the CPU, also where there is a GPU

# Idle threads of a pool look for work for up to 30 ms before they sleep. Telling them not to
# (OMP_WAIT_POLICY=passive) makes torch six times slower on small models; letting them finish is fair to all.
SETTLE = 0.04


class Peer:
    """One rival: this script, run again as `--peer name`, answering requests through a pipe."""

    def __init__(self, name):
        self.name = name
        self.process = subprocess.Popen([sys.executable, sys.argv[0], "--peer", name], text=True, env=ENVIRONMENT,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, **request):
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The peer {self.name!r} stopped before it answered; its message is above.")
        return json.loads(line)

    def ask(self, **request):
        self.send(**request)
        return self.receive()


@contextlib.contextmanager
def running(names):
    """Start a peer for each name; stop them all at the end."""
    peers = [Peer(name) for name in names]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.process.kill()
            peer.process.communicate()


def ask_all(peers, **request):
    """Let all peers prepare at once (imports, compilers): the answers, by name. Not for timing."""
    for peer in peers:
        peer.send(**request)
    answers = {peer.name: peer.receive() for peer in peers}
    time.sleep(SETTLE)
    return answers


def ask_in_turn(peers, rounds, **request):
    """Ask one peer after the other, `rounds` times: the least answer, by name.

    Whatever else runs on the machine only adds to a time, and most to peers whose threads wait for each other.
    """
    answers = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            answers[peer.name].append(peer.ask(**request))
            time.sleep(SETTLE)
    return {name: min(values) for name, values in answers.items()}


def burst(step, seconds, most=600):
    """Median microseconds of a step over a burst; its first half only wakes threads and caches."""
    times, end = [], time.perf_counter() + seconds
    while (start := time.perf_counter()) < end and len(times) < most or len(times) < 4:
        step()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times[len(times) // 2:])


def peak_memory():
    """The most memory this process has held, in MB; NaN on Windows, which has no such count in Python."""
    if importlib.util.find_spec("resource") is None:
        return math.nan
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def installed(requirements):
    """The names whose modules are all installed; the others are named on the screen."""
    missing = {name: [m for m in modules if importlib.util.find_spec(m) is None]
               for name, modules in requirements.items()}
    for name, modules in missing.items():
        if modules:
            print(f"{name} is left out: not installed ({', '.join(modules)})")
    return [name for name, modules in missing.items() if not modules]


def warn_if_busy():
    """Name what would spoil the figures: threads that wait for each other suffer most from other programs."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"The machine had a load of {os.getloadavg()[0]:.1f} in the last minute. What else runs disturbs "
              "these figures.\n")


def verdict(value, goal, at_least=False):
    """A figure beside its goal, in words."""
    reached = value >= goal if at_least else value <= goal
    return f"{value:.2f}  (goal {'>=' if at_least else '<='} {goal:.2f}: {'reached' if reached else 'missed'})"


def start(main, answer, names=None):
    """Run `main(quick)`, or, in a peer's process, reply to each request with `answer(peer, **request)`.

    With `names`, the help for names on the command line, it is `main(quick, names)`.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rough answer in a few seconds")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    if names:
        parser.add_argument("names", nargs="*", help=names)
    options = parser.parse_args()
    if not options.peer:
        warn_if_busy()
        return main(options.quick, options.names) if names else main(options.quick)
    if hasattr(os, "sched_setaffinity"):  # the only way to tell XLA
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not land in the pipe
    for line in sys.stdin:
        print(json.dumps(answer(options.peer, **json.loads(line))), file=pipe, flush=True)
