"""What the site needs to read this library's docstrings as Google's: an extension of griffe, used by mkdocs.yml."""

import re
from typing import Any

import griffe

LINKED = {  # names in the text that lead to their own place in the reference
    "harden": "robusttune.training.harden.harden",
    "RobustLoss": "robusttune.training.robust_loss.RobustLoss",
    "evaluate": "robusttune.measuring.evaluate.evaluate",
    "load_heads": "robusttune.tasks._heads.load_heads",
    "Recipe": "robusttune.training.recipe.Recipe",
    "pretrain": "robusttune.training.pretrain.pretrain",
    "poc": "robusttune.trial.poc.poc",
}
ENTRY = re.compile(r"^( *)(\w+(?:,\s+\w+)+): ((?:.*)(?:\n\1 +.*)*)", re.MULTILINE)
SECTION = re.compile(r"^(?:Args|Attributes):\n(?:(?:    .*)?\n?)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Names that share an entry get one each, sources become a paragraph, examples a section, and names links."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """The docstring in the words that griffe knows."""
    text = SECTION.sub(lambda section: ENTRY.sub(_one_each, section[0]), text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = re.sub(r"^Source: ", "**Source**: ", text, flags=re.MULTILINE)
    text = re.sub(r"(?<!\[)\barXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    text = re.sub(r"`(\w+)`", lambda name: f"[{name[0]}][{LINKED[name[1]]}]" if name[1] in LINKED else name[0], text)
    return re.sub(r"(?<!\[)\bdoi:(10\.\S+[\w\d])", r"[doi:\1](https://doi.org/\1)", text)


def _one_each(entry: re.Match[str]) -> str:
    """What several names share, once for each of them."""
    indent, names, words = entry.groups()
    return "\n".join(f"{indent}{name}: {words}" for name in re.findall(r"\w+", names))
