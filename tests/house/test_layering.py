"""Imports point one way, between rooms; heavy modules are not imported by `import nasjax`.

A room is a folder of the package, or a file of its root. Names of methods, spaces, tasks and data sets lead to their
modules in the catalog, which imports them by name when they are used: no import of the table below.
"""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nasjax import catalog

ROOT = Path(__file__).parents[2] / "nasjax"

# What each room imports, besides the standard library, third parties and itself: every room, and nothing that is not
# there. The first ones know of nobody.
ALLOWED = {
    "__init__": set(),  # the public names are imported when they are used
    "types": set(),
    "settings": set(),
    "catalog": set(),
    "ops": {"types"},
    "report": set(),  # it reads the files of a workdir, whoever wrote them
    "spaces": {"types"},
    "searchers": {"types"},
    "runtime": {"types"},
    "data": set(),
    "nets": {"types", "spaces", "ops"},
    "train": {"types", "ops"},
    "store": {"types", "settings", "__init__"},
    "tasks": {"types", "data", "train"},
    "latency": {"types", "ops", "train", "data"},
    "problem": {"types", "settings", "catalog", "spaces", "nets", "learners", "data", "train", "latency"},
    "learners": {"types", "spaces", "ops", "train", "tasks"},
    "evaluators": {"types", "ops", "spaces", "data", "train"},
    "drive": {"types", "settings", "store", "train"},
    "model": {"types", "catalog", "problem", "data", "ops", "store"},
    "experiments": {
        *("types", "settings", "catalog", "spaces", "searchers", "nets", "learners", "problem", "data"),
        *("train", "evaluators", "store", "runtime", "drive", "latency"),
    },
    "referee": {"types", "drive", "evaluators", "problem", "report", "runtime", "store"},
    "commands": {
        *("types", "settings", "catalog", "data", "problem", "store", "runtime", "drive", "model", "report", "referee"),
        "latency",
    },
    "plugins": {"types", "settings", "catalog", "spaces", "data", "problem", "experiments", "store", "train"},
    "cli": {"catalog", "report", "store"},
    "flagged": {"settings", "problem", "commands", "store"},
    "launch": {"__init__", "flagged", "store", "commands", "runtime", "cli"},
}

FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def modules(path: Path) -> set[str]:
    """What a file imports from nasjax, dotted: "nasjax.data.dataset", and of it "nasjax.data.dataset.load"."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "nasjax":
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "nasjax"}
    return found


def imported(path: Path) -> set[str]:
    """The other rooms that a file imports."""
    rooms = {name.split(".")[1] for name in modules(path) if "." in name}
    return {"__init__" if name == "__version__" else name for name in rooms} - {room(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    assert imported(path) <= ALLOWED[room(path)]


def test_the_table_names_every_room_and_nothing_that_is_not_imported():
    assert set(ALLOWED) == {room(path) for path in FILES}
    for name, allowed in ALLOWED.items():
        assert allowed == set().union(*(imported(path) for path in FILES if room(path) == name)), name


def test_rooms_have_no_cycle():
    order = list(graphlib.TopologicalSorter(ALLOWED).static_order())  # raises CycleError
    assert sorted(order) == sorted(ALLOWED)
    names = {_dotted(path): path for path in FILES if path.stem != "__init__"}
    files = graphlib.TopologicalSorter({name: modules(path) & (set(names) - {name}) for name, path in names.items()})
    assert len(list(files.static_order())) == len(names)  # nor have files


def _dotted(path: Path) -> str:
    name = ".".join(["nasjax", *path.relative_to(ROOT).with_suffix("").parts])
    return name.removesuffix(".__init__")


def test_only_the_catalog_and_the_public_names_import_by_name():
    users = {str(path.relative_to(ROOT)) for path in FILES if "import_module" in path.read_text()}
    assert users == {"catalog.py", "__init__.py", "report/networks.py"}  # the last one finds a space's drawing
    assert not any("__import__" in path.read_text() for path in FILES)


def test_the_root_holds_six_files():
    assert len(list(ROOT.glob("*.py"))) <= 6


# What runs any method on any space and data must not know one of them.
BLIND = [path for path in FILES if room(path) in ("cli", "commands", "launch", "model", "drive", "store", "train")]
IN_FAMILIES = [path for path in FILES if path.parent.name == "families"]
CONCRETE = ("spaces", "nets", "searchers", "learners", "evaluators", "tasks", "experiments")
# Of the other rooms with a module per name.
SHARED = tuple(f"nasjax.problem.{name}" for name in ("problem", "given", "saved", "meaning"))
SHARED += ("nasjax.data.dataset", "nasjax.data.units")
NAMES = {*catalog.METHODS, *catalog.SPACES, *catalog.DATA}
# Families of methods are not in the catalog; "candidates" and "settings" are words of the files, too.
FAMILIES = {path.stem for path in (ROOT / "experiments" / "families").glob("*.py")}
NAMES |= FAMILIES - {"__init__", "candidates", "settings"}


@pytest.fixture(scope="module")
def concrete_classes():
    """Classes of spaces, data sets, networks, methods and families."""
    files = [path for path in FILES if room(path) in (*CONCRETE, "problem", "data") and _dotted(path) not in SHARED]
    nodes = [node for path in files for node in nodes_of(path)]
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    assert {"ConvChain", "DartsCell", "CandidateConfig", "LearnConfig", "OneShotConfig", "EvalConfig"} <= classes
    return classes


@pytest.mark.parametrize("path", BLIND, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_everything_imports_nothing_of_one(path):
    for module in modules(path):
        parts = module.split(".")
        assert len(parts) == 1 or parts[1] not in CONCRETE, module


@pytest.mark.parametrize("path", IN_FAMILIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_family_imports_no_space_network_or_method(path):
    for module in modules(path):
        parts = module.split(".")
        assert len(parts) < 2 or parts[1] != "spaces", module
        assert parts[1:2] != ["nets"] or parts[:3] == ["nasjax", "nets", "supernet"], module
        assert parts[1:2] != ["experiments"] or parts[2] == "families", module


@pytest.mark.parametrize("path", [*BLIND, *IN_FAMILIES], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_everything_knows_nothing_by_name(path, concrete_classes):
    for module in modules(path):
        parts = module.split(".")
        if len(parts) > 1 and parts[1] in ("problem", "data"):
            assert ".".join(parts[:3]) in SHARED, module
    told = {id(node.value) for node in nodes_of(path) if isinstance(node, ast.Expr)}  # docstrings
    names = NAMES - {"topk", "random"} if path in IN_FAMILIES else NAMES  # a searcher, and a row of truth.json
    for node in nodes_of(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            assert node.value not in names, f"line {node.lineno} names {node.value}"
        kinds = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            kinds = node.args[1:] if node.func.id in ("isinstance", "issubclass") else []
        if isinstance(node, ast.MatchClass):
            kinds = [node.cls]
        inside = [leaf for kind in kinds for leaf in ast.walk(kind)]
        named = {leaf.id for leaf in inside if isinstance(leaf, ast.Name)}
        named |= {leaf.attr for leaf in inside if isinstance(leaf, ast.Attribute)}
        assert not named & concrete_classes, f"line {kinds[0].lineno} asks for {named & concrete_classes}"


LOOK_UPS = re.compile(r"catalog\.(method|builder|task|source|named)\(")


def test_names_are_looked_up_where_a_problem_is_made_and_nowhere_else():
    users = {room(path) for path in FILES if LOOK_UPS.search(path.read_text())}
    assert users == {"problem", "commands"}


def test_experiments_import_little_of_what_they_search():
    of = ("spaces", "nets", "data")
    files = [path for path in FILES if room(path) == "experiments"]
    found = [(path.name, m) for path in files for m in froms(path) if m.split(".")[1:2] and m.split(".")[1] in of]
    assert len(found) <= 12, found


def froms(path: Path) -> set[str]:
    """The modules of the package that a file imports from."""
    nodes = [node for node in nodes_of(path) if isinstance(node, ast.ImportFrom)]
    return {node.module for node in nodes if node.module and node.module.startswith("nasjax.")}


def third_parties(path: Path) -> set[str]:
    names = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    return names


def test_flax_only_in_nets_and_flags_only_where_a_command_begins():
    users = {name: {room(f) for f in FILES if name in third_parties(f)} for name in ("flax", "absl", "orbax")}
    assert users == {"flax": {"nets"}, "absl": {"launch", "flagged"}, "orbax": {"store"}}


def test_import_is_light():
    heavy = ("jax", "flax", "numpy", "vl_convert", "tensorflow_datasets")
    code = f"import sys, nasjax; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    code = "import time, jax; t = time.perf_counter(); import nasjax; print(time.perf_counter() - t)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(out) < 0.3


def test_public_names_exist():
    import nasjax

    assert all(getattr(nasjax, name) is not None for name in nasjax.__all__)
