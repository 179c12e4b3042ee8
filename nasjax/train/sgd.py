"""SGD with momentum as settings: what the training of a network and the search of shared weights have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Sgd:
    """SGD with momentum. `Recipe` is one, with all else that a training of its own needs.

    Attributes:
      learning_rate, final_rate: initial, and the one that the epoch (or step) after the last would have.
      warmup_epochs: epoch e below it uses (e + 1) / warmup_epochs of the schedule's rate.
      momentum, weight_decay: the decay is added to the clipped gradient.
      clip: largest norm of the whole gradient; 0 = not clipped.

    Raises:
      ValueError: a value out of its range.
    """

    learning_rate: float = 0.025
    final_rate: float = 0.001
    warmup_epochs: int = 0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    rate_is_known: ClassVar[bool] = True  # learning_rate is what counts, and nothing else may bring one

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.rate_is_known and self.final_rate > self.learning_rate:
            raise ValueError(
                f"learning_rate must be at least final_rate, got {self.learning_rate} and {self.final_rate}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        if min(self.final_rate, self.weight_decay, self.warmup_epochs, self.clip) < 0:
            raise ValueError("final_rate, weight_decay, warmup_epochs and clip must not be negative")
