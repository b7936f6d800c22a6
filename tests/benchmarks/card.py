"""What all measurements on a card share: a part's device, sizes, time and results; see gpu.py."""

import gc
import json
import logging
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/repository", "tests/support", "examples", "."):
    sys.path.insert(1, str(ROOT / folder))

SIZE = "{}, {} px, batch {}"


def file_of(folder, part):
    """The file of a part's results, beside which other benchmarks may have theirs."""
    return folder / f"gpu-{part}.json"


class Scene:
    """The device and the sizes of a part, the time that is left to it, and the file of its results."""

    def __init__(self, options):
        self.options, self.device, self.tiny = options, options.device, options.tiny
        self.cuda, self.ends = options.device == "cuda", time.monotonic() + options.seconds
        self.sizes = [("test_resnet", 32, 8)] if self.tiny else [("resnet18", 32, 512), ("resnet50", 224, 128)]
        self.found = {"rows": [], "left out": []}

    @property
    def left(self):
        """Seconds."""
        return self.ends - time.monotonic()

    def has(self, seconds, what):
        """Whether so many seconds are left; else the results say what was left out."""
        if self.left < (1 if self.tiny else seconds):
            self.found["left out"].append(f"{what}: {max(0, self.left):.0f} s were left, {seconds:.0f} s are needed")
            self.save()
            return False
        return True

    def add(self, row):
        """Add a row to the results."""
        self.found["rows"].append(row)
        self.save()
        return row

    def save(self):
        """Write the results; a process that is ended meanwhile leaves those of before."""
        file = file_of(self.options.out, self.options.part)
        file.with_suffix(".new").write_text(json.dumps(self.found, indent=1))
        file.with_suffix(".new").replace(file)

    def seconds(self, work):
        """Seconds of some work, until the device is done."""
        wait = torch.cuda.synchronize if self.cuda else lambda: None
        wait()
        began = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - began

    def free(self):
        """Give back the memory that nothing holds any more."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


@contextmanager
def tf32(allowed):
    """Allow or forbid TF32 in matrix products and convolutions; None for torch's own setting."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    kept = [place.allow_tf32 for place in places]
    try:
        for place in places if allowed is not None else ():
            place.allow_tf32 = allowed
        yield
    finally:
        for place, before in zip(places, kept, strict=True):
            place.allow_tf32 = before


def text(error):
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]


def warm(scene, row, build, times=3):
    """A contender's work after its warm-up; None where it fails, or goes on without what it was to use: its row says why."""
    heard, logger = [], logging.getLogger("robusttune")
    handler = logging.Handler()
    handler.emit = lambda record: heard.append((record.levelno, record.getMessage()))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        work = build()
        seconds = [scene.seconds(work) for _ in range(times)]
        row |= {"first call s": seconds[0], "warm": seconds[-1], "log": [line for _, line in heard]}
        fallen = [line for level, line in heard if level >= logging.WARNING]
        row |= {"note": fallen[0]} if fallen else {}
        return None if fallen else work
    except Exception as error:
        row["note"] = text(error)
        return None
    finally:
        logger.removeHandler(handler)
        scene.save()  # first, as a card that has failed raises an error below
        scene.free()
