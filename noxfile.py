"""Checks of this repository, one verb each, for contributors and for `.ci/run` alike.

They run in the environment that nox itself is installed in, so nothing is installed twice:

    .venv/bin/nox              # lint, types, tests, wheel, docs
    .venv/bin/nox -s lint types
    .venv/bin/nox -s tests -- -n 0 tests/tasks

`pipx run nox -s dev` makes that environment in `.venv`.
"""

import sys
import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "wheel", "docs"]
nox.options.stop_on_first_error = True

ENVIRONMENT = Path(".venv")
EARLIER = ":!tests/support/earlier_folders"  # files as an earlier version wrote them


def run(session: nox.Session, module: str, *arguments: str, log: bool = True) -> None:
    """Run a module of the environment that nox is installed in; log: print its arguments."""
    session.run(sys.executable, "-m", module, *arguments, log=log)


def install(session: nox.Session, python: Path | str, *options: str) -> None:
    """Install this copy, editable, with every extra; options go to pip."""
    session.run(str(python), "-m", "pip", "install", "-q", "-e", ".[all,dev,docs]", *options, external=True)


@nox.session
def dev(session: nox.Session) -> None:
    """Make the environment `.venv` and the commit hooks; arguments go to pip, such as `-c constraints-dev.txt`."""
    python = (ENVIRONMENT / ("Scripts" if sys.platform == "win32" else "bin") / "python").absolute()
    if not python.exists():
        run(session, "venv", str(ENVIRONMENT))
    install(session, python, *session.posargs)
    session.run(str(python), "-m", "pre_commit", "install", external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, spelling and the ends of files."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    text = session.run(
        "git", "grep", "-I", "--name-only", "-e", "", "--", ".", EARLIER, external=True, silent=True, log=False
    )
    files = (text or "").splitlines()
    session.log(f"spelling and ends of {len(files)} files")
    run(session, "codespell_lib", *files, log=False)
    run(session, "pre_commit_hooks.end_of_file_fixer", *files, log=False)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package."""
    run(session, "mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest, such as `-m slow` or one file."""
    run(session, "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and print the share of lines and branches of the package that they run; slower than `tests`."""
    run(session, "pytest", "--cov", "--cov-report=term:skip-covered", *session.posargs)


@nox.session
def tutorial(session: nox.Session) -> None:
    """Run the tutorial's commands and compare what they print with the page; arguments go to docs/run_tutorial.py, such as `--write`."""
    with tempfile.TemporaryDirectory() as folder:
        session.run(sys.executable, "docs/run_tutorial.py", folder, *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build wheel and sdist, and compare them to the files that git tracks."""
    session.run(sys.executable, "tests/support/neighbours.py", "contents")


@nox.session
def links(session: nox.Session) -> None:
    """Open every link of the pages to other places, which needs the internet."""
    session.run(sys.executable, "tests/support/links.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors; arguments go to mkdocs, such as `--site-dir site`."""
    with tempfile.TemporaryDirectory() as folder:
        # Without --quiet, which hides warnings from --strict, too.
        run(session, "mkdocs", "build", "--strict", "--site-dir", folder, *session.posargs)
