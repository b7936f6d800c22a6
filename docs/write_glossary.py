"""Writes docs/glossary.md from the words that reports explain: `python docs/write_glossary.py`."""

from pathlib import Path

from robusttune.measuring.glossary import WORDS

PAGE = Path(__file__).parent / "glossary.md"
HEAD = """# Words

What the words of this library, its reports and its pages mean. The pages of a trial end in those that they use.

| word | meaning |
|---|---|
"""


def glossary() -> str:
    """Return the page."""
    return HEAD + "".join(f"| {word} | {meaning[0].upper()}{meaning[1:]} |\n" for word, meaning in WORDS.items())


if __name__ == "__main__":
    PAGE.write_text(glossary(), encoding="utf-8")
