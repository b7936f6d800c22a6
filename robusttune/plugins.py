"""Plug-ins, found by their names: those of the files in the folder of their kind."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, overload

from robusttune.types import plain_number, shown

# The contracts of the kinds live in packages below, which import this module when they run.
if TYPE_CHECKING:
    from torch import Tensor

    from robusttune.attacks import Attack, AttackLike
    from robusttune.augmentations import Augmentation
    from robusttune.corruptions import Corruption
    from robusttune.evaluations import Evaluation
    from robusttune.measuring.sections import Section
    from robusttune.norms import Norm, NormLike
    from robusttune.objectives import Objective
    from robusttune.tasks import Task
    from robusttune.trial.arms import Arm

Kind: TypeAlias = Literal[
    "norms",
    "attacks",
    "objectives",
    "tasks",
    "corruptions",
    "augmentations",
    "evaluations",
    "measuring.sections",
    "trial.arms",
]
# What an object of the user's must be or have: the form of a function, or the names of members.
FORMS: dict[str, str] = {
    "attacks": "(loss_of, images, threat, *, generator) -> images",
    "evaluations": "(subject) -> Records",
    "measuring.sections": "(runs, folder) -> Markdown",
}
MEMBERS: dict[str, tuple[str, ...]] = {
    "norms": ("size", "project", "ascent", "noise", "default_eps"),
    "objectives": ("needs_clean", "attack_loss", "loss"),
    "tasks": ("name", "classes", "shares_forward", "draw"),
}
Word = TypeVar("Word", bound=str)
Plugin = TypeVar("Plugin")
Function = TypeVar("Function", bound=Callable[..., object])


def names(kind: Kind) -> list[str]:
    """List the names of every plug-in of one kind, sorted.

    Args:
        kind: a plural folder of this package. Files whose names begin with _ are no plug-ins, but shared by the kind.

    Example:
        >>> names("norms")
        ['l2', 'linf']
    """
    # The package is not imported, as `--help` lists names without torch; an imported one may have more folders.
    folder = Path(__file__).parent.joinpath(*kind.split("."))
    folders = getattr(sys.modules.get(f"robusttune.{kind}"), "__path__", [str(folder)])
    return sorted(module.name for module in pkgutil.iter_modules(folders) if not module.name.startswith("_"))


@overload
def find(kind: Literal["norms"], name: "NormLike") -> "Norm": ...
@overload
def find(kind: Literal["attacks"], name: "AttackLike") -> "Attack": ...
@overload
def find(kind: Literal["objectives"], name: str) -> "Callable[..., Objective]": ...
@overload
def find(kind: Literal["tasks"], name: str) -> "Callable[..., Task]": ...
@overload
def find(kind: Literal["corruptions"], name: str) -> "Corruption": ...
@overload
def find(kind: Literal["corruptions"], name: Plugin) -> Plugin: ...
@overload
def find(kind: Literal["augmentations"], name: str) -> "Callable[[Tensor], Augmentation]": ...
@overload
def find(kind: Literal["evaluations"], name: "str | Evaluation") -> "Evaluation": ...
@overload
def find(kind: Literal["measuring.sections"], name: "str | Section") -> "Section": ...
@overload
def find(kind: Literal["trial.arms"], name: "str | Arm") -> "Arm": ...
@overload
def find(kind: Kind, name: object) -> object: ...
def find(kind: Kind, name: object) -> object:
    """Return what the file `name` of the folder `kind` exports; return anything but a string unchanged.

    Raises:
        ValueError: no file has this name; the message lists those that exist.

    Example:
        >>> find("tasks", "rotation")().classes
        4
    """
    if not isinstance(name, str):
        check_object(kind, name)
        return name
    # Each step of an attack asks for its norm, and to list the folder takes as long as a small model.
    loaded = sys.modules.get(f"robusttune.{kind}.{name}")
    if loaded is not None and not name.startswith("_") and name in vars(loaded):
        return vars(loaded)[name]
    known = names(kind)
    if name not in known:
        hint = did_you_mean(name, known)
        raise ValueError(f"unknown {_singular(kind)} {name!r}{hint}: known are {', '.join(known)}; or pass an object")
    return getattr(importlib.import_module(f"robusttune.{kind}.{name}"), name)


def check_object(kind: Kind, given: object) -> None:
    """Raise a ValueError for an object of the user's that lacks what every plug-in of its kind has.

    Example:
        >>> check_object("attacks", len)
        Traceback (most recent call last):
        ValueError: the attack is <built-in function len>, but a function (loss_of, images, threat, *, generator) -> images is needed
    """
    if kind in FORMS and not _is_form(given, FORMS[kind]):
        raise ValueError(f"the {_singular(kind)} is {shown(given)}, but a function {FORMS[kind]} is needed")
    if kind in MEMBERS and (
        kind == "norms" or not isinstance(given, type)
    ):  # a norm may be a class of static functions
        lacking = [member for member in MEMBERS[kind] if not hasattr(given, member)]
        if lacking:
            raise ValueError(
                f"the {_singular(kind)} is {shown(given)}, which has no {' and no '.join(lacking)}: pass one of "
                f"{', '.join(names(kind))}, or an object that has them"
            )


def _is_form(given: object, form: str) -> bool:
    """Return True for a function that can be called with the arguments of a form such as "(images, *, seed) -> labels"."""
    if not callable(given):
        return False
    method = getattr(given, "forward", None)
    if method is not None and "generator" not in form:
        return False  # a model
    try:
        parameters = inspect.signature(given if method is None else method)
    except (TypeError, ValueError):  # some that are written in C do not tell
        return not isinstance(given, type)
    by_place, _, by_name = form.partition(")")[0].strip("(").partition("*, ")
    try:
        parameters.bind(*filter(None, by_place.split(", ")), **dict.fromkeys(filter(None, by_name.split(", "))))
    except TypeError:
        return False
    return True


def _called(kind: Kind, plugin: type) -> object:
    """Make an object of a class without arguments.

    Raises:
        ValueError: that is not possible.
    """
    try:
        return plugin()
    except TypeError as error:
        raise ValueError(
            f"the {_singular(kind)} {plugin.__name__} cannot be made without arguments ({error}): pass an object of that class"
        ) from error


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a hint at the known name that is closest to a misspelt one, for an error; "" if none is close.

    Example:
        >>> did_you_mean("rotations", ["jigsaw", "rotation"]), did_you_mean("xyzzy", ["jigsaw"])
        (" (did you mean 'rotation'?)", '')
    """
    close = get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@overload
def instance(kind: Literal["objectives"], name: "str | Objective | Callable[[], Objective]") -> "Objective": ...
@overload
def instance(kind: Literal["tasks"], name: "str | Task | Callable[[], Task]") -> "Task": ...
def instance(kind: Literal["objectives", "tasks"], name: Any) -> Any:
    """Return an object of a kind that exports classes: a name or a class stands for the class without arguments.

    Raises:
        ValueError: no file has this name.

    Example:
        >>> instance("tasks", "jigsaw").name
        'jigsaw'
    """
    plugin: Any = find(kind, name)
    made = _called(kind, plugin) if isinstance(plugin, type) else plugin
    check_object(kind, made)
    return made


@overload
def configured(kind: Literal["attacks"], name: "AttackLike", /, **settings: object) -> "Attack": ...
@overload
def configured(kind: Literal["evaluations"], name: "str | Evaluation", /, **settings: object) -> "Evaluation": ...
def configured(kind: Literal["attacks", "evaluations"], name: Any, /, **settings: object) -> Any:
    """Return a function of this kind with the settings that are not None.

    Raises:
        ValueError: no file has this name, or the function has no such setting.

    Example:
        >>> configured("attacks", "pgd", steps=3, step_size=None).keywords
        {'steps': 3}
    """
    settings = {key: plain_number(value) for key, value in settings.items() if value is not None}
    function: Any = find(kind, name)
    parameters = inspect.signature(function).parameters if settings else {}
    unknown = [key for key in settings if key not in parameters]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        label = repr(name) if isinstance(name, str) else getattr(name, "__name__", shown(name))
        raise ValueError(f"the {_singular(kind)} {label} takes no {' and no '.join(unknown)}: leave it out")
    return partial(function, **settings) if settings else function


def takes(kind: Literal["attacks", "evaluations"], name: object, setting: str) -> bool:
    """Return True for a function of this kind that has this setting.

    Example:
        >>> takes("attacks", "pgd", "steps"), takes("attacks", "nfgsm", "steps")
        (True, False)
    """
    parameters = inspect.signature(cast("Callable[..., object]", find(kind, name))).parameters
    return setting in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def requires(importing: Callable[[], object]) -> Callable[[Function], Function]:
    """Decorate a plug-in with the function that imports what it needs beyond the core's packages.

    `check_installed` calls that function, so that a missing package is reported before any work is done.
    """

    def decorated(plugin: Function) -> Function:
        vars(plugin)["installed"] = importing
        return plugin

    return decorated


def check_installed(kind: Literal["attacks", "evaluations"], name: object) -> None:
    """Import what a plug-in needs beyond the core's packages, where it says so by `requires`.

    Raises:
        ImportError: a package is missing.
    """
    plugin: object = find(kind, name)
    while isinstance(plugin, partial):
        if "attack" in plugin.keywords:
            check_installed("attacks", plugin.keywords["attack"])
        plugin = plugin.func
    installed: Callable[[], object] | None = getattr(plugin, "installed", None)
    if installed is not None:
        installed()


def _singular(kind: Kind) -> str:
    """Return the word for one plug-in of a kind: the last part of its path, without the s."""
    return kind.rpartition(".")[2].removesuffix("s")


def one_of(name: str, value: object, allowed: tuple[Word, ...]) -> Word:
    """Return the value if it is one of the allowed words.

    Raises:
        ValueError: it is not; the message lists the allowed words.

    Example:
        >>> one_of("tune", "off", ("on", "off"))
        'off'
    """
    for word in allowed:
        if isinstance(value, str) and value == word:
            return word
    raise ValueError(f"{name} is {shown(value)}, but it must be one of {', '.join(map(repr, allowed))}")
