"""From arrays to a trained network in one call: searched, retrained, tested once, loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nasjax import catalog
from nasjax.commands.arrays import name_of, plain, with_arrays
from nasjax.commands.configuration import configure, default_workdir, resize_of
from nasjax.commands.retraining import Retrained, retrain
from nasjax.commands.searching import search
from nasjax.settings import override
from nasjax.types import Outcome

if TYPE_CHECKING:
    from nasjax.model import Model


class Fitted(NamedTuple):
    """What `fit` found."""

    model: Model
    workdir: Path  # with everything that a search and its retraining leave
    search: Outcome
    retrained: Retrained

    def __repr__(self) -> str:
        return f"{self.model!r}\nfitted.predict(x); what the search and the training left is in {self.workdir}"

    def predict(self, x: Any) -> np.ndarray:
        """The class names or values of images in the form and units of the training data; errors as `Model.predict`."""
        return self.model.predict(x)


def fit(
    x: Any,
    y: Any,
    *,
    x_valid: Any = None,
    y_valid: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    class_names: Any = None,
    method: str | None = None,
    preset: str | None = None,
    space: str | None = None,
    workdir: str | Path | None = None,
    settings: Sequence[str] = (),
    progress: bool = True,
) -> Fitted:
    """Searches an architecture for these data, trains the best from scratch, and tests it once.

    The same call resumes what was interrupted, and repeats nothing that was done.

    Args:
      x: images [N, H, W] or [N, H, W, C], uint8, uint16 or float.
      y: [N]: integers or text, the classes; or floats, values to predict.
      x_valid, y_valid, x_test, y_test: further parts; without them a sixth of x each.
      class_names: names of numbered classes, by number; or the name of the value.
      method: of the catalog; None = the first there, the baseline.
      preset: None = demo.
      space: None = the method's own.
      workdir: where the run lives; None = runs/METHOD-SPACE-arrays-HASH-sSEED, which differs for other data.
      settings: as `--set` takes them, "trials=20" or "recipe.epochs=10".
      progress: show it, on stderr.

    Raises:
      ValueError: wrong data or settings, in a line that says what to write.
      RunError: every candidate failed, or the disk is full.

    Example:
      >>> fitted = nasjax.fit(images, labels, settings=["trials=20"])
      >>> fitted.predict(images[:3])
    """
    from nasjax.model import load

    parts = {"x_valid": x_valid, "y_valid": y_valid, "x_test": x_test, "y_test": y_test}
    given = plain({"x": x, "y": y, **parts, "class_names": class_names})
    method = method or next(iter(catalog.METHODS))
    side = min(np.shape(given["x"])[1:3], default=None) if np.ndim(given["x"]) in (3, 4) else None
    begun = configure(method, preset, name_of(given), space, resize=resize_of(settings), side=side)
    config = override(begun, *settings)
    path = default_workdir(config) if workdir is None else Path(workdir)
    config = with_arrays(config, path, given)
    found = search(config, path, progress=progress)
    trained = retrain(config, path, progress=progress)
    return Fitted(load(path), path, found, trained)
