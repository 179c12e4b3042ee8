import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax.store import checkpoint


def _tree(scale):
    return {
        "adam": optax.adam(0.1).init({"w": jnp.ones(3) * scale}),
        "key": jax.random.key(3),
        "count": 4,
        "wall": 0.1 * scale,
        "none": jnp.zeros((0, 3)),
        "bits": jnp.asarray([1.1, jnp.nan], jnp.bfloat16),
    }


def test_restores_every_bit_and_type(tmp_path):
    tree = _tree(2.0)
    checkpoint.save(tmp_path, "00000001", tree)
    name, back = checkpoint.latest(tmp_path, _tree(0.0))
    assert name == "00000001"
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert jax.random.key_impl(back["key"]) == jax.random.key_impl(tree["key"])
    for new, old in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
        new, old = (jax.random.key_data(x) if getattr(x, "dtype", None) == tree["key"].dtype else x for x in (new, old))
        assert np.asarray(new).dtype == np.asarray(old).dtype
        assert np.asarray(new).tobytes() == np.asarray(old).tobytes()


def test_keeps_the_last_two_and_ignores_half_written_ones(tmp_path):
    for name in ("00000008", "00000016", "00000024", "final"):
        checkpoint.save(tmp_path, name, {"x": jnp.float32(int(name) if name.isdigit() else -1)})
    (tmp_path / "00000032.orbax-checkpoint-tmp-1").mkdir()
    assert not (tmp_path / "00000008").exists()
    name, tree = checkpoint.latest(tmp_path, {"x": jnp.float32(0)})
    assert (name, float(tree["x"])) == ("00000024", 24.0)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    for n in (1, 2):
        checkpoint.save(tmp_path, f"0000000{n}", {"x": jnp.float32(n)})
    for file in (tmp_path / "00000002").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    name, tree = checkpoint.latest(tmp_path, {"x": jnp.float32(0)})
    assert (name, float(tree["x"])) == ("00000001", 1.0)
    assert "resuming from 00000001" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path):
    checkpoint.save(tmp_path, "00000001", {"x": jnp.ones(3)})
    for file in (tmp_path / "00000001").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged") as error:
        checkpoint.latest(tmp_path, {"x": jnp.ones(3)})
    assert "\n" not in str(error.value)


def test_unwritable_folder_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(checkpoint.RunError, match="cannot write"):
        checkpoint.save(tmp_path / "file", "00000001", {"x": jnp.ones(3)})


def test_lines_survive_a_torn_end(tmp_path):
    file = tmp_path / "trials.jsonl"
    checkpoint.append_lines(file, [])
    assert not file.exists()  # as after replace_lines
    checkpoint.append_lines(file, [{"id": i} for i in range(3)])
    with file.open("a") as handle:
        handle.write('{"id": 3, "arc')
    assert [row["id"] for row in checkpoint.read_lines(file)] == [0, 1, 2]
    checkpoint.truncate_lines(file, 2)
    checkpoint.append_lines(file, [{"id": 9}])
    assert [row["id"] for row in checkpoint.read_lines(file)] == [0, 1, 9]
    with pytest.raises(ValueError, match="3 lines, the checkpoint counts 4"):
        checkpoint.truncate_lines(file, 4)
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.append_lines(file, [{"fitness": float("nan")}])
    file.write_text('{"id": 0}\nrubbish\n{"id": 2}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        checkpoint.read_lines(file)
