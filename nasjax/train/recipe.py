"""How a child is trained, as one static record."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from nasjax.train.augment import Augment
from nasjax.train.schedules import TAIL
from nasjax.train.sgd import Sgd

DTYPES = ("float32", "tf32", "bfloat16")
Schedule = Literal["drops", "cosine", "exponential", "linear", "linear_tail"]
DecayOn = Literal["all", "kernels", "kernels_and_biases", "convolutions"]
Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]


@dataclass(frozen=True)
class Recipe(Sgd):
    """How a network is trained. The defaults are DenseNet's (Zoph & Le 2017, section 4.1): SGD with momentum.

    Liu et al. 2019 (DARTS), appendix A.2, train with `Recipe(epochs=600, batch_size=96, learning_rate=0.025,
    nesterov=False, weight_decay=3e-4, schedule="cosine", clip=5.0, drop_path=0.2, auxiliary_weight=0.4,
    augment=Augment("pad", cutout=16))`.

    Attributes:
      epochs: passes over the training part; an incomplete last batch of a pass is left out.
      batch_size: samples per step. A command refuses more than there are (`require_batch`); `train.step` takes all.
      learning_rate: initial; an architecture with a learning-rate token brings its own.
      optimizer: "sgd", "adam", "adamw" (decay beside the gradient, not in it) or "rmsprop".
      momentum, nesterov: of SGD; RMSprop has the momentum too.
      betas: decays of Adam's two averages; the second is RMSprop's.
      weight_decay: times the weights, added to the gradient (AdamW: to the direction).
      decay_on: the parameters that decay: "all", "kernels", which leaves out scales, shifts and biases,
        "kernels_and_biases", which leaves out the scales and shifts of batch norms only, or "convolutions", the kernels
        of four dimensions.
      schedule: of the learning rate: "drops" (see the next line), or once an epoch "cosine" or "linear" towards
        final_rate, or "exponential", times rate_decay each epoch, or "linear_tail", see `schedules.linear_tail`.
      drops, drop_factor: parts of the training (0..1) after which the rate is multiplied by the factor.
      final_rate: the rate that the epoch after the last would have.
      rate_decay: of "exponential": the factor per epoch.
      rate_per_step: "cosine", "linear" and "exponential" change with every step instead of once an epoch.
      warmup_epochs: epoch e below it uses (e + 1) / warmup_epochs of the schedule's rate ("linear_tail": of
        learning_rate).
      clip: largest norm of the whole gradient, before weight decay; 0 = not clipped.
      drop_path: the network's drop_rate, times epoch / epochs (epochs from 0).
      auxiliary_weight: of the loss of an auxiliary head, for networks that have one.
      label_smoothing: part of the target's weight that is spread over all classes, in training only.
      bn_momentum, bn_eps: of batch norm; running = bn_momentum * running + (1 - bn_momentum) * batch.
      eval_streams: of texts: equal parts that a validation or test text is cut into. A network that carries state reads
        them side by side, each from its initial state. 1 = the text as it is; more are faster, and a perplexity is
        then that of this many shorter texts.
      refresh_epochs: further passes that change no weights and set the running statistics to the plain mean over their
        batches; the last validation accuracy is then that of the refreshed network.
      accumulate: a batch goes through the network in this many parts, one after the other, and their gradients are
        averaged into one step: a published batch on a device that holds a part of it. Batch norm sees a part at a time.
      ema: decay of an exponential moving average of the weights, which is then what is validated, tested and kept
        (0.9999, say); running statistics are not averaged. 0 = the weights themselves.
      augment: random changes of training images.
      dtype: of the large multiplications: "float32", "tf32" (NVIDIA), "bfloat16".

    Raises:
      ValueError: a value out of its range.
    """

    rate_is_known: ClassVar[bool] = False  # an architecture may bring its own
    learning_rate: float = 0.1
    final_rate: float = 0.0
    weight_decay: float = 1e-4
    clip: float = 0.0
    epochs: int = 50
    batch_size: int = 64
    optimizer: Optimizer = "sgd"
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    decay_on: DecayOn = "all"
    drops: tuple[float, ...] = (0.5, 0.75)
    drop_factor: float = 0.1
    schedule: Schedule = "drops"
    rate_per_step: bool = False
    rate_decay: float = 0.97
    drop_path: float = 0.0
    auxiliary_weight: float = 0.0
    label_smoothing: float = 0.0
    bn_momentum: float = 0.9
    bn_eps: float = 1e-5
    eval_streams: int = 1
    refresh_epochs: int = 0
    accumulate: int = 1
    ema: float = 0.0
    augment: Augment = field(default_factory=Augment)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.epochs, self.batch_size, self.eval_streams) < 1:
            raise ValueError(
                "epochs, batch_size and eval_streams must be at least 1, got "
                f"{self.epochs}, {self.batch_size} and {self.eval_streams}"
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate is a number of equal parts of batch_size={self.batch_size}, got {self.accumulate}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is a decay in [0, 1), got {self.ema}")
        if not self.bn_eps > 0 or not 0 <= self.bn_momentum < 1:
            raise ValueError(
                f"bn_eps must be positive, bn_momentum in [0, 1); got {self.bn_eps} and {self.bn_momentum}"
            )
        if self.optimizer not in get_args(Optimizer):
            raise ValueError(f"unknown optimizer {self.optimizer!r}; choose {', '.join(get_args(Optimizer))}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are two numbers in [0, 1), got {self.betas}")
        if any(not 0 < drop < 1 for drop in self.drops):
            raise ValueError(f"drops are parts of the training such as (0.5, 0.75), got {self.drops}")
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"unknown schedule {self.schedule!r}; choose {', '.join(get_args(Schedule))}")
        if self.schedule == "linear_tail" and self.epochs <= TAIL:
            raise ValueError(f"linear_tail needs more than {TAIL} epochs, got {self.epochs}; write schedule=linear")
        if self.decay_on not in get_args(DecayOn):
            raise ValueError(f"unknown decay_on {self.decay_on!r}; choose {', '.join(get_args(DecayOn))}")
        if not 0 < self.rate_decay <= 1 or not 0 <= self.drop_path < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError("rate_decay must be in (0, 1], drop_path and label_smoothing in [0, 1)")
        if min(self.auxiliary_weight, self.refresh_epochs) < 0:
            raise ValueError("auxiliary_weight and refresh_epochs must not be negative")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown dtype {self.dtype!r}; choose {', '.join(DTYPES)}")


def identity(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe's JSON by which a training is known: without what older versions lacked, where it changes nothing."""
    plain = Recipe()
    inner = {
        name: value
        for name, value in tree["augment"].items()
        if name not in ("crop_scale", "crop_ratio", "jitter", "lighting")
        or value != _listed(getattr(plain.augment, name))
    }
    own = {
        name: value
        for name, value in tree.items()
        if name not in ("accumulate", "ema") or value != getattr(plain, name)
    }
    return {**own, "augment": inner}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class Recipes(NamedTuple):
    """How the networks of a space are trained.

    Attributes:
      search: as candidates of a published search.
      last: alone, when a published search has found them.
      demo: in a demo, whose epochs are fewer.
      part: the samples of the last training in the published setting, "train" or "all".
    """

    search: Recipe
    last: Recipe
    demo: Recipe
    part: Literal["train", "all"] = "train"


def image_recipes(augment: Augment) -> Recipes:
    """Those of plain image classifiers: DenseNet's, 50 epochs and then 300 (Zoph & Le 2017, section 4.1)."""
    recipe = Recipe(augment=augment)
    return Recipes(search=recipe, last=replace(recipe, epochs=300), demo=recipe)


def require_batch(batch_size: int, samples: int, where: str) -> None:
    """Raises ValueError for a batch, the setting `where`, of more than all samples that it is drawn from."""
    if batch_size > samples:
        raise ValueError(
            f"{where}={batch_size} is more than the {samples} samples it is drawn from; write --set {where}={samples} "
            "or less"
        )
