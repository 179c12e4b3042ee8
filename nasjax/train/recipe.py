"""How a child is trained, as one static record."""

from __future__ import annotations

from dataclasses import dataclass, field

from nasjax.train.augment import Augment

DTYPES = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, the settings of DenseNet (Zoph & Le 2017, section 4.1; spec section 6).

    Attributes:
      epochs: passes over the training part; an incomplete last batch of a pass is left out.
      batch_size: images per step; at most the training part's size is used.
      learning_rate: initial; an architecture with a learning-rate token brings its own.
      momentum, nesterov, weight_decay: of SGD; the decay acts on all parameters.
      drops: parts of the training (0..1) after which the rate is multiplied by drop_factor.
      bn_momentum, bn_eps: of batch norm; running = bn_momentum * running + (1 - bn_momentum) * batch.
      augment: crops and flips.
      dtype: of the large multiplications: "float32", "tf32" (NVIDIA), "bfloat16".

    Raises:
      ValueError: a value out of its range.
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    drops: tuple[float, ...] = (0.5, 0.75)
    drop_factor: float = 0.1
    bn_momentum: float = 0.9
    bn_eps: float = 1e-5
    augment: Augment = field(default_factory=Augment)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be at least 1, got {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0 or self.weight_decay < 0 or not self.bn_eps > 0:
            raise ValueError("learning_rate and bn_eps must be positive, weight_decay not negative")
        if not 0 <= self.momentum < 1 or not 0 <= self.bn_momentum < 1:
            raise ValueError(f"momentum and bn_momentum must be in [0, 1), got {self.momentum} and {self.bn_momentum}")
        if any(not 0 < drop < 1 for drop in self.drops):
            raise ValueError(f"drops are parts of the training such as (0.5, 0.75), got {self.drops}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose {', '.join(DTYPES)}")
