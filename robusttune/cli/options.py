"""The command line's options, made of functions' signatures and docstrings."""

import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from robusttune import plugins
from robusttune.cli.sources import NAMES
from robusttune.cli.values import Number
from robusttune.training.harden import harden
from robusttune.training.recipe import Recipe
from robusttune.training.robust_loss import RobustLoss

OBJECTS = {  # what no text can name, or what other options stand for
    "model",
    "loader",
    "images",
    "val_loader",
    "unlabeled_loader",
    "criterion",
    "on_epoch",
    "notes",
    "scheduler",
    "init_from",
    "normalized",
    "which",
    "sharded",
    "test_loader",
    "threats",
    "corruptions",
    "arms",
    "evaluation",
}
KINDS: dict[str, plugins.Kind] = {
    "norm": "norms",
    "attack": "attacks",
    "objective": "objectives",
    "tasks": "tasks",
    "which": "evaluations",
}
LISTS = ("which", "threats", "corruptions", "arms", "seeds", "evaluation")  # several words may follow these
SOURCES = ("model", "data")
GROUPS = {
    "method": {
        *("norm", "eps", "purpose", "preset", "tasks", "attack_tasks", "views", "objective", "attack", "steps"),
        *("step_size", "awp", "eps_ramp", "augment", "which"),
    },
    "training": {
        *("epochs", "max_steps", "time_budget", "optimizer", "lr", "weight_decay", "clip_grad", "accumulate"),
        *("micro_batch", "checkpointing", "ema", "min_clean", "precision", "compile", "channels_last", "tune", "heads"),
    },
    "run": set(),  # all others
}
TYPES = {
    "int": "whole number",
    "str": "text",
    "float": "number",
    "Number": "number",
    "bool": "true or false",
    "dict": "list {name: value}",
    "Mapping": "list {name: value}",
    "Sequence": "list [a, b]",
    "Mapping[str, float]": "list {name: value}",
    "Sequence[int]": "list",
}


class Command(NamedTuple):
    """What a command says, which function's options it has, what it adds to them, and what it does; the data's split."""

    about: str
    function: Callable[..., Any] | None
    add: Callable[[Any], None]
    run: Callable[[Any], int]
    split: str = "train"


def parser(commands: Mapping[str, Command]) -> Any:
    """The parser of all commands, which raises argparse.ArgumentError for arguments that do not fit.

    Raises:
        ImportError: jsonargparse is not installed.
    """
    try:
        from jsonargparse import ArgumentParser, set_parsing_settings
        from jsonargparse.typing import register_type
    except ImportError as error:
        raise ImportError("the command line needs jsonargparse: pip install 'robusttune[cli]'") from error
    set_parsing_settings(add_print_completion_argument=completes())
    register_type(Number, serializer=float, deserializer=Number, fail_already_registered=False)
    strict = {"exit_on_error": False, "allow_abbrev": False, "formatter_class": _formatter()}
    whole = ArgumentParser(
        prog="robusttune",
        description="Makes an existing image classifier hard to fool, and measures how hard. "
        "An error is one line; --debug shows where it came from.",
        version=version("robusttune"),
        **strict,
    )
    whole.add_argument("--debug", action="store_true", help="show where an error came from")
    subcommands = whole.add_subcommands(required=True)
    for name, command in commands.items():
        own = ArgumentParser(description=command.about, usage=_usage(name, command), **strict)
        if command.function is not None:
            own.add_argument("--config", action="config", help="a YAML file of these options; flags come first")
            _add_sources(own.add_argument_group("model and images"), command.split)
            _add_function(own, command.function)
        command.add(own)
        subcommands.add_subcommand(name, own, help=command.about.splitlines()[0])
    return whole


def completes() -> bool:
    """Whether what prints completion scripts is installed; without it, all else works."""
    try:
        import shtab  # noqa: F401
    except ImportError:
        return False
    return True


def _usage(name: str, command: Command) -> str | None:
    """All options would fill a screen."""
    return None if command.function is None else f"robusttune {name} --model MODEL --data DATA [--option value …]"


def _add_function(own: Any, function: Callable[..., Any]) -> None:
    """The function's arguments as options, in groups, with the words of its docstring."""
    typed, said = _typed(function), described(function)
    names = inspect.signature(function).parameters
    taken = options_of(function)
    for title in GROUPS:
        others = {name for name in names if name not in taken or _group_of(name) != title}
        group = own.add_argument_group(title)
        group.add_function_arguments(typed, as_group=False, skip=others, fail_untyped=False)
    for action in own._actions:
        if action.dest in taken:
            action.help = _told(action.dest, said.get(action.dest, ""))


def options_of(function: Callable[..., Any]) -> list[str]:
    """The function's arguments that text can name.

    Example:
        >>> "eps" in options_of(harden), "loader" in options_of(harden)
        (True, False)
    """
    known = inspect.signature(function).parameters.values()
    return [each.name for each in known if each.name not in OBJECTS or each.annotation is int]


def _group_of(name: str) -> str:
    return next((title for title, members in GROUPS.items() if name in members), "run")


def _told(name: str, said: str) -> str:
    known = f" (known: {', '.join(plugins.names(KINDS[name]))})" if name in KINDS else ""
    return said.rstrip(".") + known


def _typed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in whose signature is the function's, in the types of a command line.

    Numbers may be fractions, and a folder is text even where it looks like a number.
    """
    signature = inspect.signature(function)
    types = {float: Number, float | None: Number | None}

    def typed(parameter: inspect.Parameter) -> inspect.Parameter:
        if parameter.name == "out":
            return parameter.replace(annotation=str | None)
        return parameter.replace(annotation=types.get(parameter.annotation, parameter.annotation))

    def stand_in(**settings: Any) -> Any:
        """Never called."""

    changed = [typed(each) for each in signature.parameters.values()]
    stand_in.__signature__ = signature.replace(parameters=changed)  # type: ignore[attr-defined]
    stand_in.__annotations__ = {each.name: each.annotation for each in changed}
    stand_in.__name__ = function.__name__
    return stand_in


def _add_sources(own: Any, split: str) -> None:
    own.add_argument("--model", required=True, help=NAMES)
    own.add_argument("--checkpoint", type=str | None, help="weights of the model: a file, or the folder of a run")
    own.add_argument("--pretrained", type=bool, default=False, help="fetch the weights that timm or torchvision know")
    own.add_argument("--model_args", type=dict | None, help="more arguments of the model's maker, as {img_size: 32}")
    own.add_argument(
        "--classes", type=int | None, help="outputs of a timm or torchvision model; those of the data if unset"
    )
    own.add_argument(
        "--data", required=True, help="a folder of images by class, or timm's name of a data set, as torch/cifar10"
    )
    own.add_argument("--data_dir", type=str | None, help="where a named data set is")
    own.add_argument(
        "--data_args", type=dict | None, help="more arguments of timm's data set factory, as {input_key: img}"
    )
    own.add_argument("--split", default=split, help="of the data; a folder of this name is looked for")
    own.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    own.add_argument("--channels", type=int, default=3, help="3 for colour, 1 for grey")
    own.add_argument("--batch_size", type=int, default=128, help="images a batch")
    own.add_argument("--workers", type=int, default=0, help="processes that read images")


def described(function: Callable[..., Any]) -> dict[str, str]:
    """What a function's docstring says of each argument; what it leaves to others is looked up there.

    Example:
        >>> described(harden)["lr"]
        'of a named optimiser.'
    """
    found = _arguments_of(function)
    for other in (harden, RobustLoss, Recipe):  # in the order in which they leave things to each other
        for name, text in found.items():
            if re.match(rf"(see|as for) `{other.__name__}`", text):
                found[name] = _arguments_of(other).get(name, text)
    return found


def _arguments_of(thing: Any) -> dict[str, str]:
    """The entries under "Args:" or "Attributes:", one for each name where several share an entry."""
    text = inspect.cleandoc(thing.__doc__ or "")
    found = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
    entries = re.findall(r"^    (\w[\w, \n]*?): (.*(?:\n        .*)*)", found[1] if found else "", re.MULTILINE)
    return {name: " ".join(said.split()) for names, said in entries for name in re.findall(r"\w+", names)}


def _formatter() -> Any:
    """Help whose examples keep their lines, with types in plain words."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        def _get_type_str(self, action: Any) -> str | None:
            shown = super()._get_type_str(action)
            return None if shown is None else plain_type(shown)

        def _expand_help(self, action: Any) -> str:
            text = re.sub(r"(, )?default: null", "", super()._expand_help(action))
            return re.sub(r" \(\)", "", text)

    return Formatter


def plain_type(shown: str) -> str | None:
    """What jsonargparse calls a type, in plain words; None where anything goes.

    Example:
        >>> plain_type("Number | null"), plain_type("Optional[Any]")
        ('number', None)
    """
    if "Any" in shown:
        return None
    return " or ".join(TYPES.get(each, each) for each in shown.split(" | ") if each != "null")
