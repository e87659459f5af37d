"""The laboratory on the command line: it prints and writes what the library returns, and refuses in one line."""

import csv
import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import tinygrad_opt as tg
from tinygrad_opt import data, train
from tinygrad_opt.cli import COMMANDS, charts, main
from tinygrad_opt.cli.parsing import Parser, named, options
from tinygrad_opt.nn.functional import cross_entropy

PAGE = Path(__file__).parents[1] / "docs" / "command_line.md"
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8") if PAGE.exists() else "", flags=re.S)
SHOWN = [part.partition("\n") for block in BLOCKS for part in block.split("$ tinygrad-opt ")[1:]]


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Return what runs a command in an empty folder of 80 columns and returns its two outputs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(line, status=0):
        try:
            assert main(shlex.split(line)) == status
        except SystemExit as stop:
            assert stop.code == status
        return capsys.readouterr()
    return run


def table_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# ---- each command gives what the library gives ----------------------------------------------------------------------


RACE = "race sgd:momentum=0.5 adam lbfgs:max_iter=5 --surface ravine:kappa=20 --steps 20 --rates 0.01,0.1"


def test_a_race_and_its_files(command):
    race = tg.lab.race([("sgd", {"momentum": 0.5}), "adam", ("lbfgs", {"max_iter": 5})],
                       tg.lab.surface("ravine", kappa=20), 20, rates=[0.01, 0.1])
    endings = ("html", "gif", "png", "csv", "json")
    said = command(RACE + "".join(f" --out race.{ending}" for ending in endings))
    assert said.out == race.table().replace("rates=", "--rates") + "\n" and "with --rates" in said.out
    assert said.err.split() == [word for ending in endings for word in ("wrote", f"race.{ending}")]
    assert Path("race.html").read_bytes() == race.to_html("other.html").read_bytes()
    assert Path("race.gif").read_bytes().startswith(b"GIF8") and Path("race.png").read_bytes().startswith(b"\x89PNG")
    head, *rows = table_of("race.csv")
    assert head == ["gradients", *race.losses] and [float(row[2]) for row in rows] == race.losses["Adam"].tolist()
    tree = json.loads(Path("race.json").read_text())
    assert tree["ranking"] == race.ranking()
    assert tree["optimizers"]["Adam"]["trace"] == json.loads(race.traces["Adam"].to_json())
    assert dict(tree["optimizers"]["Adam"]["tried"]) == race.tried["Adam"]


def test_an_unfair_race_from_another_start(command):
    race = tg.lab.race([("sgd", {"lr": 0.01})], "booth", 7, fair=False, start=np.array([-1.0, 2.5]), budget="steps")
    assert command("race sgd:lr=0.01 --surface booth --steps 7 --unfair --start=-1,2.5 --budget steps").out == (
        race.table() + "\n")


def test_the_list_has_every_name(command):
    said = command("race --list").out
    names = set(re.findall(r"\w+", said))
    assert {*tg.lab.list_surfaces(), *tg.optim.list_optimizers()} <= names
    assert max(map(len, said.splitlines())) < 80


def test_an_explanation_and_its_files(command):
    made = []

    def adam(params):
        made.append(tg.optim.Adam(params, lr=0.1, betas=(0.5, 0.9)))
        return made[-1]
    ravine = tg.lab.surface("ravine", kappa=9)
    tg.lab.record(adam, ravine, 2)
    said = command("explain adam:betas=0.5,0.8 -o betas=0.5,0.9 --lr 0.1 --steps 4 --step 2 --index 1 "
                   "--surface ravine:kappa=9 --out r.csv --out r.json --out r.html")
    assert said.out == f"{made[0].explain('w', 1)}\n"
    trace = tg.lab.record("adam", ravine, 4, lr=0.1, betas=(0.5, 0.9))
    assert json.loads(Path("r.json").read_text()) == json.loads(trace.to_json())
    assert Path("r.csv").read_bytes() == trace.to_csv("other.csv").read_bytes()
    assert Path("r.html").read_text(encoding="utf-8") == tg.lab.html_page(trace, ravine)


def test_what_an_optimizer_is(command):
    lion = tg.optim.Lion([tg.ones(2, 2, requires_grad=True)])
    assert command("explain lion --formula").out == lion.formula("text") + "\n"
    assert command("explain lion --formula latex").out == lion.formula() + "\n"
    for language in ("numpy", "numba", "cuda"):
        assert command(f"explain lion --source {language}").out == lion.source(language) + "\n"
    assert command("explain lion --options").out == f"{tg.optim.optimizer_info('lion')}\n"
    assert command("explain sgd:nesterov=true,momentum=0.9 --formula").out != command("explain sgd --formula").out


@pytest.mark.parametrize("name", tg.optim.list_optimizers())
def test_every_optimizer_is_explained_or_says_why_not(command, name):
    refused = {"GaussNewton", "HessianFree", "KFAC", "LBFGS", "Muon", "NaturalGradient", "NewtonCG", "TrustRegion"}
    said = command(f"explain {name.lower()}", 2 if name in refused else 0)
    assert said.err.startswith("tinygrad-opt explain: ") == (name in refused) and said.err.count("\n") <= 1


def test_the_planes_and_the_line_of_the_small_net(command):
    said = command("landscape --points 5 --out path.csv --out path.svg").out
    chosen, beside = (re.findall(r"([\d.]+)%", line) for line in said.splitlines() if "%" in line)
    assert float(chosen[0]) > 90 > 20 > float(beside[0]) and "start ()" in said
    assert len(table_of("path.csv")) == 1 + 2 * 25 and "</svg>" in Path("path.svg").read_text(encoding="utf-8")
    command("landscape --plane random --points 5 --out random.csv")
    heights = {(float(x), float(y)): float(loss) for _, x, y, loss in table_of("random.csv")[1:]}
    line = command("landscape --plane line --points 5 --out line.csv").out
    losses = [float(row[1]) for row in table_of("line.csv")[1:]]
    assert losses[-1] == heights[0, 0] and losses[0] > 3 * losses[-1]         # both end where the training did
    assert f"training loss            {losses[0]:.4g} to {losses[-1]:.4g}" in line
    assert command("landscape --plane line --points 5 --seed 1").out != line


def test_the_landscape_of_a_run_walks_it_again(command):
    command("train digits --hidden 8 --epochs 2 --out run")
    said = command("landscape --run run --points 3 --out plane.csv")
    assert "run: mlp after 2 epochs of adamw" in said.out and said.err == "wrote plane.csv\n"
    command("landscape --run run --points 3 --plane random --out plane.csv")
    run = train.Run.resume(Path("run"), *data.digits())
    run.model.eval()
    images, labels = run.train.tensors
    assert float(table_of("plane.csv")[5][3]) == cross_entropy(run.model(images), labels).item()
    next(run.model.parameters()).data[0] += 1                   # where no such training would end
    run.save(Path("run"))
    assert "ends elsewhere" in command("landscape --run run --points 3").err


def test_a_rate_is_found_as_the_library_finds_it(command):
    settings = train.Settings(hidden=(8,), optimizer="sgd", seed=1)
    run = train.Run(settings, *data.digits())
    batches = data.DataLoader(run.train, settings.batch_size, shuffle=True, generator=run.order)
    found = tg.lab.lr_find(run.model, batches, cross_entropy, tg.optim.SGD, 1e-3, 1.0, 20, smoothing=0.5)
    said = command("lr-find --hidden 8 --optimizer sgd --seed 1 --smallest 1e-3 --largest 1 --steps 20 --smoothing 0.5 "
                   "--out lr.csv --out lr.pdf").out
    assert f"steepest fall at {found.suggestion:.2g}," in said
    assert f"train digits --hidden 8 --optimizer sgd --seed 1 --lr {found.suggestion:.2g}\n" in said
    assert [float(row[2]) for row in table_of("lr.csv")[1:]] == found.smoothed.tolist()
    assert Path("lr.pdf").read_bytes().startswith(b"%PDF")


def test_charts_leave_gaps_and_mark_places():
    assert charts.curve([1, np.nan, 2, np.inf], 4, 1) == ["▁ █ "]
    assert charts.curve([3, 3], 2, 2) == ["  ", "▁▁"]
    assert charts.shaded([[0, np.inf], [1, 2]], 4, {(1, 0): "()"})[0].startswith("()")
    assert charts.shaded([[0, np.nan]], 4) == ["██  "]
    assert [len(row) for row in charts.shaded(np.eye(50), 72)] == [50] * 25


# ---- refusals -------------------------------------------------------------------------------------------------------


BAD = [
    ("rase", "invalid choice: 'rase'"), ("race adamm", "the nearest are Adam"),
    ("race --surface rosenbrok", "the nearest are rosenbrock"), ("race sgd:momentun=0.9", "the nearest are momentum"),
    ("race sgd:0.9", "option=value"), ("race adam:lr=0.1", "--unfair"),
    ("race sgd:lr=1 --unfair --rates 0.1", "as in sgd:lr=0.1"), ("race --rates 0.1,-1", "positive number"),
    ("race --rates x", "got 'x'"), ("race --steps 0", "at least 1, got '0'"), ("race --seeds x", "got 'x'"),
    ("race --start 1", "has 2 numbers, got 1"), ("race --start 1,nan", "finite"), ("race muon", "is no matrix"),
    ("race --surface chain:n=x", "n must be a number"), ("race --surface booth:row=3", "it has none"),
    ("race --surface ravine:kappa=0", "kappa must lie in [1, inf)"), ("race adam adam", "twice"),
    ("race --stepz 3", "unrecognized"),
    ("race --out x.jpg", ".html .gif .png"), ("race --out no/x.png", "no folder no"),
    ("race --out folder.png", "is a folder"), ("race --out file/x.png", "no folder file"),
    ("race --surface chain --out x.gif", "two coordinates"),
    ("explain adanw", "the nearest are Adan"), ("explain --step 5", "raise --steps"), ("explain --index 2", "from 0"),
    ("explain -o beta=1", "the nearest are betas"), ("explain -o betas=2", "betas needs 2"),
    ("explain --formula html", "'latex'"), ("explain lbfgs --formula", "no rule"), ("explain --lr 0", "positive"),
    ("explain --formula --out x.csv", "record of a run"), ("explain --surface reddi --out x.html", "two coordinates"),
    ("landscape --run nowhere", "no checkpoint.npz in nowhere"), ("landscape --run other", "not that of a run"),
    ("landscape --points 1", "at least 2"), ("landscape --plane up", "'path', 'random', 'line'"),
    ("lr-find --optimizer adamm", "the nearest are adam"), ("lr-find --model cnn", "one of mlp, linear"),
    ("lr-find --smallest 1 --largest 0.1", "smallest < largest"), ("lr-find --smoothing 1", "[0, 1)"),
    ("lr-find --lr 1", "unrecognized"), ("lr-find --steps 2", "at least 3"),
]


@pytest.mark.parametrize("line, words", BAD, ids=[line for line, _ in BAD])
def test_bad_arguments_are_one_line_exit_2_and_nothing_written(command, line, words):
    Path("folder.png").mkdir()
    Path("file").touch()
    Path("other").mkdir()
    tg.save({"settings": {}}, "other/checkpoint.npz")
    before = sorted(Path().rglob("*"))
    said = command(line, 2)
    name = line.split()[0]
    assert said.err.startswith(f"tinygrad-opt {name}: " if name in COMMANDS else "tinygrad-opt: ")
    assert words in said.err and said.err.count("\n") == 1 and not said.out
    assert sorted(Path().rglob("*")) == before


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder in which nobody can write")
def test_what_cannot_be_written_is_refused_before_the_work(command, monkeypatch):
    monkeypatch.setattr(tg.lab, "race", None)                   # calling it would be another error
    assert "cannot be written" in command("race --out /proc/race.png", 2).err
    with pytest.raises(TypeError):
        tg.lab.race()


def test_options_are_read_as_python_has_them():
    assert named("adam") == ("adam", {}) and named("a:x=1,y=2")[1] == {"x": 1, "y": 2}
    assert options("betas=0.5,0.9,eps=1e-6,flag=True,other=false,most=inf,way=ball") == {
        "betas": (0.5, 0.9), "eps": 1e-6, "flag": True, "other": False, "most": float("inf"), "way": "ball"}


# ---- manners --------------------------------------------------------------------------------------------------------


def test_an_interrupt_ends_with_130_and_one_line(command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(tg.lab, "race", interrupted)
    said = command("race", 130)
    assert (said.out, said.err) == ("", "tinygrad-opt race: stopped\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_reader_that_has_read_enough_is_no_error():
    with subprocess.Popen([sys.executable, "-m", "tinygrad_opt", "race", "--list"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_the_help_reads_nothing_else():
    code = "import sys; from tinygrad_opt.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert {"race", "tinygrad_opt.cli"} <= set(words)
    heavy = ("tinygrad_opt.optim", "tinygrad_opt.lab", "tinygrad_opt.nn", "tinygrad_opt.train", "matplotlib", "numba")
    assert not {word for word in words if word.startswith(heavy)}


@pytest.mark.parametrize("name", ["race", "explain", "landscape", "lr-find"])
def test_every_option_has_help_with_its_default(name):
    parser = Parser(prog="x")
    import_module(f"tinygrad_opt.cli.{COMMANDS[name][1]}").add_options(parser)
    for action in parser._actions:
        lines = parser._get_formatter()
        lines.add_argument(action)
        assert action.help and (action.nargs == 0 or lines.format_help().count("(default") == 1), action.dest


def plain(text):
    """Return a text without its numbers and the shapes of its charts, which backends may round differently."""
    return re.sub(r"[▲>()<\s" + charts.STEPS + charts.SHADES + r"]+|-?\d[\d.]*(e[+-]?\d+)?", " ", text).split()


@pytest.mark.parametrize("line, words", [(line, words) for line, _, words in SHOWN], ids=[line for line, *_ in SHOWN])
def test_the_page_shows_what_the_commands_print(command, line, words):
    said = command(line)
    assert plain(said.out + said.err) == plain(words)
    assert "explain" in line or max(map(len, said.out.splitlines())) <= 80


def test_the_page_has_blocks_and_a_wrong_one_would_be_seen():
    assert len(SHOWN) == 10 and plain("1.5 ▁▂ x") == plain("-2e-07 x") != plain("y")
