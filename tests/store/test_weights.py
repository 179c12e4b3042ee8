"""Weights of a supernet in a .safetensors file, and what is no such thing."""

import numpy as np
import pytest

from nasjax.store import weights


def test_a_file_gives_back_what_was_written(tmp_path):
    tree = {"params": {"stem": {"conv": np.arange(6, dtype=np.float32).reshape(2, 3).T}}, "batch_stats": {}}
    path = weights.write(tmp_path / "net.safetensors", tree, {"data": "abc"})
    found, facts = weights.read(path)
    assert facts == {"data": "abc"} and found["batch_stats"] == {}
    assert np.array_equal(found["params"]["stem"]["conv"], tree["params"]["stem"]["conv"])
    assert list(tmp_path.iterdir()) == [path]


def test_what_holds_no_weights_is_told_in_a_line(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for source, told in (
        (tmp_path, "has no trained supernet"),
        (tmp_path / "missing.safetensors", "does not exist"),
        (tmp_path / "broken.safetensors", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=told):
            weights.read(source)
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        weights.write(tmp_path / "net.npz", {"params": {}}, {})
