"""The Penn Treebank in Mikolov's form: ptb.train.txt, ptb.valid.txt and ptb.test.txt in --data_dir."""

from __future__ import annotations

from nasjax.data.sources import DataSource
from nasjax.data.text import task_of, text_source

SOURCE = DataSource(text_source, "language", shape=(35,), outputs=10_000, characters=50, folder=True, task_of=task_of)
