"""Pack recorded trajectories into the file that `tinygrad_opt.optim.verify` replays.

    python examples/pack_oracles.py FOLDER

FOLDER holds `problems.json` and a `<Optimizer>.json` for each optimizer. The zip that comes out has, for each of them,
`<Optimizer>.json` (its records without their numbers) and `<Optimizer>.f8` (the numbers, little-endian doubles, in
the order record, curve, parameter, step, entry). A curve is `params`, and `x` and `z` of the schedule-free ones.
The same folder gives the same bytes.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "tinygrad_opt" / "optim" / "oracles.zip"
KEPT = ("id", "problem", "kwargs", "reference", "tolerance", "note")
CURVES = ("params", "x", "z")


def compact(record):
    """Return a record without numbers, and its numbers; step 0, which is the start of the problem, is left out."""
    curves = {curve: record[curve] for curve in CURVES if curve in record}
    numbers = [np.ravel(values[1:]) for curve in curves.values() for values in curve.values()]
    head = {key: record[key] for key in KEPT if key in record}
    names = {key: list(curve) for key, curve in curves.items()}
    return {**head, "steps": record["steps"][1:], "curves": names}, numbers


def pack(folder, out):
    with zipfile.ZipFile(out, "w") as file:
        def write(name, content):
            content = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode()
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)          # dated 1980, always

        problems = json.loads((folder / "problems.json").read_text(encoding="utf-8"))["problems"]
        write("problems.json", {name: {key: problem[key] for key in ("data", "start")}
                                for name, problem in problems.items()})
        for path in sorted(folder.glob("*.json")):
            if path.name != "problems.json":
                found = json.loads(path.read_text(encoding="utf-8"))
                heads, numbers = zip(*map(compact, found["records"]))
                write(f"{found['optimizer']}.json", heads)
                write(f"{found['optimizer']}.f8", np.concatenate(sum(numbers, [])).astype("<f8").tobytes())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]), OUT)
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")
