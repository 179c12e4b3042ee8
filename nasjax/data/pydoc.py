"""The embedded text: the help pages that CPython brings (pydoc_data.topics), in words or in characters.

It differs between versions of Python, so no published number rests on it; config.json holds its sha256.
"""

from __future__ import annotations

from nasjax.data.sources import DataSource
from nasjax.data.text import task_of, text_source

SOURCE = DataSource(text_source, "language", shape=(35,), task_of=task_of)
