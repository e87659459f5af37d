"""The command: the main job end to end, stopped and resumed, and every bad argument."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt.cli import main
from tinygrad_opt.train import optimizers


def run(*arguments):
    return subprocess.run([sys.executable, "-W", "error", "-m", "tinygrad_opt", *map(str, arguments)],
                          capture_output=True, text=True)


def flat(x, path=""):
    """Every value of a nested structure by its path."""
    if isinstance(x, dict):
        return {k: v for key in x for k, v in flat(x[key], f"{path}.{key}").items()}
    if isinstance(x, (list, tuple)):
        return {k: v for i, y in enumerate(x) for k, v in flat(y, f"{path}.{i}").items()}
    return {path: x}


def assert_same_run(a, b):
    """Two checkpoints are the same bit for bit, but for the clock."""
    x, y = (flat(tg.load(folder / "checkpoint.npz")) for folder in (a, b))
    assert set(x) == set(y)
    for key in x:
        if not key.endswith("seconds"):
            np.testing.assert_array_equal(np.asarray(x[key]), np.asarray(y[key]), err_msg=key)


def test_info():
    done = run("info")
    assert done.returncode == 0
    said = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert said["backend"] == tg.backend.name and said["numpy"] == np.__version__ and "tinygrad_opt" in said


def test_the_main_job(tmp_path):
    done = run("train", "digits", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "it/s" not in done.stderr and "steps" in done.stderr
    folder = tmp_path / "run"
    assert {p.name for p in folder.iterdir()} == {"checkpoint.npz", "log.jsonl", "training.png"}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == list(range(1, 31))
    assert log[-1]["test_accuracy"] >= 0.97 and log[-1]["loss"] < log[0]["loss"] / 10
    assert f"{log[-1]['test_accuracy']:.2%}" in done.stdout
    picture = (folder / "training.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 2e4


FEW = ["--hidden", "16", "--batch-size", "64"]


def test_resuming_after_an_epoch_is_bit_for_bit(tmp_path):
    assert main(["train", "digits", *FEW, "--epochs", "4", "--out", str(tmp_path / "straight")]) == 0
    assert main(["train", "digits", *FEW, "--epochs", "2", "--out", str(tmp_path / "parts")]) == 0
    assert main(["train", "digits", "--epochs", "4", "--out", str(tmp_path / "parts"), "--resume"]) == 0
    assert_same_run(tmp_path / "straight", tmp_path / "parts")
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path, number):
    options = ["train", "digits", "--hidden", "64", "--batch-size", "8"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    process = subprocess.Popen([sys.executable, "-m", "tinygrad_opt", *options, "--epochs", "100000", "--out", stopped],
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr.read(1)                             # the bar stands: the run has begun
    time.sleep(1.0)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + number
    assert "--resume" in said and "Traceback" not in said
    state = tg.load(stopped / "checkpoint.npz")
    epochs = str(state["epoch"] + 2)
    assert main(["train", "digits", "--out", str(stopped), "--resume", "--epochs", epochs]) == 0
    assert main([*options, "--out", str(straight), "--epochs", epochs]) == 0
    assert_same_run(straight, stopped)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert main(["train", "digits", *FEW, "--epochs", "1", "--seed", str(seed), "--out", str(tmp_path / name)]) == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("optimizer", list(optimizers()))
def test_every_optimizer_by_name(tmp_path, optimizer):
    assert main(["train", "digits", "--model", "linear", "--optimizer", optimizer, "--epochs", "1", "--lr", "0.01",
                 "--out", str(tmp_path / "run")]) == 0


BAD = [
    (["--hidden", "128,x"], "whole numbers"), (["--hidden", "0"], "at least 1"), (["--hidden", ""], "whole numbers"),
    (["--lr", "-1"], "lr must lie in (0, inf), got -1.0"), (["--lr", "nan"], "got nan"),
    (["--lr", "fast"], "invalid float"),
    (["--epochs", "0"], "--epochs must be at least 1"), (["--batch-size", "0"], "batch_size must be at least 1"),
    (["--seed", "-1"], "seed must be at least 0"), (["--optimizer", "adamm"], "one of adabelief, "),
    (["--model", "cnn"], "one of mlp, linear"), (["--resume"], "no checkpoint.npz"), (["--what"], "unrecognized"),
]


@pytest.mark.parametrize("arguments, words", BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_arguments_are_one_line_exit_2_and_nothing_written(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits", "--out", str(tmp_path / "run"), *arguments])
    said = capsys.readouterr()
    assert stop.value.code == 2 and words in said.err and len(said.err.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir()) and not said.out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["train", "digits", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_what_would_lose_or_mix_a_run_is_refused(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["train", "digits", *FEW, "--epochs", "2", "--out", str(folder)]) == 0
    before = (folder / "checkpoint.npz").read_bytes()
    capsys.readouterr()
    assert "--resume" in refused(capsys, *FEW, "--out", folder)
    assert "has --lr 0.003" in refused(capsys, "--out", folder, "--resume", "--lr", 0.1)
    assert "already has 2 epochs" in refused(capsys, "--out", folder, "--resume", "--epochs", 1)
    assert "needs --out" in refused(capsys, "--resume")
    assert "is a file" in refused(capsys, "--out", folder / "log.jsonl" / "deeper")
    assert (folder / "checkpoint.npz").read_bytes() == before
    (folder / "checkpoint.npz").write_bytes(before[:1000])
    assert "checkpoint.npz" in refused(capsys, "--out", folder, "--resume")


def test_the_default_folder_is_the_next_that_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "digits-2"):
        assert main(["train", "digits", "--model", "linear", "--epochs", "1"]) == 0
        assert (tmp_path / "runs" / name / "training.png").exists()
