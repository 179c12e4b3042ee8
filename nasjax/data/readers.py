"""Processes that read image files ahead of the training that needs them.

A request is what one step needs: numbers of files, and the seeds of their cuts. Each process reads whole requests, the
n-th process every n-th of them, into memory that it shares with this one; results come in the order of the requests, so
that nothing depends on which process was faster. The list of files is shared as well, so that memory does not grow with
processes or files. (Own processes, and not `multiprocessing`'s, which run the user's script again in each of them.)
"""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax.data.records import Record
from nasjax.data.view import Cut, View, form_of_view, read_view

AHEAD = 2  # requests that each process works on or has finished beforehand


class Request(NamedTuple):
    """Images to read, as one array."""

    numbers: np.ndarray  # i64[B], of files
    cut: Cut | None = None  # of every image; None = its view
    seeds: tuple[int, int] = (0, 0)  # of image i: (seeds[0], seeds[1] + i)


class Names(NamedTuple):
    """A list of files as two arrays, so that a million of them are a hundred megabytes and no objects."""

    text: np.ndarray  # u8[...], their paths, one after the other
    ends: np.ndarray  # i64[N]
    store: str = ""  # the folder of a prepared set, where they are places of its records and no paths

    def file(self, number: int) -> Path | Record:
        begin = int(self.ends[number - 1]) if number else 0
        name = os.fsdecode(self.text[begin : int(self.ends[number])].tobytes())
        return Record(self.store, name) if self.store else Path(name)

    def __len__(self) -> int:
        return len(self.ends)


def names(paths: Iterable[Path | str], store: str = "") -> Names:
    """The list of these files, or of these records of a store."""
    text, ends = bytearray(), []
    for path in paths:
        text += os.fsencode(path)
        ends.append(len(text))
    return Names(np.frombuffer(bytes(text), np.uint8), np.array(ends, np.int64), store)


def read(files: Names, view: View, request: Request, out: np.ndarray, skip: bool) -> list[tuple[int, str]]:
    """Reads a request's images into `out` u8[B, ...]; returns (position, why) of those that could not be read.

    Without `skip` the first of them ends it. With it another file takes its place, the next one in the list that can
    be read, with the same cut.
    """
    problems = []
    for position, number in enumerate(request.numbers.tolist()):
        seed = (request.seeds[0], request.seeds[1] + position)
        for other in range(len(files) if skip else 1):
            try:
                out[position] = read_view(files.file((number + other) % len(files)), view, request.cut, seed)
                break
            except (ValueError, OSError) as error:
                if not other:
                    problems.append((position, str(error)))
        if problems and not skip:
            break
    return problems


class _Process(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: Connection
    memory: mmap.mmap


class Readers:
    """The processes of a list of files.

    Args:
      files: the list.
      view: the samples' form.
      count: processes; 0 = files are read here, when they are needed.
      skip: as of `read`.
    """

    def __init__(self, files: Names, view: View, count: int, skip: bool = False) -> None:
        self.files, self.view, self.count, self.skip = files, view, count, skip
        self.unreadable: dict[str, None] = {}  # why, of each file that was skipped
        self.left_out: list[int] = []  # positions of such in the array that came last
        self.told: Callable[[str], None] = lambda line: None  # hears of each
        self._shape = form_of_view(view)
        self._processes: list[_Process] = []
        self._room = 0  # images that a request may have
        self._turn = 0  # a sequence that is not of this turn is over
        self._waiting: deque[int] = deque()  # processes that owe an answer, in order

    def sequence(self, requests: Iterable[Request], most: int) -> Iterator[np.ndarray]:
        """The images u8[B, ...] of requests of at most `most` images, in order, read ahead.

        An array is valid until the next one is asked for. A sequence ends when another one begins.

        Raises:
          ValueError: a file cannot be read, or a process died.
        """
        self._turn += 1
        turn = self._turn
        if not self.count:
            for request in requests:
                out = np.empty((len(request.numbers), *self._shape), np.uint8)
                self._told(request, read(self.files, self.view, request, out, self.skip))
                yield out
            return
        self._start(most)
        coming, sent = iter(requests), 0
        own: deque[tuple[int, int, Request]] = deque()  # process, slot, request
        while True:
            while len(own) < AHEAD * self.count and (following := next(coming, None)) is not None:
                process, slot = sent % self.count, sent // self.count % AHEAD
                self._send(process, (slot, following))
                own.append((process, slot, following))
                sent += 1
            if not own:
                return
            process, slot, request = own.popleft()
            self._told(request, self._answer(process))
            memory = np.frombuffer(self._processes[process].memory, np.uint8)
            size = int(np.prod(self._shape))
            begin = slot * self._room * size
            yield memory[begin : begin + len(request.numbers) * size].reshape(-1, *self._shape)
            if turn != self._turn:
                return

    @property
    def turn(self) -> int:
        """How many sequences have begun: the last one is the one that goes on."""
        return self._turn

    def close(self) -> None:
        """Ends the processes."""
        _stop(self._processes)
        self._processes, self._room = [], 0
        self._waiting.clear()

    def _start(self, most: int) -> None:
        """Processes with memory for requests of `most` images, which owe no answer."""
        while self._waiting:  # of a sequence that was given up
            self._answer(self._waiting[0])
        if self._room >= most:
            return
        self.close()
        shared = _memory(len(self.files.text) + 1)
        os.pwrite(shared, self.files.text.tobytes(), 0)
        ends = _memory(self.files.ends.nbytes + 1)
        os.pwrite(ends, self.files.ends.tobytes(), 0)
        size = AHEAD * most * int(np.prod(self._shape))
        try:
            for _ in range(self.count):
                memory = _memory(size)
                here, there = Pipe()
                passed = (there.fileno(), memory, shared, ends)
                command = [sys.executable, "-c", "from nasjax.data.readers import work; work()", *map(str, passed)]
                paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
                process = subprocess.Popen(
                    command, pass_fds=passed, env={**os.environ, "PYTHONPATH": paths}, stdin=subprocess.DEVNULL
                )
                there.close()
                self._processes.append(_Process(process, here, mmap.mmap(memory, size)))
                os.close(memory)
                listed = (len(self.files.text), len(self.files), self.files.store)
                here.send((*listed, tuple(self.view), most, size, self.skip))
        finally:
            os.close(shared)
            os.close(ends)
        self._room = most
        weakref.finalize(self, _stop, self._processes)

    def _send(self, process: int, message: Any) -> None:
        try:
            self._processes[process].connection.send(message)
        except OSError:
            self._died()
        self._waiting.append(process)

    def _answer(self, process: int) -> list[tuple[int, str]]:
        try:
            found: list[tuple[int, str]] = self._processes[process].connection.recv()
        except (EOFError, OSError):
            self._died()
        self._waiting.remove(process)
        return found

    def _died(self) -> None:
        self.close()
        raise ValueError(
            "a process that reads images died (out of memory?); the same command goes on from the last checkpoint, "
            "with fewer of them by --set data.readers=N"
        )

    def _told(self, request: Request, problems: list[tuple[int, str]]) -> None:
        self.left_out = [position for position, _ in problems]
        for _, why in problems:
            if not self.skip:
                raise ValueError(f"{why}; repair or delete it, or leave out such files by --set data.skip_corrupt=true")
            if why not in self.unreadable:
                self.unreadable[why] = None
                self.told(f"{why}: left out, the {len(self.unreadable)}. of {len(self.files):,} files")


def _memory(size: int) -> int:
    """A file descriptor of shared memory without a name, which nothing has to clean up."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("images")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _stop(processes: list[_Process]) -> None:
    for one in processes:
        one.connection.close()  # which ends it
    for one in processes:
        one.process.kill()
        one.process.wait()


def work() -> None:
    """The other end: reads requests until the connection closes."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this
    connection, memory, text, ends = (int(word) for word in sys.argv[1:5])
    pipe = Connection(connection)
    try:
        length, count, store, view, most, size, skip = pipe.recv()
        found = np.frombuffer(mmap.mmap(text, length + 1), np.uint8)[:length]
        files = Names(found, np.frombuffer(mmap.mmap(ends, 8 * count + 1), np.int64, count), store)
        form = View(*view)
        room = np.frombuffer(mmap.mmap(memory, size), np.uint8).reshape(AHEAD, most, *form_of_view(form))
        while True:
            slot, request = pipe.recv()
            pipe.send(read(files, form, request, room[slot], skip))
    except (EOFError, OSError, pickle.UnpicklingError):
        return
