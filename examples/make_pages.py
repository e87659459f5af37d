"""Write docs/optimizers/: a page for every optimizer, and the table of all of them in its README.

    python examples/make_pages.py

Everything comes from the code: the formula from the rule, words from the docstring, bytes from a measured step, the
family from `tg.optim.lineage`, the record from the runs that `tg.optim.verify` repeats. What is written by hand in
the README stays.
"""

import difflib
import doctest
import inspect
import re
from pathlib import Path

import tinygrad_opt as tg
from tinygrad_opt.optim.lineage import ROOTS, lineage
from tinygrad_opt.optim.registry import REQUIRED, optimizer_info
from tinygrad_opt.optim.verify import recorded, records

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "optimizers"
TABLE = re.compile(r"(?<=<!-- the table -->\n).*(?=<!-- the end of the table -->)", re.S)


# ---- the docstring ------------------------------------------------------------------------------------------------


def sections(cls):
    """Return the sections of a class's docstring, by title; what stands before the first has the title ""."""
    title, *rest = re.split(r"^(\w+)\n-+\n", inspect.getdoc(cls), flags=re.M)
    return {"": title.strip(), **{name: text.strip("\n") for name, text in zip(rest[::2], rest[1::2])}}


def arguments(cls):
    """Return the words about each argument of a class, its type first; "As for X." is what X says."""
    found = {}
    for entry in re.split(r"\n(?=\S)", sections(cls)["Parameters"]):
        head, text = entry.split("\n", 1)
        names, _, kind = head.partition(" : ")
        text = " ".join(text.split())
        other = re.fullmatch(r"As for (\w+)\.", text)
        for name in names.split(", "):
            found[name] = arguments(tg.optim.OPTIMIZERS[other[1]])[name] if other else (kind, text)
    return found


def notes(cls):
    """Return the paragraphs of a class's notes, by their labels: Use, and where there is something to say Elsewhere."""
    paragraphs = (" ".join(text.split()) for text in sections(cls).get("Notes", "").split("\n\n"))
    return dict(text.split(": ", 1) for text in paragraphs if text)


# ---- the rules ----------------------------------------------------------------------------------------------------


def other_values(kind, default):
    """Return values of an option that may lead to another rule, by its type and default."""
    if isinstance(default, bool):
        return [not default]
    numbers = [0.9 if default == 0 else 0] if isinstance(default, (int, float)) else []
    return [word for word in re.findall(r'"(\w+)"', kind) if word != default] + numbers + [1] * (default is None)


def rules(cls):
    """Return the different rules of a class: (LaTeX, text) -> the options that lead there; the usual one first.

    Each option is tried alone; one that is refused alone, beside one of the others.
    """
    info, kinds = optimizer_info(cls.__name__), arguments(cls)
    found, accepted = {}, []

    def taken(options):
        shown = "with `" + ", ".join(f"{name}={value!r}" for name, value in options.items()) + "` " if options else ""
        legal = False
        for shape, where in ((2, 2), ""), ((2,), "on a vector"):
            try:
                optimizer = cls([tg.ones(*shape, requires_grad=True)], **{**info.settings, **options})
            except ValueError:
                continue
            legal, rule = True, (optimizer.formula(), optimizer.formula("text"))
            if rule not in found or not where:
                found.setdefault(rule, []).append((shown + where).strip())
        return legal

    taken({})
    for name, default in info.defaults.items():
        for value in other_values(kinds[name][0], default) if name != "maximize" else ():
            tries = ({**beside, name: value} for beside in ({}, *accepted))
            accepted += filter(None, [next(filter(taken, tries), None)])
    return found


def difference(usual, other):
    """Return how a rule differs from the usual one, both as text: its lines, marked with + and -."""
    return "\n".join(line for line in difflib.ndiff(usual.splitlines(), other.splitlines()) if line[0] != "?")


# ---- markdown -----------------------------------------------------------------------------------------------------


def block(language, text):
    return f"```{language}\n{text}\n```"


def math(latex):
    return block("math", latex.replace(r"\operatorname{", r"\mathrm{"))            # which GitHub refuses to print


def prose(text):
    """Return words from a docstring as markdown: papers linked, asterisks as they are."""
    parts = re.split(r"(`[^`]*`)", text)
    for change in ((r"\*", r"\\*"), (r"(https://[^\s;,)]+)", r"<\1>"),
                   (r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)")):
        parts[::2] = [re.sub(*change, part) for part in parts[::2]]
    return "".join(parts)


def table(*rows):
    head, *body = ("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def page_of(name):
    return f"{name.lower()}.md"


def formulas(cls):
    """Return the usual formula, what its own words mean, and how other options change it."""
    (latex, usual), *others = found = rules(cls)
    parts = [math(latex), block("text", usual)]
    called = dict.fromkeys(re.findall(r"(\w+)\(", "\n".join(text for _, text in found)))
    own = {name: function for name in called if is_own(function := vars(inspect.getmodule(cls)).get(name))}
    if own:
        meanings = {name: inspect.getdoc(word).splitlines()[0].removeprefix("Return ") for name, word in own.items()}
        parts.append("\n".join(f"- `{name}`: {meaning}" for name, meaning in meanings.items()))
    for latex, text in others:
        where = " or ".join(found[latex, text])
        parts += [f"{where[0].upper()}{where[1:]}:",
                  block("diff", difference(usual, text)),
                  f"<details><summary>as a formula</summary>\n\n{math(latex)}\n\n</details>"]
    return parts


def is_own(function):
    """Return whether a function is a word of one family of rules, and not of the language of all."""
    return getattr(function, "__module__", "").startswith(tg.optim.__name__)


def options(cls):
    defaults = optimizer_info(cls.__name__).defaults
    words = arguments(cls)
    for name in ("params", *defaults):
        kind, text = words[name]
        default = "" if defaults.get(name, REQUIRED) is REQUIRED else f"`{defaults[name]!r}`"
        yield f"`{name}`", re.sub(r", (default .*|optional)$", "", kind), default, prose(text)


def state(info):
    """Return what an optimizer keeps, in words."""
    kept = ", ".join(f"`{name}` {size:g}" for name, size in info.state.items())
    return f"{kept}: together {sum(info.state.values()):g} bytes for each float32 parameter." if kept else (
        "None, with the default options.")


def family(name):
    for edge in lineage(name):
        has_page = edge.name != name and edge.name in tg.optim.OPTIMIZERS                      # which wrappers have not
        who = f"[{edge.name}]({page_of(edge.name)})" if has_page else edge.name
        yield f"- {who} = {edge.words}:\n  `{edge}`"


def record(name):
    """Return what an optimizer is held to, in words."""
    if name not in recorded():
        return "Held to its paper, transcribed in `tests/_papers.py`; no run of another implementation is recorded."
    runs = records(name)
    references = "; ".join(dict.fromkeys(run.reference for run in runs))
    return (f"Held to its paper and to {len(runs)} recorded runs of {references}. "
            f'`tg.optim.verify("{name}")` repeats them.')


def example(cls):
    """Return the example of a docstring as a script, what it shows as comments."""
    lines = []
    for part in doctest.DocTestParser().get_examples(sections(cls)["Examples"]):
        shown = part.want.splitlines()[-1:] if part.exc_msg else part.want.splitlines()
        lines += [part.source.rstrip(), *(f"# {line}" for line in shown)]
    return "\n".join(lines)


def page(name):
    """Return the page of an optimizer."""
    cls, info = tg.optim.OPTIMIZERS[name], optimizer_info(name)
    source = Path(inspect.getsourcefile(cls)).resolve().relative_to(Path(tg.__file__).resolve().parents[1]).as_posix()
    words = [" ".join(paragraph.split()) for paragraph in sections(cls)[""].split("\n\n")]
    parts = [f"# {name}", f"[All optimizers](README.md) · [source](../../{source})", *map(prose, words),
             *(f"**{label}:** {prose(text)}" for label, text in notes(cls).items()),
             "## Formula", *formulas(cls),
             "## Arguments", table(("argument", "type", "default", "meaning"), *options(cls)),
             "## State", state(info),
             "## Family", "\n".join(family(name)),
             "## Record", record(name),
             "## Example", block("python", example(cls))]
    return "\n\n".join(parts) + "\n"


def index():
    """Return the README of the folder with its table made anew."""
    rows = [("optimizer", "what it is", "bytes", "paper")]
    for name in sorted(tg.optim.OPTIMIZERS, key=str.lower):
        info = optimizer_info(name)
        rows.append((f"[{name}]({page_of(name)})", ROOTS.get(name) or lineage(name)[0].words,
                     f"{sum(info.state.values()):g}", prose("; ".join(info.papers))))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    return TABLE.sub(lambda _: f"\n{table(*rows)}\n\n", readme)


def pages():
    """Return every file of the folder: name -> text."""
    return {"README.md": index(), **{page_of(name): page(name) for name in tg.optim.OPTIMIZERS}}


if __name__ == "__main__":
    made = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{FOLDER}: {len(made)} pages")
