"""A user's text: a folder with train, valid and test text, for example a.train.txt, a.valid.txt, a.test.txt."""

from __future__ import annotations

from nasjax.data.sources import DataSource
from nasjax.data.text import task_of, text_source

SOURCE = DataSource(text_source, "language", shape=(35,), folder=True, task_of=task_of)
