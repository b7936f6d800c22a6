"""Laws and standards that the section for auditors refers to, read from `standards.json`, the one file that holds them."""

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

Texts: TypeAlias = dict[str, Any]  # values of JSON, as readers index them

PATH = Path(__file__).with_name("standards.json")


@cache
def standards() -> Texts:
    """Return the content of `standards.json`: for each text its title, date and source, and its words."""
    content: Texts = json.loads(PATH.read_text(encoding="utf-8"))
    return content
