"""Options without torch: parameters read from source, values read from text, files of options, help."""

import pytest

from robusttune.cli import signatures
from robusttune.cli.errors import UsageError
from robusttune.cli.options import OBJECTS, options_of
from robusttune.cli.parser import parse
from robusttune.cli.signatures import Parameter, parameters_of, summary
from robusttune.cli.values import read, texts_of

SOURCE = '''
from typing import Literal, TypeAlias
from torch import nn
from robusttune.aliases import Weights, WEIGHTS
from robusttune.kinds import Alias

Mode: TypeAlias = Literal["fast", "slow"]
Nested: TypeAlias = "Mode | int"

def run(model: nn.Module, first, second: "list[int]" = (), *, weights: Weights = WEIGHTS, nested: Nested = "fast",
        alias: Alias | None = None, out: "Path", union: Union["int | None", float] = 1,
        optional: Optional[str] = None, made=len(""), device: "str | torch.device" = "cpu") -> None:
    """Do it.

    Examples:
      run

    Args:
        model, first: one
            entry.

    Raises:
        ValueError: never.
    """
'''


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A package of three files, the first with a function in all the spellings of annotations."""
    package = tmp_path / "robusttune"
    (package / "kinds").mkdir(parents=True)
    (package / "main.py").write_text(SOURCE)
    (package / "aliases.py").write_text('Weights = dict[str, float]\nWEIGHTS: Weights = {"rotation": 0.5}\n')
    (package / "kinds/__init__.py").write_text("class Kind: ...\nAlias = Kind | tuple[Kind, ...]\n")
    monkeypatch.setattr(signatures, "PACKAGE", package)
    signatures._tree.cache_clear()
    yield "main.py:run"
    signatures._tree.cache_clear()


def test_annotations_and_defaults_are_read_with_their_aliases(place):
    read_from = parameters_of.__wrapped__(place)
    assert {name: set(each.types) for name, each in read_from.items()} == {
        "model": {"Module"},
        "first": {"Any"},
        "second": {"Sequence"},
        "weights": {"Mapping"},
        "nested": {"'fast'", "'slow'", "int"},
        "alias": {"Kind", "Sequence", "None"},
        "out": {"str"},
        "union": {"int", "float", "None"},
        "optional": {"str", "None"},
        "made": {"Any"},
        "device": {"str", "device"},
    }
    defaults = {name: each.default for name, each in read_from.items() if not each.required}
    assert defaults == {
        "second": (),
        "weights": {"rotation": 0.5},
        "nested": "fast",
        "alias": None,
        "union": 1,
        "optional": None,
        "made": ...,
        "device": "cpu",
    }
    assert [name for name, each in read_from.items() if not each.keyword] == ["model", "first", "second"]
    assert read_from["first"].about == "one entry."


def test_a_summary_has_no_arguments(place):
    assert summary(place) == "Do it.\n\nExamples:\n  run\n\nRaises:\n    ValueError: never."


@pytest.mark.parametrize(
    ("types", "text", "value"),
    [
        ("bool", "true", True),
        ("bool 'auto'", "auto", "auto"),
        ("bool 'auto'", "False", False),
        ("'none' 'joint'", "none", "none"),
        ("'1' '2'", "1", "1"),
        ("Any", "none", "none"),
        ("float str None", "none", None),
        ("float str None", "2h", "2h"),
        ("Any None", "None", None),
        ("int None", "null", None),
        ("int 'all'", "3", 3),
        ("float", "1e-3", 0.001),
        ("float", "8/255", 8 / 255),
        ("float", "4", 4.0),
        ("float", "010", 10.0),
        ("int", "1_000", 1000),
        ("Any", "{epochs: 12, lr: .5}", {"epochs": 12, "lr": 0.5}),
        ("str", "1/2", "1/2"),
        ("str", "null", "null"),
        ("str None", "null", None),
        ("str None", "", ""),
        ("str None", "2026-11-25", "2026-11-25"),
        ("str None", "runs/a #2", "runs/a #2"),
        ("str", "a: b", "a: b"),
        ("Mapping None", "{rotation: 1/2, jigsaw: 0.5}", {"rotation": 0.5, "jigsaw": 0.5}),
        ("str Callable", "adamw", "adamw"),
        ("str TaskWeights None", "{rotation: 0.5}", {"rotation": 0.5}),
        ("Any", "{sweep: {eps: [4/255, 1e-3]}}", {"sweep": {"eps": [4 / 255, 0.001]}}),
        ("Any", "2026-11-25", "2026-11-25"),
        ("Any", "{sweep: ", "{sweep: "),
        ("int Sequence", "[0, 1]", [0, 1]),
        ("float Sequence Tensor", ["0.5", "1/4"], [0.5, 0.25]),
        ("str Mapping Sequence None", ["l2", "{linf: 4/255}"], ["l2", {"linf": 4 / 255}]),
        ("str Sequence", ["2026"], "2026"),
    ],
)
def test_texts_are_read_as_the_types_of_the_option(types, text, value):
    result = read(Parameter("it", frozenset(types.split()), "", False, None, True), text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("types", "text", "allowed"),
    [
        ("int None", "two", "a whole number"),
        ("int", "1.5", "a whole number"),
        ("int", "true", "a whole number"),
        ("int", "010", "a whole number"),
        ("int", "0x10", "a whole number"),
        ("int", "1:30", "a whole number"),
        ("float", "1:30", "a number"),
        ("float", ".inf", "a number"),
        ("bool", "1", "true or false"),
        ("float", "4/0", "a number"),
        ("float", "1e999999999", "a number"),
        ("Mapping", "rotation", r"a mapping \{name: value\}"),
        ("int Sequence", "many", r"a whole number or a list \[a, b\]"),
    ],
)
def test_a_text_of_another_type_is_refused(types, text, allowed):
    with pytest.raises(UsageError, match=rf"--it is '{text}', but it must be {allowed}$"):
        read(Parameter("it", frozenset(types.split()), "", False, None, True), text)


def test_values_in_files_are_texts_as_on_the_command_line(tmp_path):
    (tmp_path / "a.yaml").write_text("data: 1/2\nout: 2026_11\nwhich: [clean, {sweep: {eps: [4/255]}}]\nnorm: 'l2'\n")
    texts = texts_of(str(tmp_path / "a.yaml"))
    assert {name: texts[name] for name in ("data", "out", "norm")} == {"data": "1/2", "out": "2026_11", "norm": "l2"}
    which = read(options_of("evaluate")["which"], texts["which"])
    assert which == ["clean", {"sweep": {"eps": [4 / 255]}}]


def test_later_files_come_before_earlier_ones_and_flags_before_both(tmp_path):
    for name, epochs in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"epochs: {epochs}\nmodel: {name}\ndata: x\nout: x\nseed: {epochs}\n")
    files = [f"--config={tmp_path / name}.yaml" for name in "ab"]
    request = parse(["harden", "--seed", "-3", *files])
    assert (request.sources.model, request.arguments["epochs"], request.arguments["seed"]) == ("b", 2, -3)


@pytest.mark.parametrize("command", ["harden", "estimate", "evaluate", "pretrain", "poc"])
def test_a_printed_file_of_options_gives_the_same_options(command, tmp_path, capsys):
    words = [command, "--model", "x", "--data", "y", "--out", "z", *(["--eps", "8/255"] if command != "poc" else [])]
    with pytest.raises(SystemExit):
        parse([*words, "--print_config"])
    text = capsys.readouterr().out
    assert "eps: 8/255\n" in text or command == "poc"
    (tmp_path / "a.yaml").write_text(text)
    again, first = parse([command, "--config", str(tmp_path / "a.yaml")]), parse(words)
    assert str(again) == str(first)


def test_objects_are_no_options():
    assert not OBJECTS & {name for command in ("harden", "evaluate", "pretrain", "poc") for name in options_of(command)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["harden", "linf", "--model", "x"], "'linf' follows no option that takes it"),
        (["harden", "--eps"], "--eps"),
        (["harden", "--config", "nowhere.yaml"], "--config 'nowhere.yaml' cannot be read"),
        (["--print_completion", "fosh"], "--print_completion is 'fosh', but it must be bash or zsh"),
        (["--versoin"], "--versoin"),
        ([], "a command is needed: harden, estimate"),
    ],
)
def test_words_that_fit_nowhere_are_refused(words, says, tmp_path, monkeypatch):
    pytest.importorskip("shtab")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        parse(words)


def test_an_option_that_stands_twice_in_a_file_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("epochs: 3\nseed: 1\nepochs: 4\n")
    with pytest.raises(UsageError, match=r"a\.yaml' has 'epochs' twice: leave one of them out"):
        parse(["harden", "--model", "m", "--data", "x", "--out", "y", "--config", str(tmp_path / "a.yaml")])


def test_the_steps_of_an_attack_and_their_size_are_explained_apart():
    options = options_of("harden")
    assert options["steps"].about.startswith("number of steps")
    assert options["step_size"].about.startswith("length of a step of the attack, in pixel units")
