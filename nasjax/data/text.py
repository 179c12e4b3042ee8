"""Texts as windows of token numbers, for language models: what to read, how it is split, and the vocabulary.

Three sources: `pydoc`, the English help texts that every CPython carries; the Penn Treebank files; any folder with a
training, a validation and a test text. `load_text` never opens the test part, `load_test_text` is for retraining.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from nasjax.data.dataset import DataConfig
from nasjax.data.sources import Source, Split

EOS, UNK = "<eos>", "<unk>"
_NEWLINE = "\n"  # ends a line where tokens are characters


class Windows(NamedTuple):
    """A text as consecutive windows: y[n, t] is the token after x[n, t], x[n + 1, 0] = y[n, T - 1]."""

    x: np.ndarray  # i32[N, T]
    y: np.ndarray  # i32[N, T]


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers. Plain values: `Vocabulary(**json)` of `dataclasses.asdict` is the same one.

    Attributes:
      words: word number n is words[n]; the most frequent first, equal ones in alphabetical order.
      level: "word" or "char".
    """

    words: tuple[str, ...]
    level: Literal["word", "char"] = "word"

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", tuple(self.words))
        if len(self.words) < 2:
            raise ValueError(f"a vocabulary needs at least 2 words, this one has {', '.join(self.words) or 'none'}")
        if len(set(self.words)) != len(self.words):
            raise ValueError("a word is in the vocabulary twice")

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> tuple[np.ndarray, int]:
        """The numbers of a text's tokens, i32[n], and how many of its tokens are not in the vocabulary, now <unk>.

        Raises:
          ValueError: a token is not in the vocabulary, and neither is <unk>.
        """
        return self.numbers(tokens_of(text, self.level))

    def numbers(self, tokens: Iterable[str]) -> tuple[np.ndarray, int]:
        """The same for a text that has been cut into tokens."""
        number = {word: n for n, word in enumerate(self.words)}
        unknown = number.get(UNK, -1)
        found, missing = [], []
        for token in tokens:
            found.append(number.get(token, unknown))
            if token not in number:
                missing.append(token)
        if missing and unknown < 0:
            raise ValueError(
                f"{len(missing)} tokens are not in the vocabulary of {len(self)}, the first is {missing[0]!r}, "
                f"and it has no {UNK}; write --set data.min_count=2, which makes one of the training text's rare words"
            )
        return np.array(found, np.int32), len(missing)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of token numbers; <eos> is a line's end."""
        words = [self.words[int(n)] for n in numbers]
        if self.level == "char":
            return "".join(words)
        return re.sub(f" ?{EOS} ?", _NEWLINE, " ".join(words))


class Text(NamedTuple):
    """What a search may see of a text."""

    name: str
    vocabulary: Vocabulary
    train: Windows
    valid: Windows
    unknown: dict[str, int]  # tokens that became <unk>, by part
    left: dict[str, int]  # tokens at the end that fill no window and are not used, by part
    sha256: str  # of both parts as token numbers, and of the vocabulary


def load_text(config: DataConfig) -> Text:
    """Reads the training and the validation part; the limits of `config`, in windows, are for `data.dataset.load`.

    Example:
      >>> text = load_text(DataConfig("pydoc"))
      >>> text.train.x.shape[1]
      35

    Raises:
      ValueError, FileNotFoundError: in one line, what is wrong and what to do.
    """
    read = _reader(config)
    tokens = _tokens(read, "train", config.level)
    vocabulary = _vocabulary(config, tokens)
    train, rare = vocabulary.numbers(tokens)
    valid, unknown = _numbers(vocabulary, read, "valid")
    digest = hashlib.sha256("\0".join(vocabulary.words).encode())
    for part in (train, valid):
        digest.update(np.ascontiguousarray(part, "<i4"))
    return Text(
        config.name,
        vocabulary,
        windows(train, config.window, "the training text"),
        windows(valid, config.window, "the validation text"),
        {"train": rare, "valid": unknown},
        {"train": _left(train, config.window), "valid": _left(valid, config.window)},
        digest.hexdigest(),
    )


def load_test_text(config: DataConfig, vocabulary: Vocabulary) -> tuple[Windows, int, int]:
    """Reads the test part in the words of `vocabulary`. For retraining, once.

    Beside it: how many of its tokens became <unk>, and how many at its end fill no window.
    """
    numbers, unknown = _numbers(vocabulary, _reader(config), "test")
    return windows(numbers, config.window, "the test text"), unknown, _left(numbers, config.window)


def windows(tokens: np.ndarray, window: int, what: str = "the text") -> Windows:
    """Cuts tokens i32[n] into (n - 1) // window consecutive windows; the rest at the end is not used."""
    count = (len(tokens) - 1) // window
    if count < 1:
        raise ValueError(f"{what} has {len(tokens)} tokens; a window of {window} and its targets need {window + 1}")
    used = count * window
    return Windows(tokens[:used].reshape(count, window), tokens[1 : used + 1].reshape(count, window))


def _left(tokens: np.ndarray, window: int) -> int:
    """Tokens that `windows` does not use, not even as a target."""
    return (len(tokens) - 1) % window


def tokens_of(text: str, level: str, *, whole: bool = True) -> list[str]:
    """A text as tokens: every line ends in <eos>, or in a newline where tokens are characters.

    Lines end at \\n and at \\r\\n and nowhere else. White space of any other kind separates words and is a character
    like others. `whole` ends the last line, too, where the text does not.

    Raises ValueError for a lone carriage return, which may or may not end a line, for a byte order mark
    at a line's beginning, and for a word <eos>.
    """
    lines = text.replace("\r\n", _NEWLINE).split(_NEWLINE)
    for number, line in enumerate(lines, 1):
        if "\r" in line:
            raise ValueError(f"line {number} has a carriage return (\\r) alone; end lines with \\n or \\r\\n")
        if line.startswith("\ufeff"):
            raise ValueError(f"line {number} begins with a byte order mark (U+FEFF); remove it")
        if level == "word" and EOS in line.split():
            raise ValueError(f"line {number} has the word {EOS}, which stands for a line's end; end the line there")
    *ended, last = lines
    if whole and last:
        ended, last = lines, ""
    if level == "char":
        return [*"".join(line + _NEWLINE for line in ended), *last]
    return [*(token for line in ended for token in (*line.split(), EOS)), *last.split()]


def _vocabulary(config: DataConfig, tokens: list[str]) -> Vocabulary:
    """The words of the training text by their number of occurrences."""
    counts = Counter(tokens)
    least = config.min_count or (2 if config.name == "pydoc" else 1)
    always = {EOS, UNK, _NEWLINE} & set(counts)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in ranked if word not in always and counts[word] >= least]
    if len(words) < 2:
        raise ValueError(f"the training text has {len(words)} words to tell apart; a language model needs at least 2")
    if config.max_words is not None:
        words = words[: config.max_words - len(always | {UNK})]
    kept = always.union(words)
    words = [word for word in ranked if word in kept]
    if len(words) < len(counts) and UNK not in kept:
        words.append(UNK)
    return Vocabulary(tuple(words), config.level)


def _numbers(vocabulary: Vocabulary, read: Callable[[str], str], part: str) -> tuple[np.ndarray, int]:
    tokens = _tokens(read, part, vocabulary.level)
    try:
        return vocabulary.numbers(tokens)
    except ValueError as error:
        raise ValueError(f"{part} text: {error}") from None


def _tokens(read: Callable[[str], str], part: str, level: str) -> list[str]:
    text = read(part)
    try:
        return tokens_of(text, level)
    except ValueError as error:
        raise ValueError(f"{part} text: {error}") from None


def _reader(config: DataConfig) -> Callable[[str], str]:
    """part ("train", "valid", "test") -> its text, read when asked."""
    if config.name == "pydoc":
        return lambda part: _pydoc(config.level)[part]
    if not config.data_dir:
        raise ValueError(f"{config.name} needs data_dir, the folder with the training, validation and test text")
    folder = Path(config.data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"data_dir {folder} is no folder")

    def read(part: str) -> str:
        if config.name == "ptb":
            files = [folder / f"ptb.{part}.txt"]
            if not files[0].is_file():
                raise FileNotFoundError(f"{files[0]} is missing; ptb needs ptb.train.txt, ptb.valid.txt, ptb.test.txt")
        else:
            files = sorted(file for file in folder.iterdir() if file.is_file() and part in file.name.split("."))
            if len(files) != 1:
                found = ", ".join(file.name for file in files) or "none"
                raise FileNotFoundError(f"{folder} must have one {part} text such as {part}.txt; found {found}")
        text = read_text(files[0])
        return _trimmed(text) if (config.name, config.level) == ("ptb", "char") else text

    return read


def _trimmed(text: str) -> str:
    """Without the spaces around every line, which separate words and are none of the corpus's 5,017,482 characters."""
    return _NEWLINE.join(line.strip(" ") for line in text.split(_NEWLINE))


def read_text(file: Path) -> str:
    """A text file in UTF-8, without a byte order mark; line ends as they are. Raises ValueError where it is no text."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{file} is not a text: it contains zero bytes")
    if not text.split():
        raise ValueError(f"{file} is empty")
    return text


def _pydoc(level: str) -> dict[str, str]:
    """CPython's help topics, a paragraph a line, in lower case; punctuation marks are words of their own.

    Of every twenty paragraphs sixteen are for training, two for validation, two for the test. Many topics share
    paragraphs; each counts once, where it first occurs. Lines under headings are left out. The text differs between
    versions of Python.
    """
    from pydoc_data.topics import topics

    tokens = re.compile(r"\w+|[^\w\s]" if level == "word" else r"\S+")
    paragraphs: dict[str, None] = {}
    for _, topic in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", re.sub(r"(?m)^([*=~^-])\1+$", "", topic.lower())):
            paragraphs[" ".join(tokens.findall(paragraph))] = None
    lines = [line for line in paragraphs if line]
    share = {"train": range(16), "valid": range(16, 18), "test": range(18, 20)}
    return {part: "\n".join(line for n, line in enumerate(lines) if n % 20 in own) for part, own in share.items()}


def task_of(config: DataConfig) -> str:
    """The task of a text: its metric is the perplexity of words, or bits per character."""
    return "characters" if config.level == "char" else "language"


def text_source(config: DataConfig) -> Source:
    """A text as a data set: its samples are windows, its outputs words. The name tells where it lies, see the top."""
    text = load_text(config)
    notes = [note for part in text.unknown for note in _notes(part, text.unknown[part], text.left[part])]

    def test() -> Split:
        part, unknown, left = load_test_text(config, text.vocabulary)
        notes.extend(_notes("test", unknown, left))
        return Split(*part)

    return Source(
        class_names=text.vocabulary.words,
        pool=lambda: Split(*text.train),
        test=test,
        test_size=0,
        valid_size=0,
        valid=lambda: Split(*text.valid),
        notes=notes,
    )


def _notes(part: str, unknown: int, left: int) -> Iterator[str]:
    if unknown:
        yield f"{part} text: {unknown:,} of its tokens are not in the vocabulary and count as {UNK}"
    if left:
        yield f"{part} text: {left:,} of its tokens, at the end, fill no window and are left out"
