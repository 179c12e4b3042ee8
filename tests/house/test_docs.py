"""README.md and docs/: what they name is there, and their form holds. Commands and programs have tests of their own."""

import functools
import json
import re
from importlib import import_module
from typing import get_type_hints

import pytest
from tools.pages import BLOCKS, PAGES, ROOT, Page
from tools.settings_known import prefixes, settable

import nasjax
from nasjax import catalog

LANGUAGES = {"sh", "python", "json"}
OTHERS = {"mine.py", "plugin.py", "plugin_2.py", "FILE.py"}  # files of users and of a workdir
FILE = re.compile(r"\.(py|json|jsonl|html|npz|jax|onnx|sh)$")
RECORDS = {"A new family": nasjax.Experiment, "A task": nasjax.Task}  # tables of docs/extend.md, by their headings
RESULTS = [Page(path) for path in sorted((ROOT / "benchmarks" / "results").glob("*.md"))]
LINKED = [*PAGES, *RESULTS, Page(ROOT / "BUILD_NOTES.md")]
TABLES = [*LINKED, Page(ROOT / "CHANGELOG.md"), Page(ROOT / "benchmarks" / "mutation" / "caught.md")]
WEB_FREE = [page for page in PAGES if page.name != "docs/deviations.md"]  # that one names files of other people's code
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_every_block_says_its_language():
    assert len(BLOCKS) > 50
    assert [block.place for block in BLOCKS if block.language not in LANGUAGES] == []


def test_architectures_as_json_are_those_of_their_spaces():
    spaces = []
    for block in BLOCKS:
        if block.language == "json":
            for tree in documents(block.text):
                builder = catalog.builder(tree["space"])
                space = builder.widen(builder.default, tree)
                space.validate(space.decode(tree))
                spaces.append(tree["space"])
    assert spaces == ["conv_chain", "darts_cell", "choice_chain", "tabular_cell", "vit_chain"]


def documents(text):
    """JSON one after the other."""
    while text:
        tree, end = json.JSONDecoder().raw_decode(text)
        yield tree
        text = text[end:].lstrip()


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.name)
def test_tables_have_a_head_and_equal_rows(page):
    for line, rows in page.tables:
        place = f"{page.name}:{line}"
        assert len(rows) > 2 and all(re.fullmatch(r":?-+:?", cell) for cell in rows[1]), f"{place}: no head"
        for n, row in enumerate(rows):
            assert len(row) == len(rows[0]), f"{page.name}:{line + n}: {len(row)} cells, its head has {len(rows[0])}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for line, target in page.links:
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists() and path.is_relative_to(ROOT), f"{page.name}:{line}: {target}"
        if anchor:
            assert anchor in Page(path).anchors, f"{page.name}:{line}: no heading #{anchor}"


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.path.stem)
def test_results_are_those_of_a_script(page):
    """benchmarks/results/SCRIPT.md begins with its command; other.md has what belongs to none."""
    if page.path.stem == "other":
        return
    (script,) = (ROOT / "benchmarks").rglob(f"{page.path.stem}.py")
    commands = " ".join(block.text for block in page.blocks).replace("\\\n", " ").split("python ")[1:]
    assert commands and {command.split()[0] for command in commands} == {str(script.relative_to(ROOT))}
    text = script.read_text()
    if "from miniature import" in text:  # their arguments
        text += (script.parent / "miniature.py").read_text()
    for flag in re.findall(r"--\w+", " ".join(commands)):
        assert f'"{flag}"' in text, f"{page.name}: no {flag}"


def test_the_notes_list_every_page_of_results():
    (notes,) = [page for page in LINKED if page.name == "BUILD_NOTES.md"]
    assert len(notes.path.read_text().splitlines()) <= 120
    linked = {(notes.path.parent / target).resolve() for _, target in notes.links}
    assert {page.path for page in RESULTS} <= linked


def test_every_method_stands_once_in_the_tables_of_methods_with_its_family():
    """Those of README.md and docs/README.md; other pages speak of families."""
    tables = {page.name: [rows for _, rows in page.tables] for page in PAGES if page.name.endswith("README.md")}
    (short,) = (rows for rows in tables["README.md"] if rows[0][0] == "method")
    (whole,) = (rows for rows in tables["docs/README.md"] if rows[0][:2] == ["page", "family"])
    names = [re.sub(r"\W*(\w+).*", r"\1", row[0]) for row in whole[2:]]
    assert sorted(row[0].strip("`") for row in short[2:]) == sorted(names) == sorted(catalog.METHODS)
    for name, row in zip(names, whole[2:], strict=True):
        config = get_type_hints(catalog.method(name).configure)["return"]
        assert config.__module__.startswith(f"nasjax.experiments.families.{row[1]}"), name


def test_a_decision_is_a_heading_four_sentences_and_a_link_into_the_code():
    (page,) = [page for page in PAGES if page.name == "docs/design.md"]
    for part in re.split(r"^## ", page.path.read_text(), flags=re.M)[1:]:
        heading, _, body = part.partition("\n")
        text, _, code = body.partition("\nCode: ")
        assert 1 <= len(re.findall(r"[.!?](?=\s)", text)) <= 4, heading
        assert re.search(r"\]\(\.\./(nasjax|tests)/", code), heading


def test_every_page_is_reached_from_the_readme():
    seen, new = set(), {ROOT / "README.md"}
    while new:
        seen |= new
        links = [
            page.path.parent / target.partition("#")[0]
            for page in PAGES
            if page.path in new
            for _, target in page.links
        ]
        new = {path.resolve() for path in links if path.suffix == ".md"} - seen
    assert {page.path for page in PAGES} <= seen


@every_page
def test_settings_in_text_are_fields(page):
    """`search.order=first`, `retrain.grid_*`, `search.FIELD`."""
    roots = {name.split(".")[0] for name in prefixes()}
    given = [(line, text) for line, text in page.spans if settable(*text.partition("=")[::2])]
    for line, text in page.spans:
        found = re.fullmatch(r"([a-z_]+)((?:\.[a-z_0-9]+)*)(\.\*|_\*)?(?:=(\S+))?", text)
        if not found or found[1] not in roots or not (found[2] or found[3] or found[4]) or FILE.search(text):
            continue
        name = found[1] + found[2]
        if found[3]:
            assert any(known.startswith(name + found[3][:-1]) for known in prefixes()), f"{page.name}:{line}: {text}"
        elif found[4] is None:
            assert settable(name) or attribute(f"nasjax.{name}"), f"{page.name}:{line}: {text}"
        else:
            beside = [more for at, more in given if at == line and "=" in more]
            assert settable(name, found[4], *beside), f"{page.name}:{line}: {text}"


@every_page
def test_tables_of_settings_list_fields(page):
    """Their first column; the heading or the line above says of what (`--set search.FIELD=value`, `data.*`)."""
    for line, rows in page.tables:
        if rows[0][0] not in ("field", "setting") or page.name == "docs/extend.md":
            continue
        above = "\n".join(page.prose[max(0, line - 30) : line - 1])
        before = re.findall(r"^#+ (.*)|--set ((?:\w+\.)*)FIELD=", above, re.M)
        owners = [""]
        if before:
            heading, prefix = before[-1]
            owners += [prefix] if prefix else [f"{name}." for name in re.findall(r"`(\w+)\.\*`", heading)]
        for n, row in enumerate(rows[2:], 2):
            siblings = list(owners)
            for name in re.findall(r"`([^`]+)`", row[0]):
                if name.startswith("--"):
                    continue
                known = next((p for p in siblings if fields(p + name)), None)
                assert known is not None, f"{page.name}:{line + n}: {name} is no setting"
                whole = known + name
                siblings.insert(0, whole[: whole.rindex(".") + 1] if "." in whole else "")


def test_tables_of_records_list_their_fields():
    (page,) = [page for page in PAGES if page.name == "docs/extend.md"]
    for heading, record in RECORDS.items():
        start = page.prose.index(f"## {heading}")
        rows = next(rows for line, rows in page.tables if line > start)
        listed = [name for row in rows[2:] for name in re.findall(r"`(\w+)", row[0])]
        assert set(listed) == set(record._fields), heading


def fields(name):
    if name.endswith("*"):
        return any(known.startswith(name[:-1]) for known in prefixes())
    return settable(name)


def attribute(dotted):
    """Whether a dotted name is a module of the package or what one holds."""
    parts = dotted.split(".")
    for k in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:k]))
        except ImportError:
            continue
        for part in parts[k:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


@every_page
def test_names_of_the_package_in_text_are_there(page):
    """`nasjax.search(...)`, and `nets.supernet.Shared` from within."""
    rooms = {path.stem for path in (ROOT / "nasjax").iterdir()}
    for line, text in page.spans:
        for dotted in re.findall(r"(?<![\w./-])nasjax(?:\.[A-Za-z_]\w*)+", text):
            assert dotted == "nasjax.launch" or attribute(dotted), f"{page.name}:{line}: {dotted}"
        found = re.fullmatch(r"(\w+)((?:\.\w+)+)(\(.*\))?", text)
        if found and found[1] in rooms and not settable(found[1] + found[2]) and not FILE.search(text):
            places = (f"nasjax.{found[1]}{found[2]}", f"nasjax.model.Model{found[2]}")
            assert any(map(attribute, places)), f"{page.name}:{line}: {text}"


@functools.cache
def files():
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.*") if ".git" not in path.parts]


@pytest.mark.parametrize("page", WEB_FREE, ids=lambda page: page.name)
def test_files_in_text_are_there(page):
    """`nasjax/types.py`, `tests/contracts/`, and by their last part `families/settings.py`."""
    for line, text in page.spans:
        for word in re.findall(r"[\w/.-]+", text):
            if re.match(r"(nasjax|tests|benchmarks|launch|docs)/", word):
                path = re.sub(r"NAME\.\w+$|NAME$", "", word)
                assert (ROOT / path).exists(), f"{page.name}:{line}: {word}"
            elif re.search(r"\.(py|sh|ipynb|md)$", word) and not word.startswith("/") and "NAME" not in word:
                known = word.split("/")[-1] in OTHERS or any(f"/{name}".endswith(f"/{word}") for name in files())
                assert known, f"{page.name}:{line}: {word}"


def test_the_page_for_contributors_counts_right():
    text = (ROOT / "docs" / "extend.md").read_text()
    most = int(re.search(r"`nasjax/experiments/NAME.py`, at most (\d+) lines", text)[1])
    assert max(len(path.read_text().splitlines()) for path in (ROOT / "nasjax" / "experiments").glob("*.py")) <= most
    listed = set(re.findall(r"^\| `(?:tests/contracts/)?(test_\w+_contract\.py)`", text, re.M))
    assert listed == {path.name for path in (ROOT / "tests" / "contracts").glob("test_*.py")}
