"""The rungs of asha on a table are the table's fidelities."""

import pytest

from nasjax.commands import configure
from nasjax.experiments.asha import _rungs
from nasjax.problem.problem import Problem
from nasjax.settings import override

TABLE = ("table.path=t.npz", "table.fidelities=1:a:c,4:b:d,9:e:f")


def rungs(*settings):
    return _rungs(Problem(override(configure("asha", space="tabular_cell"), *settings)))


def test_they_are_those_of_the_table_or_some_that_follow_each_other():
    assert rungs(*TABLE) == (1, 4, 9)
    assert rungs(*TABLE, "search.rungs=4,9") == (4, 9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((TABLE[0],), "name their columns: --set table.fidelities="),
        ((*TABLE, "search.rungs=4,12"), "rungs=4,12 must be fidelities of the table, 1, 4, 9"),
        ((*TABLE, "search.rungs=1,9"), "none left out between them"),  # 9 after 4 would be charged, not 9 after 1
        ((*TABLE, "search.min_epochs=4"), "min_epochs has no effect with a table"),
    ],
)
def test_what_the_table_does_not_have_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        rungs(*settings)
