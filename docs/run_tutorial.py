"""Runs the commands of docs/tutorial.md, in order, and compares what they print with what the page shows.

    python docs/run_tutorial.py FOLDER            # an empty folder to work in
    python docs/run_tutorial.py FOLDER --write    # then put the new output and the new pictures into the pages

A block of ```sh is a command, and a block of ```text after it shows lines of its output; `…` stands for lines that are left out, and
at the end of a line for the rest of it. Numbers and times may differ, as they do between machines.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
PICTURES = ROOT / "docs" / "gallery"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ELLIPSIS = "…"
TIME = re.compile(r"\d[\d.]* (?:ms|s|min|h)\b(?: \d+ (?:s|min)\b)?")
NUMBER = re.compile(r"(?:(?<= )[+-])?\d[\d.,]*(?:e-?\d+)?")


class Step(NamedTuple):
    """A command of the page, and the lines of its output that the page shows."""

    command: str
    shown: list[str]


def steps_of(page: str) -> list[Step]:
    """The commands of a page in order."""
    steps: list[Step] = []
    for kind, text in BLOCK.findall(page):
        if kind == "sh":
            steps += [Step(line, []) for line in text.splitlines()]
        else:
            steps[-1].shown.extend(text.splitlines())
    return steps


def masked(line: str) -> str:
    """A line without what differs between machines: times, numbers, and the width of columns."""
    line = NUMBER.sub("0", TIME.sub("TIME", line))
    return re.sub(r"-+", "-", re.sub(r"\s+", " ", line)).strip()


def matched(shown: list[str], printed: list[str]) -> list[str]:
    """The printed lines that stand for those that are shown, in their order; the marks of lines left out are kept.

    Raises:
        ValueError: a line that is shown was not printed after the one before it.
    """
    found, rest = [], iter(printed)
    for line in shown:
        if line == ELLIPSIS:
            found.append(line)
            continue
        cut = line.endswith(ELLIPSIS)
        start = masked(line.removesuffix(ELLIPSIS))
        match = next((each for each in rest if masked(each) == start or (cut and masked(each).startswith(start))), None)
        if match is None:
            raise ValueError(
                f"the page shows {line!r}, which was not printed; what was printed:\n" + "\n".join(printed)
            )
        found.append(f"{first_words(match, len(line.split()) - 1)} {ELLIPSIS}" if cut else match.rstrip())
    return found


def first_words(line: str, count: int) -> str:
    """The beginning of a line up to the end of a word, with its blanks."""
    return "".join(re.findall(r"\s*\S+", line)[:count])


def run(command: str, folder: Path) -> list[str]:
    """Run a command of the page in a folder; the lines that it printed, on both streams.

    Raises:
        ValueError: it failed.
    """
    program, *words = shlex.split(command)
    first = [sys.executable, "-m", "robusttune"] if program == "robusttune" else [sys.executable]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    ran = subprocess.run(
        [*first, *words], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed = ran.stdout.decode().replace("\r", "\n")
    if ran.returncode:
        raise ValueError(f"{command} ended with {ran.returncode}:\n{printed}")
    return printed.splitlines()


def follow(page: str, folder: Path) -> str:
    """Run the commands of a page in a folder; the page with what they printed."""
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    for step in steps_of(page):
        print(step.command, flush=True)
        before = os.times()
        new = matched(step.shown, run(step.command, folder))
        after = os.times()
        print(
            f"  {after.elapsed - before.elapsed:.0f} s, {after.children_user - before.children_user:.0f} s of the processor"
        )
        if step.shown:
            page = page.replace("\n".join(step.shown), "\n".join(new), 1)
    return page


def main() -> None:
    """Run the page, and write it if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--write", action="store_true", help="put the output and the pictures into the pages")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if any(options.folder.iterdir()):
        parser.error(f"{options.folder} is not empty")
    page = follow(PAGE.read_text(encoding="utf-8"), options.folder)
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
        PICTURES.mkdir(exist_ok=True)
        for picture in (options.folder / "pictures").iterdir():
            shutil.copy(picture, PICTURES / picture.name)


if __name__ == "__main__":
    main()
