"""What a network takes from another one, and what it refuses."""

import numpy as np
import pytest

from nasjax.train.transfer import depending, transfer


def variables(outputs=3, width=2, value=0.0):
    head = {"weight": np.full((width, outputs), value, np.float32)}
    return {"params": {"stem": np.full((4, width), value, np.float32), "head": head}, "batch_stats": {}}


HEAD = depending(variables(3), variables(4))


def test_the_head_is_what_depends_on_the_outputs():
    assert sorted(HEAD) == ["params/head/weight"]


@pytest.mark.parametrize("same_data", [False, True])
def test_all_but_the_head_is_taken_and_the_head_where_the_data_are_the_same(same_data):
    found = transfer(variables(), variables(value=1.0), HEAD, same_data)
    assert (found.variables["params"]["stem"] == 1).all()
    assert (found.variables["params"]["head"]["weight"] == same_data).all()
    assert found.fresh == (() if same_data else ("params/head/weight",)) == found.left
    assert "params/stem" in found.taken


def test_what_has_no_place_here_is_told():
    given = variables(value=1.0)
    given["params"]["more"] = np.zeros(1)
    assert transfer(variables(), given, HEAD, True).left == ("params/more",)


def test_missing_arrays_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"1 of 2 arrays have other shapes .*params/stem \[4, 5\] instead of \[4, 2\]"):
        transfer(variables(), variables(width=5), HEAD, False)
    given = variables()
    del given["params"]["stem"]
    with pytest.raises(ValueError, match=r"1 of 2 arrays are missing .*params/stem; it must be of the same space"):
        transfer(variables(), given, HEAD, False)
    with pytest.raises(ValueError, match="params/head/weight"):  # of the same data, so the head should fit
        transfer(variables(), variables(outputs=4), HEAD, True)
