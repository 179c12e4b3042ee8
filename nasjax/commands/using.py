"""A retrained network: exported, or applied to files."""

from __future__ import annotations

from pathlib import Path

from nasjax import catalog
from nasjax.commands.searching import watching
from nasjax.runtime import jax_settings
from nasjax.store import workdir


def export(path: str | Path, format: str = "jax") -> list[Path]:
    """Writes the retrained network in `path` for other programs; `format` and the files as of `nasjax.model.export`."""
    from nasjax.model import export as write

    jax_settings.check()
    return write(Path(path), format)


def export_supernet(path: str | Path, out: str | Path) -> Path:
    """Writes the trained supernet of a workdir to `out`, a .safetensors file, which `--init_from` reads.

    Names are those of its arrays, joined by "/": "params/stem/conv", "batch_stats/tail/norm/mean".

    Raises:
      ValueError: `path` has none, `out` ends otherwise, or safetensors is not installed.
    """
    from nasjax.store import weights

    return weights.write(out, *weights.read(path))


def predict(
    path: str | Path,
    source: str | Path,
    out: str | Path | None = None,
    *,
    point: int | str | None = None,
    same_units: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Applies the retrained network of a workdir to a file or folder.

    Args:
      path: the workdir.
      source: what to read; the task says which files it takes.
      out: where the predictions go; None = `path`/predict, of a point `path`/points/NUMBER/predict.
      point: as of `nasjax.load`.
      same_units: arrays are in the units of the training data, even if their range suggests otherwise.
      progress: say what is done to the inputs, on stderr.

    Returns:
      The files written. Raises ValueError where there is no trained network, or nothing that can be read.
    """
    from nasjax.model import load

    jax_settings.check()
    with watching(progress, None, "reading the network") as watch:
        model = load(path, point=point)._replace(told=watch.say)
        if same_units:
            model = model._replace(range=None)
        home = Path(path) if point is None else workdir.point(Path(path), point)
        out = home / "predict" if out is None else Path(out)
        out.mkdir(parents=True, exist_ok=True)
        return catalog.task(model.task).predict(model, Path(source), out)
