"""Exported networks: any architecture, any batch size, each platform's own operators, and what a reader must know."""

import contextlib
import datetime
import io
import json
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from tools.exportable import CASES, difference, network_of

from nasjax import commands, model
from nasjax.commands import exporting
from nasjax.ops import portable
from nasjax.ops.conv import conv2d
from nasjax.ops.depthwise import depthwise_conv2d
from nasjax.types import no_carry


def exports(name, seeds):
    case, found = CASES[name], 0
    for seed in seeds:
        network = network_of(case, seed)
        if network is not None:
            found += 1
            assert difference(case, network, seed) < 1e-4, (name, seed)
    assert found


SEEDS = {  # whose architectures have every operator of their space between them
    "conv_chain types": (1, 4),
    "conv_chain v3": (1, 6),
    "conv_chain large": (1, 4),
    "darts_cell": (1, 8),
    "darts_cell noise": (1,),
    "darts_cell imagenet": (4,),  # cells as above behind another stem
    "choice_chain shuffle": (1, 3),
    "choice_chain mobile": (1, 5, 6),
    "choice_chain channels": (1, 5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_architectures_of_every_space(name):
    exports(name, SEEDS.get(name, (1, 2)))


@pytest.mark.slow
def test_a_convolution_in_pieces_has_any_batch_and_gradients():
    """Few filters on many channels: the form that takes a static batch in pieces. Gradients are exported too."""
    w = jax.random.normal(jax.random.key(0), (3, 3, 24, 3))
    (b,) = jax.export.symbolic_shape("b")

    def slopes(x):
        return jax.grad(lambda x, w: jnp.square(conv2d(x, w)).sum(), (0, 1))(x, w)

    exported = jax.export.export(jax.jit(slopes))(jax.ShapeDtypeStruct((b, 6, 5, 24), jnp.float32))
    for n in (1, 4):
        x = jax.random.normal(jax.random.key(n), (n, 6, 5, 24))
        for got, expected in zip(exported.call(x), slopes(x), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-3, rtol=1e-4)


@pytest.fixture(scope="module")
def depthwise():
    variables = {"w": jnp.ones((3, 3, 5))}

    def images(size):
        return jax.ShapeDtypeStruct((size, 6, 6, 5), jnp.float32)

    return portable.batched(lambda variables, x: depthwise_conv2d(x, variables["w"]), variables, images)


def test_an_artifact_holds_each_platforms_own_form(depthwise):
    """A grouped convolution for GPU and TPU, shifted products for CPU; compiled, only the platform's own is left."""
    assert depthwise.platforms == portable.PLATFORMS
    assert "feature_group_count = 5" in depthwise.mlir_module()
    program = jax.jit(depthwise.call).lower(jnp.ones((2, 6, 6, 5))).compile().as_text()
    assert "convolution" not in program and "conditional" not in program


def test_facts_tell_who_reads_an_artifact(depthwise, monkeypatch):
    monkeypatch.setattr(portable, "version", lambda name: "0.10.2")
    facts = json.loads(json.dumps(portable.facts(depthwise)))
    assert facts["inputs"] == [{"shape": ["b", 6, 6, 5], "dtype": "float32"}]
    assert facts["platforms"] == ["cpu", "cuda", "tpu"]
    assert facts["jax"] == jax.__version__
    low, high = facts["calling_convention_versions_read"]
    assert low <= facts["calling_convention_version"] <= high
    assert (facts["read_by_versions_built_until"], facts["or_later"]) == ("2026-12-17", False)
    monkeypatch.setattr(portable, "version", lambda name: "0.11.0")
    facts = portable.facts(depthwise)
    assert (facts["read_by_versions_built_until"], facts["or_later"]) == ("2026-12-17", True)


@pytest.mark.parametrize(
    ("release", "day"),
    [
        *(("0.10.1", None), ("0.10.2", (2026, 6, 17)), ("0.10.10", (2026, 6, 17)), ("1.0.0.dev2", (2026, 6, 17))),
        *(("0.11.0.dev20260801", (2026, 8, 1)), ("0.9.1.dev20260102+selfbuilt", (2026, 1, 2))),
    ],
)
def test_a_releases_day_is_never_later_than_it_was(release, day):
    assert portable._built(release) == (day and datetime.date(*day))


def test_six_months_later():
    later = [portable._months_later(datetime.date(*day), 6) for day in ((2026, 6, 17), (2026, 8, 31), (2026, 12, 1))]
    assert later == [datetime.date(2026, 12, 17), datetime.date(2027, 2, 28), datetime.date(2027, 6, 1)]


def test_export_writes_the_facts_beside_the_artifact(tmp_path, monkeypatch):
    variables = {"params": {"w": np.full((2, 2, 1), 0.5, np.float32)}}

    def apply(variables, x):
        return jnp.tensordot(x.astype(jnp.float32), variables["params"]["w"], 3)[:, None] * jnp.ones((1, 2))

    trained = model.Model(
        apply,
        variables,
        (2, 2, 1),
        "uint8",
        ("cat", "dog"),
        {"space": "none"},
        "classification",
        no_carry,
        "last",
        (0.0, 240.0),
    )
    monkeypatch.setattr(model, "load", lambda path, *, point: trained)
    written = model.export(tmp_path)
    assert [path.name for path in written] == ["weights.npz", "arch.json", "model.jax", "model.json"]
    facts = json.loads((tmp_path / "export" / "model.json").read_text())
    assert facts["names"] == ["cat", "dog"]
    assert facts["units"] == "pixels 0..255 as they are in the training data, not scaled; [B, H, W, C]"
    assert facts["trained_on"] == [0.0, 240.0]
    assert facts["inputs"] == [{"shape": ["b", 2, 2, 1], "dtype": "uint8"}]
    exported = jax.export.deserialize((tmp_path / "export" / "model.jax").read_bytes())
    x = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    np.testing.assert_allclose(exported.call(x), apply(variables, x))
    for bad in (x.astype(np.int32), x / 255, x[:, :1]):
        with pytest.raises(ValueError, match="mismatch"):
            exported.call(bad)

    lines, _ = commands.exported(written, datetime.date.fromisoformat(facts["written"]))
    listed = {line.split()[0]: line for line in lines[1:5]}
    for path in written:
        assert f" {path.stat().st_size:,} bytes " in listed[str(path)]
    assert lines[-3] == "Outputs are those of cat, dog, in this order."
    assert "on cpu, cuda, tpu, pixels 0..255 as they are in the training data" in lines[-2]
    assert f"read by jax {jax.__version__}, which wrote it" in lines[-1]
    assert printed(program(lines)) == str(np.asarray(apply(variables, x[:1] * 0))) + "\n"


def program(lines):
    """What is printed to load and run an exported network."""
    start = lines.index("import jax.export, numpy, pathlib")
    return "\n".join(lines[start : start + 3])


def printed(text):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(text, {})
    return out.getvalue()


@pytest.mark.slow
def test_the_printed_program_runs_a_network_that_carries_state(tmp_path, monkeypatch):
    variables = {"params": {"w": np.float32(2.0)}}

    def apply(variables, x):
        tokens, (memory,) = x
        return tokens * variables["params"]["w"] + memory["h"][0, :, None], ({"h": memory["h"] + 1},)

    def carry(size):
        return ({"h": jnp.zeros((1, size))},)

    texts = model.Model(apply, variables, (4,), "int32", ("a", "b"), {"space": "none"}, "language", carry)
    monkeypatch.setattr(model, "load", lambda path, *, point: texts)
    lines, _ = commands.exported(model.export(tmp_path))
    assert "numpy.zeros((1, 4), 'int32'), ({'h': numpy.zeros((1, 1), 'float32')},)" in program(lines)
    assert printed(program(lines)).count("Array") == 2
    assert "pixels" not in lines[-2]


FACTS = {"jax": "0.10.2", "read_by_versions_built_until": "2026-12-17", "or_later": False}


@pytest.mark.parametrize(
    ("day", "changes", "expected"),
    [
        ((2026, 7, 1), {}, None),
        ((2026, 10, 17), {}, None),
        ((2026, 10, 18), {}, "built after 2026-12-17, 60 days from now, refuse .* install jax==0.10.2, or upgrade"),
        ((2026, 12, 17), {}, "2026-12-17, 0 days from now, refuse"),
        ((2027, 1, 1), {}, "before today, refuse"),
        ((2027, 1, 1), {"or_later": True}, None),
        ((2027, 1, 1), {"read_by_versions_built_until": None}, None),
    ],
)
def test_a_warning_when_an_exported_network_is_readable_until_soon(day, changes, expected):
    facts = FACTS | changes
    told = exporting._warning(facts, facts["read_by_versions_built_until"], datetime.date(*day))
    assert told is None if expected is None else re.search(expected, told)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "built until 2026-12-17 (JAX"),
        ({"or_later": True}, "built until 2026-12-17 or later (JAX"),
        ({"read_by_versions_built_until": None}, "six months after its jaxlib"),
    ],
)
def test_it_is_said_who_reads_an_exported_network(changes, expected):
    facts = FACTS | changes
    assert expected in exporting._window(facts, facts["read_by_versions_built_until"])
