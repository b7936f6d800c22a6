"""The page of the shell's and Python's spelling is that of the options and the signatures."""

import importlib.util
from pathlib import Path

import robusttune
from robusttune.cli.options import COMMANDS, options_of
from robusttune.cli.signatures import parameters_of

DOCS = Path(__file__).parents[2] / "docs"


def writer():
    spec = importlib.util.spec_from_file_location("write_shell_and_python", DOCS / "write_shell_and_python.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    page = (DOCS / "shell-and-python.md").read_text(encoding="utf-8")
    assert page == writer().written(page), "run python docs/write_shell_and_python.py"


def test_every_option_of_every_command_is_on_the_page():
    text = (DOCS / "shell-and-python.md").read_text(encoding="utf-8").split("## Every option")[1]
    for command in COMMANDS:
        section = text.split(f"### `{command}`")[1].split("\n### ")[0] + text.split("### `harden`")[0]
        missing = [
            name
            for name in options_of(command)
            if not any(f"`{each}`" in section for each in (name, f"--{name}"))
            and f"`{name.upper()}`, without" not in section
        ]
        assert not missing, command


def test_options_and_arguments_that_are_matched_by_hand_exist():
    module = writer()
    options = {name for command in COMMANDS for name in options_of(command)}
    places = [*module.FUNCTIONS.values(), *(each.function for each in COMMANDS.values() if each.function)]
    arguments = {name for place in places for name in parameters_of(place)}
    assert {*module.OBJECTS, *module.ELSEWHERE} <= options
    assert set(module.OPTIONS) <= arguments
    assert all(hasattr(robusttune, place.rpartition(":")[2]) for place in module.FUNCTIONS.values())
