"""Imports point one way (DESIGN section 2); heavy modules are not imported by `import nasjax`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "nasjax"

# Who may import whom, besides the standard library and third parties.
ALLOWED = {
    "types": set(),
    "spaces": {"types"},
    "ops": {"types", "spaces"},
    "nets": {"types", "spaces", "ops"},
    "searchers": {"types", "spaces"},
    "data": {"types"},
    "train": {"types", "spaces", "ops", "data"},
    "evaluators": {"types", "spaces", "ops", "nets", "train", "data"},
    "learners": {"types", "spaces", "ops", "nets", "train"},
    "runtime": {"types"},
    "settings": set(),
    "store": {"types", "settings", "__version__"},
    "report": set(),
}
TOP = {
    "experiments",
    "building",
    "commands",
    "model",
    "drive",
    "launch",
    "__init__",
}  # may import anything below them


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nasjax":
            names = [node.module] if "." in node.module else [f"nasjax.{alias.name}" for alias in node.names]
            found |= {name.split(".")[1] for name in names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("nasjax.")}
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    if room(path) in TOP:
        assert room(path) == "launch" or "launch" not in imported(path)
        return
    assert imported(path) - {room(path)} <= ALLOWED[room(path)]


def third_parties(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    return names


def test_flax_only_in_nets_and_flags_only_in_launch():
    users = {name: {room(f) for f in FILES if name in third_parties(f)} for name in ("flax", "absl", "orbax")}
    assert users == {"flax": {"nets"}, "absl": {"launch"}, "orbax": {"store"}}


def test_import_is_light():
    heavy = ("jax", "flax", "numpy", "matplotlib", "tensorflow_datasets")
    code = f"import sys, nasjax; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    code = "import time, jax; t = time.perf_counter(); import nasjax; print(time.perf_counter() - t)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(out) < 0.3


def test_public_names_exist():
    import nasjax

    assert all(getattr(nasjax, name) is not None for name in nasjax.__all__)
