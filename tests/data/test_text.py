"""Texts: windows, vocabularies, the three sources, and one clear line for everything that is no text."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from nasjax import catalog
from nasjax.data.dataset import DataConfig, known_form
from nasjax.data.text import EOS, UNK, Vocabulary, load_test_text, load_text, tokens_of, windows
from nasjax.problem.data import load, load_test

PTB = Path(os.environ.get("NASJAX_DATA", Path(__file__).parents[3] / "shared" / "data")) / "ptb"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train.txt", "the cat sat\n\n  on the   mat \nthe end\n")
    write(tmp_path, "valid.txt", "the mat sat\n")
    write(tmp_path, "test.txt", "on the cat\n")
    return tmp_path


def write(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def config(folder, **fields):
    return DataConfig("text_folder", str(folder), **{"window": 3, **fields})


def test_windows_are_consecutive_and_targets_are_the_next_tokens():
    cut = windows(np.arange(12, dtype=np.int32), 4)
    assert cut.x.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and cut.y.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert windows(np.arange(13), 4).x.shape == (3, 4)
    with pytest.raises(ValueError, match="the text has 4 tokens; a window of 4 and its targets need 5"):
        windows(np.arange(4), 4)


def test_a_folder_of_three_texts(folder):
    text = load_text(config(folder))
    assert text.vocabulary.words == ("<eos>", "the", "cat", "end", "mat", "on", "sat")
    tokens = [text.vocabulary.words[n] for n in text.train.x.ravel()]
    assert tokens == ["the", "cat", "sat", EOS, EOS, "on", "the", "mat", EOS]  # 12 tokens: three windows of 3, 2 left
    assert text.left == {"train": 2, "valid": 0}
    assert text.train.x.dtype == text.train.y.dtype == np.int32
    assert text.vocabulary.decode(text.valid.x.ravel()) == "the mat sat"
    assert text.vocabulary.decode(load_test_text(config(folder), text.vocabulary)[0].y.ravel()) == "the cat\n"
    assert text.unknown == {"train": 0, "valid": 0}


def test_characters(folder):
    text = load_text(config(folder, level="char"))
    assert text.vocabulary.decode(text.train.x.ravel()) == "the cat sat\n\n  on the   mat \nthe end"[:36]
    assert tokens_of("\ta  b \r\n\n c", "char") == list("\ta  b \n\n c\n")
    assert all(len(word) == 1 for word in text.vocabulary.words)


@pytest.mark.parametrize("level", ["word", "char"])
def test_lines_end_where_a_text_editor_ends_them(level):
    """At \\n and \\r\\n; what str.splitlines takes for line ends besides are white space or characters."""
    text = "a\u2028b\x85c\vd\fe\x1cf\u2029g"
    words = ["a", "b", "c", "d", "e", "f", "g", EOS, EOS, EOS, "h", EOS]
    characters = [*text, *"\n\n \nh\n"]
    for end in ("\n", "\r\n"):
        found = tokens_of(end.join((text, "", " ", "h")) + end, level)
        assert found == (words if level == "word" else characters)
        assert tokens_of(end.join((text, "", " ", "h")), level) == found  # the last line ends with the text
        assert tokens_of(end.join((text, "", " ", "h")), level, whole=False) == found[:-1]
    assert tokens_of("", level) == [] == tokens_of("", level, whole=False)


def test_rare_words_become_unknown_and_are_counted(folder):
    write(folder, "valid.txt", "the dog sat on the log\n")
    with pytest.raises(ValueError, match="valid text: 2 tokens are not in the vocabulary of 7, the first is 'dog'"):
        load_text(config(folder))
    write(folder, "train.txt", "the cat sat\nthe cat lay\n")
    text = load_text(config(folder, min_count=2))
    assert text.vocabulary.words == (EOS, "cat", "the", UNK)
    assert text.unknown == {"train": 2, "valid": 4}
    data, notes = DataConfig("text_folder", str(folder), window=3, min_count=2), []
    loaded = load(data, notes.append)
    assert loaded.class_names == text.vocabulary.words and known_form(data, catalog.source(data.name)) is None
    assert load_test(data, notes.append).x.max() == 3  # "on the cat": the first is unknown
    unknown = "{} of its tokens are not in the vocabulary and count as <unk>"
    assert notes == [
        f"train text: {unknown.format(2)}",
        "train text: 1 of its tokens, at the end, fill no window and are left out",
        f"valid text: {unknown.format(4)}",
        f"test text: {unknown.format(1)}",
    ]
    write(folder, "train.txt", "a a a b b b c c d e f\n")
    text = load_text(config(folder, max_words=4))
    assert text.vocabulary.words == ("a", "b", EOS, UNK)


def test_a_vocabulary_is_plain_values_and_knows_what_it_does_not_know(folder):
    vocabulary = load_text(config(folder)).vocabulary
    again = Vocabulary(**json.loads(json.dumps(dataclasses.asdict(vocabulary))))
    assert again == vocabulary and hash(again) == hash(vocabulary) and len(again) == 7
    with pytest.raises(ValueError, match=f"the first is 'dog', and it has no {UNK}"):
        vocabulary.encode("the dog")
    numbers, unknown = Vocabulary(("a", UNK, EOS)).encode("a b\nc a")
    assert numbers.tolist() == [0, 1, 2, 1, 0, 2] and unknown == 2
    assert Vocabulary(("a", EOS)).decode([0, 0, 1, 0, 1, 1]) == "a a\na\n\n"


def test_the_embedded_text_is_large_enough_and_its_parts_share_no_paragraph():
    text = load_text(DataConfig("pydoc"))
    assert text.train.x.size > 40_000 and text.valid.x.size > 4_000
    assert UNK in text.vocabulary.words and 1000 < len(text.vocabulary) < 10_000
    assert text.sha256 == load_text(DataConfig("pydoc")).sha256
    held_out, *_ = load_test_text(DataConfig("pydoc"), text.vocabulary)
    parts = [set(text.vocabulary.decode(part.x.ravel()).split("\n")) for part in (text.train, text.valid, held_out)]
    shared = (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
    assert all(line.count(UNK) or len(line.split()) < 6 for line in shared)  # different words may be unknown in both
    letters = load(DataConfig("pydoc", level="char", train_limit=28))
    assert letters.train.x.shape == (28, 35) and letters.classes < 100


def test_a_byte_order_mark_is_no_part_of_the_text(folder):
    plain = load_text(config(folder))
    for part in ("train", "valid", "test"):
        write(folder, f"{part}.txt", b"\xef\xbb\xbf" + (folder / f"{part}.txt").read_bytes())
    assert load_text(config(folder)).sha256 == plain.sha256


def test_a_word_like_a_mark_is_that_mark_or_characters(folder):
    """A text may bring its own <unk>, as the Penn Treebank does; <eos> is only where a line ends."""
    write(folder, "valid.txt", "the <unk> sat\n")
    write(folder, "train.txt", "the cat <unk>\nthe mat sat\n")
    assert load_text(config(folder)).unknown == {"train": 0, "valid": 0}
    write(folder, "train.txt", "the <eos> cat\nmat <unk> sat\n")
    write(folder, "valid.txt", "<eos>\n<unk>\n")
    assert all(len(word) == 1 for word in load_text(config(folder, level="char")).vocabulary.words)


def test_limits_take_the_beginning(folder):
    short, whole = load(config(folder, train_limit=2)), load(config(folder))
    np.testing.assert_array_equal(short.train.x, whole.train.x[:2])
    assert short.class_names == whole.class_names


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.txt", b"", "is empty"),
        ("valid.txt", " \n\n", "is empty"),
        ("train.txt", b"caf\xe9 bar", r"is not UTF-8 \(byte 3\); save it as UTF-8"),
        ("train.txt", "a b".encode("utf-16"), "is not UTF-8"),
        ("train.txt", b"a\0b", "zero bytes"),
        ("train.txt", b"a b\na\rb\n", r"train text: line 2 has a carriage return \(\\r\) alone; end lines with \\n"),
        ("train.txt", b"a b\r\r\n", "train text: line 1 has a carriage return"),
        ("valid.txt", "a b\n\ufeffa\n".encode(), r"valid text: line 2 begins with a byte order mark \(U\+FEFF\)"),
        ("train.txt", b"a b\nb <eos> a\n", "train text: line 2 has the word <eos>, which stands for a line's end"),
        ("train.txt", "same same\nsame\n", "has 1 words to tell apart"),
        ("train.txt", "a b\n", "has 3 tokens; a window of 3"),
    ],
)
def test_what_is_no_text_says_so_in_one_line(folder, name, text, message):
    write(folder, name, text)
    if name == "train.txt":
        write(folder, "valid.txt", "a b a b\n")
    with pytest.raises(ValueError, match=message) as error:
        load_text(config(folder))
    assert "\n" not in str(error.value)


def test_missing_files_and_wrong_settings(folder, tmp_path_factory):
    write(folder, "wiki.train.tokens", "a")
    with pytest.raises(FileNotFoundError, match=r"must have one train text .* found train\.txt, wiki\.train\.tokens"):
        load_text(config(folder))
    with pytest.raises(FileNotFoundError, match="found none"):
        load_text(config(tmp_path_factory.mktemp("empty")))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load_text(config(folder / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"ptb needs ptb\.train\.txt"):
        load_text(DataConfig("ptb", str(folder)))
    with pytest.raises(ValueError, match="ptb needs data_dir"):
        load_text(DataConfig("ptb"))
    with pytest.raises(ValueError, match="level must be one of word, char; got 'byte'"):
        DataConfig(level="byte")
    with pytest.raises(ValueError, match="window must be at least 1"):
        DataConfig(window=0)
    with pytest.raises(ValueError, match="max_words must be at least 4"):
        DataConfig(max_words=3)
    for field, least in (("max_words", 4), ("min_count", 1)):
        with pytest.raises(ValueError, match=f"{field} must be at least {least}, got 0"):
            DataConfig("ptb", str(folder), **{field: 0})
    with pytest.raises(ValueError, match="at least 2 words"):
        Vocabulary(("a",))
    with pytest.raises(ValueError, match="twice"):
        Vocabulary(("a", "a"))


@pytest.mark.skipif(not PTB.is_dir(), reason="the Penn Treebank is not here")
def test_the_penn_treebank():
    """929,589 training tokens with one <eos> a line, 10,000 words with it; 73,760 to validate, 82,430 to test."""
    config = DataConfig("ptb", str(PTB), window=1)
    text = load_text(config)
    assert len(text.vocabulary) == 10_000 and text.vocabulary.words[:3] == ("the", UNK, EOS)
    assert (len(text.train.x), len(text.valid.x)) == (929_588, 73_759)
    assert len(load_test_text(config, text.vocabulary)[0].x) == 82_429
    assert text.unknown == {"train": 0, "valid": 0}
    letters = load_text(dataclasses.replace(config, level="char"))
    assert len(letters.vocabulary) == 50
    assert (len(letters.train.x), len(letters.valid.x)) == (5_017_481, 393_041)  # the corpus's 5,017k and 393k


def test_characters_of_the_penn_treebank_have_no_spaces_around_lines(tmp_path):
    for part in ("train", "valid"):
        write(tmp_path, f"ptb.{part}.txt", " no it \n was n't \n")
    text = load_text(DataConfig("ptb", str(tmp_path), window=1, level="char"))
    assert text.vocabulary.decode(text.train.x.ravel()) == "no it\nwas n't"
