import ast
import dataclasses
import inspect
import textwrap
from dataclasses import dataclass

import pytest
from tools.settings_known import configs

from nasjax import commands
from nasjax.settings import as_json, differences, from_json, named, override, resumable
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
        ("inner.limit=x", "needs a whole number"),
        ("inner.rate=nan", "finite"),
        ("inner.flag=maybe", "true or false"),
        ("space.filter_heights=2", "must be odd"),
        ("inner.rate", "field=value"),
    ],
)
def test_override_says_what_to_write(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(Outer(), assignment)


@pytest.mark.parametrize(
    ("method", "assignments", "message"),
    [
        ("pc_darts", ["search.epochs=1"], "search.frozen_epochs must be 0..1 (epochs), got 2; write "
                                          "--set search.frozen_epochs=VALUE"),
        ("pc_darts", ["search.sgd.momentum=2"], "search.sgd.momentum must be in [0, 1), got 2.0"),
        ("drnas", ["search.partial=1"], "K and search.operators, got (1,)"),
        ("random", ["recipe.schedule=linear_tail", "recipe.epochs=3"], "write recipe.schedule=linear"),
        ("spos", ["supernet.early_bird=0.5"], "-1..1, and supernet.affine=true"),
        ("spos", ["supernet.trainable=all_bn"], "--set supernet.trainable=all_bn: supernet.trainable=all_bn needs"),
        ("darts", ["search.stopping.start=-1"], "search.stopping.start must not be negative"),
        ("random", ["width=0"], "--set width=0: width must be at least 1"),
        ("msr_darts", ["search.score.compat=true"], "search.score.compat changes only the operator's rank; write "
                                                    "Score(operator=True, compat=True)"),
    ],
)  # fmt: skip
def test_what_a_settings_class_refuses_has_the_names_of_the_command_line(method, assignments, message):
    with pytest.raises(ValueError) as error:
        override(commands.configure(method), *assignments)
    assert message in str(error.value)
    assert all(f"--set {given.partition('=')[0]}=" in str(error.value) for given in assignments)


def parts_of(config, where=""):
    yield where, config
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            yield from parts_of(value, f"{where}{field.name}.")


def test_every_refusal_of_a_nested_settings_class_names_a_setting():
    """Of the texts as they stand in the sources, with a field's name where a loop puts one."""
    seen = 0
    nameless = {"shuffle layer cannot turn", "probabilities of mutations", "random graphs had", "ray:// is Ray's"}
    nameless |= {"cells are too many", "give every stage"}  # of several settings at once
    for where, part in {type(part): (where, part) for c in configs() for where, part in parts_of(c) if where}.values():
        names = [field.name for field in dataclasses.fields(part)]
        for kind in type(part).__mro__:
            method = vars(kind).get("__post_init__")
            if method is None or not method.__code__.co_filename.endswith(".py"):
                continue
            for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(method)))):
                if isinstance(node, ast.Raise):
                    text = said(node.exc.args[0], names[0])
                    if not any(words in text for words in nameless):
                        assert named(ValueError(text), part, where) != text or where in text, f"{kind.__name__}: {text}"
                        seen += 1
    assert seen > 60


def said(node, field):
    """The text of an f-string whose values are 1, or a field's name."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(said(value, field) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        return field if isinstance(node.value, ast.Name) and node.value.id in ("field", "name") else "1"
    return "1"


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
