"""Task `language`: the next word of a text, or the next character. Loss: cross-entropy in nats; metric: perplexity.

Samples are windows of T tokens of one long text, the targets the same windows one token later. A recurrent network
carries its state from a window to the next (Mikolov et al. 2010; Zaremba et al. 2014, "Recurrent Neural Network
Regularization", section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.data.text import EOS as END
from nasjax.data.text import UNK as UNKNOWN
from nasjax.data.text import read_text, tokens_of
from nasjax.train import losses
from nasjax.train.augment import Augment
from nasjax.train.recipe import Recipe
from nasjax.types import Key, Metric, Signature, Task, carries_state

_TOKENS = 100  # that predict and sample add


def _signature(dataset: Any) -> Signature:
    return Signature(jax.ShapeDtypeStruct(dataset.train.x.shape[1:], jnp.int32), dataset.classes)


def _inputs(x: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    return x


def _augment(key: Key, x: jax.Array, y: jax.Array, cfg: Augment) -> tuple[jax.Array, jax.Array]:
    return x, y


def _nats(logits: jax.Array, y: jax.Array) -> jax.Array:
    """-log p of every target, f32[B, T]."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return optax.softmax_cross_entropy_with_integer_labels(logits, y)


@losses.measured_in("nats")
def loss(outputs: jax.Array, y: jax.Array, recipe: Recipe) -> jax.Array:
    """The mean cross-entropy in nats of logits [B, T, words] and the next tokens i32[B, T]."""
    if recipe.label_smoothing or recipe.auxiliary_weight:
        raise ValueError("label_smoothing and auxiliary_weight are for classification; set both to 0 for language")
    return _nats(outputs, y).mean()


def _score(outputs: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    nats = jnp.where(jnp.isfinite(outputs).all((1, 2)), _nats(outputs, y).sum(1), jnp.nan)
    return nats, jnp.full_like(nats, y.shape[1])


class Continuation(NamedTuple):
    """What a network adds to a text."""

    text: str
    tokens: int  # of the given text
    unknown: int  # of them, not in the vocabulary


def continuation(
    model: Any, text: str, *, tokens: int = _TOKENS, temperature: float = 1.0, seed: int = 0
) -> Continuation:
    """Continues a text by sampling one token after the other.

    Args:
      model: a `nasjax.model.Model`; a vocabulary without `<eos>`, of single characters and `<unk>`, is for characters.
      text: what to continue, cut into tokens as the texts of a training are (`data.text.tokens_of`), but the last
        line goes on unless it ends. What is not known is looked up in lower case, too.
      tokens: how many to add.
      temperature: of the distribution that is drawn from; 0 = always the most likely token.
      seed: of the draws.

    Raises:
      ValueError: the text is empty, or holds words that a vocabulary without `<unk>` does not know.
    """
    if tokens < 1 or temperature < 0:
        raise ValueError(f"tokens must be at least 1 and temperature not negative, got {tokens} and {temperature}")
    known, unknown = _numbers(_split(text, model.names), model.names)
    return Continuation(_added(model, known, tokens, temperature, seed), len(known), unknown)


def sample(model: Any) -> str:
    """100 tokens drawn from a trained network with seed 0, from the beginning of a line."""
    start = "\n" if _characters(model.names) else END
    return _added(model, _numbers([start], model.names)[0], _TOKENS, 1.0, 0)


def _added(model: Any, known: list[int], tokens: int, temperature: float, seed: int) -> str:
    """What follows the tokens `known`."""
    feed, key = _reader(model), jax.random.key(seed)
    logits, added = feed(known), []
    for t in range(tokens):
        if not np.isfinite(logits).all():
            raise ValueError("the network's logits are not finite; train it again with a smaller rate")
        if temperature:
            token = int(jax.random.categorical(jax.random.fold_in(key, t), jnp.asarray(logits) / temperature))
        else:
            token = int(logits.argmax())
        added.append(token)
        logits = feed([token])
    return _join([model.names[token] for token in added], model.names)


def predict(model: Any, source: Path, out: Path) -> list[Path]:
    """Writes out/continuation.txt: the text of the file `source`, and 100 tokens drawn with seed 0 that continue it.

    A line on top says how many words were taken for `<unk>`, where there are any.
    """
    if source.is_dir() or not source.is_file():
        raise ValueError(f"--input={source}: no such file; give a text file for the network to continue")
    try:
        text = read_text(source)
    except ValueError as error:
        raise ValueError(f"--input={error}") from error
    try:
        found = continuation(model, text)
    except ValueError as error:
        raise ValueError(f"--input={source}: {error}") from error
    file = out / "continuation.txt"
    note = f"[{found.unknown} of {found.tokens} tokens are not in the vocabulary: {UNKNOWN}]\n" if found.unknown else ""
    between = "" if _characters(model.names) or text[-1].isspace() else " "
    file.write_text(f"{note}{text}{between}{found.text}\n", encoding="utf-8", newline="")
    return [file]


def _reader(model: Any) -> Any:
    """feed(tokens) -> logits f32[words] after all tokens fed so far, of the whole text or of the last window."""
    if carries_state(model.carry):
        step = jax.jit(lambda variables, x, state: model.apply(variables, (x, state)))
        state = model.carry(1)

        def carried(tokens: Sequence[int]) -> np.ndarray:
            nonlocal state
            for token in tokens:
                outputs, state = step(model.variables, jnp.full((1, 1), token, jnp.int32), state)
            return np.asarray(outputs[0, -1])

        return carried

    width, seen = model.shape[0], list[int]()
    apply = jax.jit(model.apply)

    def windowed(tokens: Sequence[int]) -> np.ndarray:
        seen.extend(tokens)
        window = seen[-width:]
        x = np.zeros((1, width), np.int32)  # what follows the last token cannot change what is said at it
        x[0, : len(window)] = window
        return np.asarray(apply(model.variables, x)[0, len(window) - 1])

    return windowed


def _characters(names: Sequence[str]) -> bool:
    return END not in names and all(len(name) == 1 for name in names if name != UNKNOWN)


def _split(text: str, names: Sequence[str]) -> list[str]:
    """Tokens as of a training's text; the last line goes on unless it ends."""
    characters = _characters(names)
    tokens = tokens_of(text, "char" if characters else "word", whole=False)
    return tokens if characters or END in names else [token for token in tokens if token != END]


def _numbers(words: list[str], names: Sequence[str]) -> tuple[list[int], int]:
    """The words' numbers in the vocabulary, and how many of them are unknown."""
    if not words:
        raise ValueError("the text is empty; give at least one word to continue")
    number = {name: i for i, name in enumerate(names)}
    lower = [word if word in number else word.lower() for word in words]
    unknown = [word for word, small in zip(words, lower, strict=True) if small not in number]
    if unknown and UNKNOWN not in number:
        raise ValueError(
            f"{len(unknown)} of {len(words)} tokens are not in the vocabulary, which has no {UNKNOWN}: "
            f"{', '.join(map(repr, list(dict.fromkeys(unknown))[:3]))}"
        )
    return [number.get(word, number.get(UNKNOWN, -1)) for word in lower], len(unknown)


def _join(words: Sequence[str], names: Sequence[str]) -> str:
    return "".join(words) if _characters(names) else "".join(_spaced(words))


def _spaced(words: Sequence[str]) -> Iterator[str]:
    """Words with spaces between them, and line ends in place of `<eos>`."""
    start = True
    for word in words:
        if word == END:
            yield "\n"
        else:
            yield word if start else f" {word}"
        start = word == END


TASK = Task(
    name="language",
    metric=Metric("perplexity", "plain", sign=-1),
    signature=_signature,
    inputs=_inputs,
    augment=_augment,
    loss=loss,
    score=_score,
    finish=lambda total, weight: jnp.exp(total / weight),
    predict=predict,
    sample=sample,
    contiguous=True,
)
