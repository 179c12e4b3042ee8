"""Published sizes of recurrent language models. Zoph & Le 2017, sections 4.2 and table 2."""

import pytest

from nasjax.spaces.cell_tree.named import NAMED, program
from nasjax.spaces.cell_tree.plan import RecurrentForm, hidden_for, plan, training_bytes

NASCELL = program(NAMED["NASCELL"])


@pytest.mark.parametrize(
    ("hidden", "tied", "params"), [(740, False, 32_323_200), (740, True, 24_923_200), (1152, True, 53_987_328)]
)
def test_published_sizes(hidden, tied, params):
    """32, 25 and 54 million: base 8, two layers, 10,000 words, no biases."""
    found = plan(NASCELL, RecurrentForm(hidden=hidden, tied=tied), 10_000)
    assert found.params == params
    assert found.layer_params == (16 * hidden**2,) * 2
    assert found.macs == 32 * hidden**2 + 10_000 * hidden
    assert plan(8, RecurrentForm(hidden=hidden, tied=tied), 10_000).params == params


def test_the_search_trains_cells_of_538_units():
    assert hidden_for(20_000_000) == 538
    assert hidden_for(32_323_200) == hidden_for(24_923_200, tied=True) == 740


def test_an_lstm_has_half_the_weights():
    form = RecurrentForm(hidden=200, bias=True, softmax_bias=True)  # the "small" model of Zaremba et al. 2014
    assert plan("lstm", form, 10_000).params == 2 * (8 * 200**2 + 4 * 200) + 2 * 10_000 * 200 + 10_000
    assert plan("gru", RecurrentForm(hidden=10, embedding=4), 50).layer_params == (3 * 10 * 14, 3 * 10 * 20)
    assert hidden_for(20_000_000, matrices=4) > 538


def test_memory_grows_with_what_is_kept():
    small = plan(8, RecurrentForm(hidden=64), 1000)
    assert training_bytes(small, 20, 35) < training_bytes(small, 20, 70) < training_bytes(small, 40, 70)
    assert 4 * 3 * small.params < training_bytes(small, 1, 1)


def test_wrong_use_says_what_to_write():
    with pytest.raises(ValueError, match="leave embedding out"):
        RecurrentForm(hidden=8, embedding=4, tied=True)
    with pytest.raises(ValueError, match=r"input_dropout must lie in \[0, 1\)"):
        RecurrentForm(input_dropout=1.0)
    with pytest.raises(ValueError, match="at least 2 words"):
        plan(8, RecurrentForm(), 1)
    with pytest.raises(ValueError, match="too few"):
        hidden_for(10)
