"""Plugins of docs/plugins.md as files, and the command that runs them."""

import re
from pathlib import Path

import jax
import pytest
from tools.commands import forget_own

from nasjax import launch

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
BLOCKS = dict(re.findall(r"<!-- plugin: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
TINY = ["--set=recipe.epochs=1", "--set=data.train_limit=64", "--set=data.valid_limit=32", "--set=width=2"]
SHORT = ["--set=retrain_recipe.epochs=1"]


@pytest.fixture(autouse=True)
def clean():
    """Takes back what a test registered. A user's JAX broadcasts ranks, as it does by default."""
    jax.config.update("jax_numpy_rank_promotion", "allow")  # children are compiled in other threads, too
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")
    forget_own()


def written(tmp_path, *names, more=""):
    path = tmp_path / "mine.py"
    path.write_text("\n".join([*(BLOCKS[name] for name in names), more]))
    return path


def command(*args):
    return launch.main(["nasjax", "--compile_cache=off", *map(str, args)])
