"""Flags without a value, dashes and underscores, before a command line is parsed."""

import pytest

from robusttune.cli import main
from robusttune.cli.errors import UsageError
from robusttune.cli.options import COMMANDS, options_of
from robusttune.cli.parser import parse
from robusttune.cli.words import underscored

SOURCE = ["--model", "timm:test_resnet", "--data", "images", "--out", "runs/a"]
FLAGS = [
    (["harden", "--resume"], {"resume": True}),
    (["harden", "--resume", "--epochs", "3"], {"resume": True, "epochs": 3}),
    (["harden", "--resume", "true"], {"resume": True}),
    (["harden", "--resume", "false"], {"resume": False}),
    (["harden", "--no_progress"], {"progress": False}),
    (["harden", "--no-progress"], {"progress": False}),
    (["harden", "--compile", "auto"], {"compile": "auto"}),
    (["harden", "--compile"], {"compile": True}),
    (["harden", "--no-tune", "--channels-last"], {"tune": False, "channels_last": True}),
    (["pretrain", "--resume"], {"resume": True}),
    (["poc", "--plan-only", "--seeds", "0", "1"], {"plan_only": True, "seeds": [0, 1]}),
    (["poc", "--seeds", "0", "1", "2", "--plan_only"], {"plan_only": True, "seeds": [0, 1, 2]}),
    (["poc", "--seeds", "2"], {"seeds": 2}),
    (["poc", "--seeds", "[4, 7]"], {"seeds": [4, 7]}),
    (["harden", "--max-steps", "none", "--eps", "None"], {"max_steps": None, "eps": None}),
    (["harden", "--attack_tasks", "none", "--augment", "none"], {"attack_tasks": "none", "augment": "none"}),
]


@pytest.mark.parametrize(("words", "read"), FLAGS, ids=[" ".join(each[0]) for each in FLAGS])
def test_a_flag_without_a_value_is_true(words, read):
    arguments = parse([underscored(word) for word in [*words, *SOURCE]]).arguments
    assert {name: arguments[name] for name in read} == read


@pytest.mark.parametrize("words", [["--pretrained"], ["--pretrained", "true"], ["--pretrained=true"]])
def test_published_weights_are_asked_for_by_the_flag_alone(words):
    assert parse(["harden", *words, *SOURCE]).sources.pretrained is True
    assert parse(["harden", *SOURCE, *words]).sources.pretrained is True
    assert parse(["harden", *SOURCE, "--no_pretrained"]).sources.pretrained is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "--pretrained", "runs/none", "--data", "x"], "'runs/none' holds no run.json of a run"),
        (["harden", *SOURCE, "--pretrained", "runs/none"], "--pretrained is 'runs/none', but it must be true or false"),
        (["harden", *SOURCE, "--resume", "flase"], "--resume is 'flase', but it must be true or false"),
        (["harden", *SOURCE, "--no_epochs"], "there is no option --no_epochs"),
        (["poc", *SOURCE, "--seeds", "1.5"], "--seeds is '1.5', but it must be a whole number or a list"),
    ],
)
def test_a_word_after_a_flag_is_not_swallowed(words, says):
    with pytest.raises(UsageError) as refused:
        parse(words)
    assert says in str(refused.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_dashes_are_underscores_in_every_option(command, capsys):
    for name in options_of(command):
        assert underscored(f"--{name.replace('_', '-')}") == f"--{name}"
    with pytest.raises(SystemExit):
        main([command, "--help"])
    capsys.readouterr()
