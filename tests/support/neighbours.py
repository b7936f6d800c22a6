"""Checks that need the package index, run by hand or by CI: what wheel and sdist hold, and which neighbours resolve.

python tests/support/neighbours.py contents   # builds both, compares them to what git tracks, and asks twine if it is there
python tests/support/neighbours.py resolve    # pip's resolver, with the oldest and the newest versions, nothing installed: minutes
"""

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEIGHBOURS = ["requests>=2.32", "datasets", "transformers", "jupyterlab", "lightning"]
SHIPPED = ("robusttune/", "tests/", "examples/", "docs/")
BESIDE = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", "LICENSE"}
BESIDE |= {"pyproject.toml", "noxfile.py", "constraints-dev.txt", "constraints-oldest.txt", "mkdocs.yml", ".gitignore"}


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout


def contents() -> None:
    """Build wheel and sdist, and compare them to the files that git tracks."""
    tracked = set(run("git", "ls-files").split("\n")) - {""}
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--outdir", folder)
        (wheel,), (sdist,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
        in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        with tarfile.open(sdist) as archive:
            in_sdist = {one.name.split("/", 1)[1] for one in archive.getmembers() if one.isfile()} - {"PKG-INFO"}
        same("the wheel", in_wheel, {name for name in tracked if name.startswith("robusttune/")})
        same("the sdist", in_sdist, {name for name in tracked if name.startswith(SHIPPED) or name in BESIDE})
        if importlib.util.find_spec("twine"):
            run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    print(f"wheel: {len(in_wheel)} files, sdist: {len(in_sdist)} files, as git has them")


def same(title: str, found: set[str], expected: set[str]) -> None:
    if found != expected:
        sys.exit(f"{title} lacks {sorted(expected - found)}, and holds {sorted(found - expected)} besides")


def resolve() -> None:
    """Ask pip whether the core goes together with current neighbours, with the newest and the oldest that it takes."""
    pins = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    core = sorted(set(re.findall(r"^([\w-]+)==", pins, re.MULTILINE)))
    for title, options in (("newest", []), ("oldest", ["--constraint", "constraints-oldest.txt"])):
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            run(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report",
                str(report), str(ROOT), *NEIGHBOURS, *options)  # fmt: skip
            rows = [each["metadata"] for each in json.loads(report.read_text(encoding="utf-8"))["install"]]
        found = {row["name"].lower(): row["version"] for row in rows}
        shown = [f"{name} {found[name]}" for name in [*map(_name, NEIGHBOURS), *core]]
        print(f"{title}: {', '.join(shown)}", flush=True)


def _name(requirement: str) -> str:
    return re.split("[=>]", requirement)[0]


if __name__ == "__main__":
    {"contents": contents, "resolve": resolve}[sys.argv[1]]()
