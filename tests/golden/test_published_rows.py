"""Every published row that has a count of parameters or multiply-adds: published_rows.json.

A row is [system, data set, parameters, multiply-adds], as published. "counted" are those whose network is known: the
arguments of `--mode=inspect`, what it says ("ours"), and in "unlike" why a published count is another. The others stand
under the reason why there is nothing to count.
"""

import json
from pathlib import Path

import pytest
from tools.commands import here

ROWS = json.loads((Path(__file__).parent / "published_rows.json").read_text())
COUNTED, UNKNOWN = ROWS["counted"], ROWS["not counted"]
TABLE = Path(__file__).parents[3] / "shared/spec/published.json"  # where the table that they come from is at hand


def rounds(ours, published):
    """Whether a count is the published one, rounded or cut off where that ends in zeros, but to a million at most."""
    zeros = len(str(published)) - len(str(published).rstrip("0"))
    return ours == published if zeros < 3 else abs(ours - published) < 10 ** min(zeros, 6)


@pytest.mark.parametrize("name", COUNTED)
def test_a_published_row_is_counted_by_command(name):
    case = COUNTED[name]
    code, out, err = here("--mode=inspect", *case["args"])
    assert code == 0, err
    found = json.loads(out)
    assert [found["params"], found["macs"]] == case["ours"]
    unlike = case.get("unlike", {})
    assert case["rows"] and set(unlike) <= {"params", "macs"}
    for *_, params, macs in case["rows"]:
        for what, published, ours in zip(("params", "macs"), (params, macs), case["ours"], strict=True):
            if published is not None:
                assert rounds(ours, published) == (what not in unlike), (what, ours, published)


def keys(rows):
    return [tuple(row) for row in rows]


def test_no_row_stands_twice():
    every = [*(row for case in COUNTED.values() for row in keys(case["rows"]))]
    every += [row for rows in UNKNOWN.values() for row in keys(rows)]
    assert len(every) == len(set(every)) and all(UNKNOWN)


@pytest.mark.skipif(not TABLE.is_file(), reason="the table of published figures is not at hand")
def test_no_row_of_the_table_is_missing():
    table = {
        (row["system"], row["dataset"], row["params"], row["flops"])
        for row in json.loads(TABLE.read_text())["entries"]
        if row["params"] or row["flops"]
    }
    counted = {row for case in COUNTED.values() for row in keys(case["rows"])}
    assert table == counted | {row for rows in UNKNOWN.values() for row in keys(rows)}


def test_counts_are_rounded_as_tables_do():
    assert rounds(4_201_630, 4_200_000) and rounds(3_558_464, 3_500_000) and not rounds(529_929_984, 574_000_000)
    assert rounds(3_349_342, 3_349_342) and not rounds(3_349_343, 3_349_342) and rounds(32_323_200, 32_000_000)
