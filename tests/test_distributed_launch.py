"""The launcher: what it gives the ranks, and that all of them end when one does not go on."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from _mpi import ROOT, needs_mpi

from tinygrad_opt.cli import main
from tinygrad_opt.distributed import launch

LIMIT = 10                                          # seconds from a failure to the end of all
posix = pytest.mark.skipif(os.name == "nt", reason="signals")


def begin(size, script, *arguments, **environment):
    environment = {**os.environ, "TINYGRAD_OPT_BACKEND": "numpy", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, "-m", "tinygrad_opt", "launch", "-n", str(size), str(script), *arguments],
                            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process, limit=60):
    """Return exit status, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.terminate()
        pytest.fail(f"has not ended in {limit} seconds\n{process.communicate(timeout=20)}")
    return process.returncode, out, err


def processes(script):
    """Return the words of the processes that have to do with a script, by their numbers."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue                                # it has just ended
        if bytes(script) in words:
            found[int(path.parent.name)] = words
    return found


def left(script):
    """Return what is still there a moment after the launcher has ended."""
    for _ in range(40):
        if not processes(script):
            break
        time.sleep(0.1)
    return processes(script)


@pytest.fixture
def write(tmp_path):
    def script(text):
        path = tmp_path / "train.py"
        path.write_text(text)
        return path
    return script


# ---- what a rank is given ------------------------------------------------------------------------------------------

WORKING = """
import os, sys, pathlib
import helper                                       # which lies beside
from tinygrad_opt.distributed import world
world = world()
assert __name__ == "__main__" and world.all_reduce(1) == world.size
print(world.rank, world.size, sys.argv[1:], os.environ.get("OMP_NUM_THREADS"), os.environ.get("NUMBA_NUM_THREADS"),
      pathlib.Path(sys.path[0]).name, helper.value)
"""


@needs_mpi
def test_a_script_finds_the_world_its_arguments_and_a_thread(write, tmp_path):
    script = write(WORKING)
    (tmp_path / "helper.py").write_text("value = 5")
    threads = {name: value for name, value in os.environ.items() if name not in launch.THREADS}
    process = subprocess.Popen([sys.executable, "-m", "tinygrad_opt", "launch", "-n", "5", str(script), "--lr", "0.1",
                                "-n", "2"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**threads, "PYTHONPATH": str(ROOT), "NUMBA_NUM_THREADS": "2"})
    status, out, err = finish(process)
    assert status == 0, err
    words = f"5 ['--lr', '0.1', '-n', '2'] 1 2 {tmp_path.name} 5"
    assert sorted(out.splitlines()) == [f"{rank} {words}" for rank in range(5)]


def test_without_a_launcher_the_same_script_is_a_world_of_one(write, tmp_path):
    script = write(WORKING)
    (tmp_path / "helper.py").write_text("value = 5")
    done = subprocess.run([sys.executable, str(script), "--lr", "1"], text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.startswith("0 1 ['--lr', '1']"), done.stderr


@needs_mpi
def test_a_script_may_choose_its_backend_before_it_imports(write):
    script = write("import sys; print({'numpy', 'tinygrad_opt'} & set(sys.modules), len(sys.argv))")
    assert finish(begin(2, script))[1] == "set() 1\n" * 2


# ---- failures ------------------------------------------------------------------------------------------------------

FAILING = """
import os, signal, sys, time
from tinygrad_opt.distributed import world
world = world()
world.barrier()
def one_of_many(): {what}
if world.rank == {rank}:
    one_of_many()
{then}
print("went on")
"""
ASLEEP, WAITING = "time.sleep(1000)", "world.barrier()"
FAILURES = [                                        # what a rank does, and the others; its status, and what is said
    ("raise KeyError('lost')", 2, ASLEEP, 1, r"in one_of_many\n(.|\n)*KeyError: 'lost'\non rank 2 of 4\n(.|\n)*"
                                             r"launch: rank 2 has ended with status 1, so all are ended"),
    ("raise KeyError('lost')", 0, WAITING, 1, "on rank 0 of 4"),
    ("sys.exit(3)", 1, WAITING, 3, "launch: rank 1 has ended with status 3, so all are ended"),
    ("sys.exit('no data')", 1, ASLEEP, 1, r"no data\n(.|\n)*launch: rank 1 has ended with status 1"),
    ("os.kill(os.getpid(), 9)", 3, WAITING, 137, r"killed by signal 9 \(SIGKILL\), so all are ended"),
    ("os.kill(os.getpid(), 9)", 0, ASLEEP, 137, r"killed by signal 9 \(SIGKILL\), so all are ended"),
    ("exec('def f(:')", 0, WAITING, 1, "SyntaxError(.|\n)*on rank 0 of 4"),
]


@needs_mpi
@posix
@pytest.mark.parametrize("what, rank, then, status, words", FAILURES, ids=[f"{row[0]} {row[2]}" for row in FAILURES])
def test_a_failing_rank_ends_all(write, what, rank, then, status, words):
    script = write(FAILING.format(what=what, rank=rank, then=then))
    process = begin(4, script)
    got, out, err = finish(process, LIMIT + 10)     # which includes the start
    assert got == status and re.search(words, err), err
    assert "went on" not in out and len(re.findall("^on rank", err, re.M)) <= 1 and "runpy" not in err
    assert left(script) == {}


@needs_mpi
def test_of_many_that_fail_alike_one_says_why(write):
    script = write("import tinygrad_opt\nraise ValueError('all of us')")
    status, _, err = finish(begin(4, script), LIMIT + 10)
    assert status == 1 and err.count("ValueError: all of us") == 1 and err.count("Traceback") == 1


STUCK = """
import time
from tinygrad_opt.distributed import world
world = world()
print("ready") if world.rank == 0 else None
world.barrier() if world.rank else time.sleep(1000)
"""


@needs_mpi
@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_launcher_ends_all(write, number):
    script = write(STUCK)
    process = begin(4, script)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    status, _, err = finish(process, LIMIT)
    assert status == (130 if number != signal.SIGKILL else -9)
    assert number == signal.SIGKILL or err.endswith("tinygrad-opt launch: stopped\n")
    assert left(script) == {}


# ---- where it cannot work ------------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["launch", *arguments])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("tinygrad-opt launch: ")
    return said


def test_what_is_missing_is_said_in_one_line(write, tmp_path, capsys, monkeypatch):
    script = str(write("print('never')"))
    assert f"there is no script {tmp_path}" in refused(capsys, "-n", "2", str(tmp_path / "none.py"))
    assert "-n: must be a whole number of at least 1, got '0'" in refused(capsys, "-n", "0", script)
    assert "required: -n" in refused(capsys, script)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: None)
    said = refused(capsys, "-n", "2", script)
    assert "no MPI is installed here" in said and "pip install 'tinygrad-opt[mpi]'" in said


@posix
def test_mpiexec_without_mpi4py(write, tmp_path, capsys, monkeypatch):
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\nexec {sys.executable} -S \"$@\"")      # without site-packages
    bare.chmod(0o755)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: "mpiexec")
    monkeypatch.setattr(sys, "executable", str(bare))
    said = refused(capsys, "-n", "2", str(write("print('never')")))
    assert "No module named mpi4py; pip install 'tinygrad-opt[mpi]'" in said


@needs_mpi
@posix
def test_an_mpiexec_of_another_mpi(write, tmp_path, capfd, monkeypatch):
    other = tmp_path / "mpiexec"
    other.write_text('#!/bin/sh\nn=$2; shift 2\nfor k in $(seq "$n"); do "$@" || exit 1; done')
    other.chmod(0o755)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: str(other))
    assert main(["launch", "-n", "2", str(write("print('never')"))]) == 1
    out, err = capfd.readouterr()
    assert "never" not in out and err.count("has started 2 processes, which do not see each other") == 1


@posix
@pytest.mark.parametrize("status, words", [(77, "mpiexec has ended with status 77"), (139, "signal 11 (SIGSEGV)")])
def test_an_mpiexec_that_fails_itself(write, tmp_path, capfd, monkeypatch, status, words):
    broken = tmp_path / "mpiexec"
    broken.write_text(f"#!/bin/sh\nexit {status}")
    broken.chmod(0o755)
    monkeypatch.setattr(launch, "_usable_mpiexec", lambda: str(broken))
    assert main(["launch", "-n", "2", str(write("print('never')"))]) == status
    assert words + ", so all are ended" in capfd.readouterr().err


# ---- a rank is killed at any moment, and the job resumes -----------------------------------------------------------

TRAINING = """
import os, sys
import tinygrad_opt as tg
world, path = tg.distributed.world(), sys.argv[1]
tg.manual_seed(0)
x, y = tg.data.moons(64, noise=0.1, generator=0)
part = slice(world.rank, None, world.size)
model = tg.nn.Sequential(tg.nn.Linear(2, 8), tg.nn.Tanh(), tg.nn.Linear(8, 2))
optimizer = tg.optim.Adam(model.parameters(), lr=0.02)
step = 0
if os.path.exists(path):
    state = tg.load(path)
    step = state["step"]
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
print("begins at", step) if world.rank == 0 else None
while step < 150:
    optimizer.zero_grad()
    tg.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
    for p in model.parameters():
        p.grad = tg.tensor(world.all_reduce(p.grad, "mean"))
    optimizer.step()
    step += 1
    if step % 10 == 0 and world.rank == 0:
        tg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path)
"""


@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="ranks are found in /proc")
def test_a_rank_killed_at_any_moment_and_resumed(write, tmp_path):
    """As often as TINYGRAD_OPT_FAULTS says; each time the checkpoint ends as that of an undisturbed run."""
    script, random, killed = write(TRAINING), np.random.default_rng(0), 0
    straight, path = tmp_path / "straight.npz", tmp_path / "disturbed.npz"
    start = time.monotonic()
    assert finish(begin(3, script, str(straight)))[0] == 0
    seconds = time.monotonic() - start
    for _ in range(int(os.environ.get("TINYGRAD_OPT_FAULTS", "2"))):
        process = begin(3, script, str(path))
        time.sleep(random.uniform(0.2, 1.0) * seconds)
        ranks = [number for number, words in processes(script).items() if str(launch.RANK).encode() == words[1]]
        if ranks:
            os.kill(random.choice(ranks), signal.SIGKILL)
        status, _, err = finish(process, LIMIT)
        assert left(script) == {}
        if status:                                  # it had not ended before
            killed += 1
            assert status == 137 and "a rank was killed by signal 9 (SIGKILL), so all are ended" in err
        status, _, err = finish(begin(3, script, str(path)))
        assert status == 0, err
        assert path.read_bytes() == straight.read_bytes()
        path.unlink()
    assert killed
