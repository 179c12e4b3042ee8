"""`--external`: a person's or a program's own proposals, by ask and tell, a line of JSON in and a line out.

The referee starts the program once for every seed and writes to its standard input:

    {"start": {"space": NAME, "sites": [{"name": NAME, "choices": [..]}, ..], "seed": N, "trials": N}}
    {"ask": 2}
    {"tell": [{"arch": [..], "reward": 0.91, "cost": 31.5}, ..]}
    {"end": true}

To "ask" the program answers with one line on its standard output, as many architectures as asked, or none where it has
no more to propose; each is a list of numbers of choices, a number per site, -1 where a site does not count:

    {"archs": [[0, 3, 1], [2, 2, 0]]}

The reward of what failed is null. On a table the choices are numbers in an order that the referee draws for every seed
anew: what a program holds of the table beforehand, a lucky sequence or the noise of its rewards, then names other
architectures. `named` shows the names.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nasjax.types import Space

ANSWER_S = 60.0  # seconds that a program may take for an answer
_POLL_S = 0.05

Message = dict[str, Any]


class Line(Protocol):
    """What proposes: a message to it, and its answer to "ask", None to all others. `close` ends it."""

    def __call__(self, message: Message) -> Any: ...
    def close(self) -> None: ...


class Proposer:
    """Asks and tells by messages, checks every answer, and hides the names of choices where they are relabelled.

    Args:
      line: what the messages go to.
      space: of the architectures.
      seed: that the proposer is told to draw by.
      trials: that it will be asked for at most.
      orders: per site, the choice that it knows as number k; None = it sees the names.
      name: of the proposer, for errors.
      table: of the space's combinations a table may lack some, which are told as failed, and every site counts.
    """

    def __init__(
        self,
        line: Line,
        space: Space,
        seed: int,
        trials: int,
        orders: Sequence[np.ndarray] | None = None,
        name: str = "external",
        table: bool = False,
    ) -> None:
        self._line, self._space, self._name, self._table = line, space, name, table
        sizes = [len(site.choices) for site in space.sites]
        self._orders = [np.arange(size) for size in sizes] if orders is None else list(orders)
        self._numbers = [np.argsort(order) for order in self._orders]
        shown = [
            {"name": site.name if orders is None else f"site{n}", "choices": _shown(site.choices, orders is not None)}
            for n, site in enumerate(space.sites)
        ]
        self._send({"start": {"space": space.name, "sites": shown, "seed": seed, "trials": trials}})

    def __enter__(self) -> Proposer:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._send({"end": True})
        finally:
            self._line.close()

    def _send(self, message: Message) -> Any:
        try:
            return self._line(message)
        except (OSError, ValueError) as error:
            raise ValueError(f"--external {self._name}: {error}") from error

    def ask(self, n: int) -> np.ndarray:
        """n architectures i32[n, S], or none. Raises ValueError for an answer that is none."""
        answer = self._send({"ask": n})
        archs = answer.get("archs") if isinstance(answer, dict) else None
        form = f'{{"archs": [..]}} with {n} lists of {len(self._orders)} whole numbers, or with none'
        if not isinstance(archs, list) or len(archs) not in (0, n):
            raise ValueError(f"--external {self._name}: the answer to an ask must be {form}; got {_short(answer)}")
        return np.array([self._read(arch, form) for arch in archs], np.int32).reshape(-1, len(self._orders))

    def _read(self, arch: Any, form: str) -> np.ndarray:
        whole = isinstance(arch, list) and all(isinstance(x, int) and not isinstance(x, bool) for x in arch)
        if not whole or len(arch) != len(self._orders):
            raise ValueError(f"--external {self._name}: the answer to an ask must be {form}; got {_short(arch)}")
        for n, (number, order) in enumerate(zip(arch, self._orders, strict=True)):
            if not (0 if self._table else -1) <= number < len(order):
                raise ValueError(f"--external {self._name}: site {n} has choices 0..{len(order) - 1}, not {number}")
        found = [-1 if k < 0 else int(order[k]) for k, order in zip(arch, self._orders, strict=True)]
        try:
            if not self._table:
                self._space.validate(np.array(found, np.int32))
        except ValueError as error:
            raise ValueError(f"--external {self._name}: {_short(arch)} is no architecture: {error}") from error
        return np.array(found, np.int32)

    def tell(self, archs: np.ndarray, rewards: np.ndarray, costs: np.ndarray) -> None:
        """What was found, in the order of the architectures i32[n, S]: rewards f64[n], NaN = failed; costs f64[n]."""
        rows = []
        for arch, reward, cost in zip(archs, rewards, costs, strict=True):
            shown = [-1 if k < 0 else int(numbers[k]) for k, numbers in zip(arch, self._numbers, strict=True)]
            told = float(reward) if np.isfinite(reward) else None
            rows.append({"arch": shown, "reward": told, "cost": float(cost)})
        self._send({"tell": rows})


class Program:
    """A program as a Line: it is started with the standard input and output as pipes, and ended by `close`.

    Args:
      command: as in a shell, without its operators.
      answer_s: seconds that it may take for an answer, or for reading what it is told.
    """

    def __init__(self, command: str, answer_s: float = ANSWER_S) -> None:
        self._command, self._seconds = command, answer_s
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the program
        try:
            self._process = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,  # what it starts ends with it
            )
        except OSError as error:
            self._errors.close()
            raise ValueError(f"{command!r} does not start: {error.strerror or error}") from error
        self._lines: queue.Queue[str] = queue.Queue()
        self._to_write: queue.Queue[str | None] = queue.Queue()
        self._failed: list[OSError] = []
        for copy in (self._read, self._write):
            threading.Thread(target=copy, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # its end

    def _write(self) -> None:
        assert self._process.stdin is not None
        while (line := self._to_write.get()) is not None:
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except (OSError, ValueError):
                return  # it reads no more; what it fails to answer is told by `__call__`

    def __call__(self, message: Message) -> Any:
        """Raises ValueError where it has ended, answers too late, or with no JSON."""
        self._to_write.put(json.dumps(message) + "\n")
        if "ask" not in message:
            return None
        try:
            line = self._lines.get(timeout=self._seconds)
        except queue.Empty:
            raise ValueError(
                f"{self._command!r} gave no answer within {self._seconds:g} s; it must print a line for every ask, and "
                "flush it"
            ) from None
        if not line:
            raise ValueError(f"{self._command!r} ended (exit code {self._process.wait()}){self._last_words()}")
        try:
            return json.loads(line)
        except ValueError:
            raise ValueError(f"{self._command!r} answered with no JSON: {_short(line.strip())}") from None

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""

    def close(self) -> None:
        """Gives it a second to end by itself, then ends it and what it has started."""
        self._to_write.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # a pipe whose reader is gone
                stream.close()  # type: ignore[union-attr]


class Files:
    """Two files of a folder as a Line: the messages are added to told.jsonl, answers are read from answers.jsonl.

    Answers that are there already when a search begins belong to another one.

    Args:
      folder: that exists.
      answer_s: seconds to wait for an answer.
    """

    def __init__(self, folder: Path, answer_s: float = ANSWER_S) -> None:
        self._told, self._answers, self._seconds = folder / "told.jsonl", folder / "answers.jsonl", answer_s
        self._read = len(self._lines())

    def _lines(self) -> list[str]:
        """The whole lines so far; one that has no end yet is still being written."""
        try:
            return [line for line in self._answers.read_text().split("\n")[:-1] if line.strip()]
        except FileNotFoundError:
            return []

    def __call__(self, message: Message) -> Any:
        """Raises ValueError where no answer comes in time, or it is no JSON."""
        with self._told.open("a") as file:
            file.write(json.dumps(message) + "\n")
        if "ask" not in message:
            return None
        end = time.monotonic() + self._seconds
        while len(lines := self._lines()) <= self._read:
            if time.monotonic() > end:
                raise ValueError(f"{self._answers} has no further line after {self._seconds:g} s")
            time.sleep(_POLL_S)
        self._read += 1
        try:
            return json.loads(lines[self._read - 1])
        except ValueError:
            raise ValueError(f"{self._answers}: a line is no JSON: {_short(lines[self._read - 1])}") from None

    def close(self) -> None:
        """Nothing to end."""


class InProcess:
    """A function of a message as a Line, for programs that are in this process."""

    def __init__(self, answer: Callable[[Message], Any]) -> None:
        self._answer = answer

    def __call__(self, message: Message) -> Any:
        return self._answer(message)

    def close(self) -> None:
        """Nothing to end."""


def _shown(choices: Sequence[Any], hidden: bool) -> list[Any]:
    return list(range(len(choices))) if hidden else list(choices)


def _short(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= 120 else f"{text[:117]}..."
