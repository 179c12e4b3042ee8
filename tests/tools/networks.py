"""Networks of architectures as the library builds and trains them."""

import jax
import numpy as np

from nasjax import catalog
from nasjax.evaluators.child import child
from nasjax.problem.problem import builds
from nasjax.tasks.classification import TASK
from nasjax.types import Signature


def signature(image, classes):
    """Of whitened images [H, W, C] and so many classes."""
    return Signature(jax.ShapeDtypeStruct(image, np.float32), classes)


def built(space, tree, image, classes, form=None):
    """The `Built` of an architecture given as JSON; without `form` the network has the settings of its Builder."""
    builder = catalog.builder(space.name)
    return builder.build(space, builder.form if form is None else form, tree, signature(image, classes))


def children(space, dataset, strategy, **settings):
    """The evaluator `child` of a space's networks, by "exact" or "vmap"."""
    builder, form = catalog.builder(space.name), TASK.signature(dataset)
    masked = builder.masked(space, builder.form, form) if strategy == "vmap" else None
    return child(builds(builder, space, builder.form, form), dataset, TASK, masked=masked, **settings)
