"""Writes docs/glossary.md from the words that reports explain: `python docs/write_glossary.py`."""

import re
from pathlib import Path

from robusttune.measuring.glossary import WORDS

PAGE = Path(__file__).parent / "glossary.md"
HEAD = """# Glossary

Terms of this library, its reports and its pages. The pages of a trial end with the terms that they use.

| term | meaning |
|---|---|
"""


def glossary() -> str:
    """Return the page."""
    lines = (
        f'| <a id="{anchor(word)}"></a>{word} | {meaning[0].upper()}{meaning[1:]} |\n'
        for word, meaning in WORDS.items()
    )
    return HEAD + "".join(lines)


def anchor(word: str) -> str:
    """Return the place of a term on the page, such as holms-correction."""
    return re.sub(r"[^a-z0-9]+", "-", word.lower().replace("'", ""))


if __name__ == "__main__":
    PAGE.write_text(glossary(), encoding="utf-8")
