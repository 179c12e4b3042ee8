"""Architectures in the field's own notation: genotypes as releases print them, NAS-Bench-201's strings."""

import json

import pytest

from nasjax import commands
from nasjax.problem.builders.darts_cell import NAMED
from nasjax.spaces.darts_cell.notation import parsed, written
from nasjax.spaces.darts_cell.space import DartsCell

PAIRS = "[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1), ('skip_connect', 0), "
PAIRS += "('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)]"
REDUCE = "[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0), ('max_pool_3x3', 0), "
REDUCE += "('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)]"
V1 = f"Genotype(normal={PAIRS}, normal_concat=[2, 3, 4, 5], reduce={REDUCE}, reduce_concat=[2, 3, 4, 5])"


def test_a_released_genotype_is_the_named_cell():
    """DARTS_V1, as in the authors' genotypes.py."""
    space = DartsCell()
    assert parsed(space, V1) == parsed(space, V1.replace("[2, 3, 4, 5]", "range(2, 6)")) == NAMED["DARTS_V1"]
    assert parsed(space, f"Genotype({PAIRS}, range(2, 6), {REDUCE}, range(2, 6))") == NAMED["DARTS_V1"]


@pytest.mark.parametrize("name", NAMED)
def test_what_is_written_is_read_again(name):
    assert parsed(DartsCell(), written(NAMED[name])) == NAMED[name]
    assert parsed(DartsCell(), json.dumps(NAMED[name])) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Genotype(normal=[('sep_conv_3x3', 1)", "cannot be read"),
        ("Genotype(normal=__import__('os'), reduce=[])", "cannot be read"),
        (f"Genotype(normal={PAIRS})", "cannot be read"),
        (V1.replace("[2, 3, 4, 5]", "range(3, 6)"), "concatenate nodes 2 to 5"),
        (V1.replace("avg_pool_3x3", "avg_pool_5x5"), "not an operator here"),
    ],
)
def test_a_genotype_that_is_none_says_what_to_write(text, said):
    with pytest.raises(ValueError, match=said):
        parsed(DartsCell(), text)


def test_by_command(tmp_path):
    config = commands.configure("darts", "paper")
    assert commands.inspect(config, V1)["params"] == commands.inspect(config, "DARTS_V1")["params"]
    (tmp_path / "cell.txt").write_text(V1 + "\n")
    assert commands.inspect(config, str(tmp_path / "cell.txt"))["arch"] == NAMED["DARTS_V1"]
    table = commands.configure("random", None, None, "tabular_cell")
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
    assert commands.inspect(table, text)["arch"]["ops"] == [
        "nor_conv_3x3", "none", "skip_connect", "none", "none", "skip_connect",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="write it like"):
        commands.inspect(table, "|nor_conv_3x3~0|")
