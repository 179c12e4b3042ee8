"""Random resized crops of JPEG files, read ahead by two processes: images a second, beside PyTorch and Grain.

    python benchmarks/make_jpegs.py JPEGS --cifar10=FOLDER --nuclei=FOLDER
    python benchmarks/loader.py JPEGS --torch=PYTHON --grain=PYTHON       # about 4 minutes

Each loader runs in a process of its own, in turn, several times; all get the same files in the same order and the same
boxes, and give u8[128, side, side, 3]. PYTHON is an interpreter that has torch and torchvision, or grain; without one
its rows are left out. Rates are of `--batches` batches after the first eight, when all that was prepared during a slow
start is used up; "per CPU second" counts the CPU of all processes of the loader in that time, which other work on the
machine hardly changes. "read" is one process alone that reads files and does nothing else: what a core gives.

PyTorch's loader is measured twice: with the crop alone, as bytes (what ours gives), and with the transforms of the
usual script (crop, ToTensor, Normalize), which ours leaves to the device.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from nasjax.data.readers import names
from nasjax.data.view import Cut, View, random_box, read_view

BATCH, WORKERS, CUT, BEFORE = 128, 2, Cut(), 8
LOADERS = ("nasjax", "torch", "torch, usual", "grain")


class Sample:
    """Image i as PyTorch and Grain read it: the whole file, then the box of the same seed."""

    def __init__(self, files: list[str], side: int, usual: bool) -> None:
        self.files, self.side, self.usual = files, side, usual

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> object:
        from PIL import Image
        from torchvision.transforms import functional

        image = Image.open(self.files[i]).convert("RGB")
        left, top, right, bottom = random_box(image.height, image.width, CUT, (i // BATCH, i % BATCH))
        image = functional.resized_crop(image, top, left, bottom - top, right - left, [self.side, self.side])
        if not self.usual:
            return functional.pil_to_tensor(image)
        return functional.normalize(functional.to_tensor(image), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Grain:
    """The same for Grain, with our own reader: what differs is who moves the images."""

    def __init__(self, files: list[str], side: int) -> None:
        self.files, self.view = files, View(side, side, 3, "crop")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> np.ndarray:
        return read_view(Path(self.files[i]), self.view, CUT, (i // BATCH, i % BATCH))


def batches(loader: str, files: list[str], side: int):
    """Its batches, in order."""
    if loader == "nasjax":
        from nasjax.data.readers import Readers, Request

        readers = Readers(names(files), View(side, side, 3, "crop"), WORKERS)
        whole = [np.arange(i, i + BATCH) for i in range(0, len(files) - BATCH + 1, BATCH)]
        yield from (
            np.array(x) for x in readers.sequence([Request(w, CUT, (n, 0)) for n, w in enumerate(whole)], BATCH)
        )
        readers.close()
    elif loader == "grain":
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()
        # By default it reads hundreds of batches ahead: in a short run all are there before the first is asked for.
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        made = grain.MapDataset.source(Grain(files, side)).batch(BATCH, drop_remainder=True).to_iter_dataset(ahead)
        yield from made.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=WORKERS))
    else:
        from torch.utils.data import DataLoader

        yield from DataLoader(Sample(files, side, "usual" in loader), BATCH, num_workers=WORKERS, drop_last=True)


def cpu() -> float:
    """Seconds of CPU of this process and of all that it started."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        used[int(stat.parent.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    own = {os.getpid()}
    for _ in range(5):
        own |= {child for child, parent in parents.items() if parent in own}
    return sum(used[one] for one in own)


def one(loader: str, files: list[str], side: int, count: int) -> dict[str, float]:
    """Images per second and per CPU second, seconds until the first batch, its mean, by which images are compared."""
    if loader == "read":
        began = time.process_time()
        for n, file in enumerate(files[: count * BATCH]):
            read_view(Path(file), View(side, side, 3, "crop"), CUT, (n // BATCH, n % BATCH))
        rate = count * BATCH / (time.process_time() - began)
        return {"rate": rate, "per_cpu": rate, "first": 0.0, "mean": 0.0}
    began = time.perf_counter()
    for seen, batch in enumerate(batches(loader, files[: (count + BEFORE) * BATCH], side), 1):
        if seen == 1:
            first, mean = time.perf_counter() - began, float(np.asarray(batch, np.float64).mean())
        if seen == BEFORE:
            since, used = time.perf_counter(), cpu()
        if seen == count + BEFORE - 1:  # before the processes end
            wall, used = time.perf_counter() - since, cpu() - used
    images = (count - 1) * BATCH
    return {"rate": images / wall, "per_cpu": images / used, "first": first, "mean": mean}


def main(given: argparse.Namespace) -> None:
    pythons = {"nasjax": sys.executable, "read": sys.executable, "grain": given.grain}
    pythons |= dict.fromkeys(("torch", "torch, usual"), given.torch)
    print(f"{len(os.sched_getaffinity(0))} cores, batches of {BATCH}, {WORKERS} processes each\n")
    head = (
        "side",
        "loader",
        "images/s, median",
        "least, most",
        "of PyTorch",
        "per CPU second",
        "until the first batch",
    )
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|", flush=True)
    for side in given.sides:
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(given.times):
            for loader in ("read", *LOADERS):
                if pythons[loader]:
                    command = [pythons[loader], __file__, str(given.folder), "--one", loader, "--sides", str(side)]
                    run = subprocess.run([*command, "--batches", str(given.batches)], stdout=-1, check=True, text=True)
                    found.setdefault(loader, []).append(json.loads(run.stdout))
        beside = statistics.median(row["rate"] for row in found.get("torch", [{"rate": float("nan")}]))
        for loader, rows in found.items():
            rates = sorted(row["rate"] for row in rows)
            ratio = "" if loader == "read" else f"{statistics.median(rates) / beside:.2f}"
            first = "" if loader == "read" else f"{statistics.median(row['first'] for row in rows):.1f} s"
            span, per_cpu = f"{rates[0]:,.0f}, {rates[-1]:,.0f}", statistics.median(row["per_cpu"] for row in rows)
            cells = (f"{side}", loader, f"{statistics.median(rates):,.0f}", span, ratio, f"{per_cpu:,.0f}", first)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--torch", default="")
    parser.add_argument("--grain", default="")
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 64])
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--one", default="")
    given = parser.parse_args()
    if given.one:
        listed = sorted(map(str, given.folder.glob("train/*/*.jpg")))
        shuffled = [listed[i] for i in np.random.default_rng(0).permutation(len(listed))]
        print(json.dumps(one(given.one, shuffled, given.sides[0], given.batches)))
    else:
        main(given)
