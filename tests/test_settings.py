from dataclasses import dataclass

import pytest

from nasjax import commands
from nasjax.settings import as_json, differences, from_json, override, resumable
from nasjax.spaces.conv_chain.space import ConvChain


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    flag: bool = False
    limit: int | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    space: ConvChain = ConvChain()
    name: str = "a"


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("inner.rate=0.5", lambda c: c.inner.rate, 0.5),
        ("inner.flag=true", lambda c: c.inner.flag, True),
        ("inner.limit=7", lambda c: c.inner.limit, 7),
        ("inner.limit=none", lambda c: c.inner.limit, None),
        ("space.filter_counts=6, 12", lambda c: c.space.filter_counts, (6, 12)),
        ("space.strides=", lambda c: c.space.strides, ()),
        ("name=b=c", lambda c: c.name, "b=c"),
    ],
)
def test_override_parses_by_type(assignment, read, value):
    assert read(override(Outer(), assignment)) == value


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.rat=1", "did you mean inner.rate"),
        ("zzz=1", "choose from inner, space, name"),
        ("inner=1", "inner.FIELD=value"),
        ("name.x=1", "has no fields of its own"),
        ("inner.limit=x", "type int"),
        ("inner.rate=nan", "finite"),
        ("inner.flag=maybe", "true or false"),
        ("space.filter_heights=2", "must be odd"),
        ("inner.rate", "field=value"),
    ],
)
def test_override_says_what_to_write(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(Outer(), assignment)


def test_json_round_trip_and_differences():
    config = override(override(Outer(), "inner.rate=0.25"), "space.strides=1,2")
    tree = as_json(config)
    assert from_json(Outer(), tree) == config
    assert differences(as_json(Outer()), tree) == ["inner.rate: 0.1 -> 0.25", "space.strides: [] -> [1, 2]"]
    with pytest.raises(ValueError, match="unknown field 'wrong'"):
        from_json(Outer(), {**tree, "wrong": 1})


def test_a_resumed_search_may_alter_the_form_only_where_no_candidate_has_it():
    """Dropout of paths that are trained alone in the end, not of candidates that are trained now."""
    assert "form.dropout" in resumable(commands.configure("spos"))
    for method, space in (("random", "choice_chain"), ("reinforce_rnn", None), ("spos", "tabular_cell")):
        found = resumable(commands.configure(method, space=space))
        assert "retrain_recipe" in found and not [name for name in found if name.startswith("form")]


def test_a_renamed_setting_says_its_new_name():
    config = commands.configure("darts")
    for old, new in (("retrain_dropout=0.1", "form.dropout"), ("eval.channels=4", "form.channels")):
        with pytest.raises(ValueError, match=f"is now --set {new}$"):
            override(config, old)
