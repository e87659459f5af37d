"""The cupy backend on a stand-in for CuPy: the same training as everywhere, its kernels compiled as C++."""

import os
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest

PROGRAM = """
import sys
import tinygrad_opt as tg
tg.manual_seed(0)
x, y = tg.data.moons(64, noise=0.1, generator=0)
model = tg.nn.Sequential(tg.nn.Linear(2, 16), tg.nn.ReLU(), tg.nn.Linear(16, 16), tg.nn.GELU(), tg.nn.Linear(16, 2))
table = tg.nn.Embedding(3, 2)
for name in ("AdamW", "SGD", "RMSprop", "NAdam", "Lion"):
    optimizer = tg.optim.OPTIMIZERS[name]([*model.parameters(), *table.parameters()], lr=0.01)
    for step in range(30):
        optimizer.zero_grad()
        loss = tg.nn.functional.cross_entropy(model(x + table(y)), y)
        loss.backward()
        tg.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    print(name, round(loss.item(), 5))
tg.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, sys.argv[1])
assert isinstance(tg.load(sys.argv[1])["model"]["0.weight"].data, tg.backend.xp.ndarray)
print("trace", round(tg.einsum("ii", tg.inverse(tg.eye(3) * 2)).item(), 5), tg.zeros(3).scatter_add(
    0, tg.tensor([0, 0, 2]), tg.ones(3)).tolist())
print(tg.backend.name, tg.backend.versions().get("gpu"), file=sys.stderr)
"""


@pytest.mark.skipif(which("g++") is None, reason="no C++ compiler")
def test_training_is_the_same_as_on_numpy(tmp_path):
    said = {}
    for backend in ("numpy", "cupy"):
        environment = {**os.environ, "TINYGRAD_OPT_BACKEND": backend}
        if backend == "cupy":
            environment["PYTHONPATH"] = str(Path(__file__).parent / "emulated")
        done = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path / f"{backend}.npz"], env=environment, text=True,
                              capture_output=True, cwd=Path(__file__).parents[1])
        assert done.returncode == 0, done.stderr
        assert done.stderr.split()[0] == backend
        said[backend] = done.stdout
    assert said["cupy"] == said["numpy"] and "AdamW" in said["numpy"]
