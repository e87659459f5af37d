"""The pages in docs/optimizers are those that the code makes now."""

import ast
import math
import re
import runpy
from pathlib import Path

import pytest

import tinygrad_opt as tg
from tinygrad_opt.optim import OPTIMIZERS, optimizer_info

SCRIPT = Path(__file__).parents[1] / "examples" / "make_pages.py"
make = runpy.run_path(str(SCRIPT))
PAGES = make["pages"]()
FOLDER = make["FOLDER"]
each = pytest.mark.parametrize("name", OPTIMIZERS)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.removesuffix(".md"))
def test_a_page_is_what_the_code_makes_now(file):
    committed = (FOLDER / file).read_text(encoding="utf-8") if (FOLDER / file).exists() else ""
    assert committed == PAGES[file], f"{file} is out of date: run `python examples/make_pages.py`"


def test_there_are_no_other_pages():
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)
    assert len(PAGES) == len(OPTIMIZERS) + 1


@each
def test_the_notes_say_when_to_use_it(name):
    notes = make["notes"](OPTIMIZERS[name])
    assert set(notes) in ({"Use"}, {"Use", "Elsewhere"})
    assert "egin with" in notes["Use"] or "eave lr at 1" in notes["Use"], "a first learning rate"


@each
def test_the_documented_defaults_are_those_of_the_signature(name):
    words, defaults = make["arguments"](OPTIMIZERS[name]), optimizer_info(name).defaults
    assert list(words) and set(words) == {"params", *defaults}
    for option, default in defaults.items():
        kind, _, said = words[option][0].partition(", default ")
        if said:
            assert (math.inf if said == "inf" else ast.literal_eval(said)) == default, option
        else:
            assert kind.endswith(", optional") and default is None, option


@each
def test_links_lead_somewhere(name):
    text = PAGES[make["page_of"](name)]
    links = re.findall(r"\]\((?!https://)([^)]+)\)", text)
    assert len(links) > 1 and all((FOLDER / link).exists() for link in links)


def test_rules_that_differ_are_found():
    shown = list(make["rules"](tg.optim.SGD).values())[1:]
    assert shown == [["with `momentum=0.9`"], ["with `momentum=0.9, nesterov=True`"]]
    assert ["with `exclude_1d=True` on a vector"] in make["rules"](tg.optim.LARS).values()
    assert len(make["rules"](tg.optim.Lion)) == 1


def test_a_difference_is_marked_by_line():
    assert make["difference"]("a\nb\nd", "a\nc\nd") == "  a\n- b\n+ c\n  d"


def test_words_become_markdown():
    assert make["prose"]("x ** 2 and `a*b` (Luo, 2019, arXiv 1902.09843; https://a.org/b; c)") == (
        r"x \*\* 2 and `a*b` (Luo, 2019, [arXiv 1902.09843](https://arxiv.org/abs/1902.09843); <https://a.org/b>; c)")


def test_an_example_is_a_script_with_what_it_shows_as_comments():
    text = make["example"](tg.optim.Lion)
    assert text.startswith("import tinygrad_opt as tg\n") and ">>>" not in text
    assert text.endswith("w\n# tensor([  1.5000, -29.5000], requires_grad=True)")
    exec(text, {})


def test_the_guide_names_pages():
    guide = PAGES["README.md"].split("<!-- the table -->")[0]
    links = re.findall(r"\]\(([^)]+)\)", guide)
    assert len(links) > 10 and all((FOLDER / link).exists() for link in links)
