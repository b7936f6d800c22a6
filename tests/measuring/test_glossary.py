"""The words of reports: found in every form, in order, and on the page of the documentation."""

import importlib.util
from pathlib import Path

import pytest

from robusttune.measuring.glossary import WORDS, explained

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_documentation_has_them_as_they_are():
    spec = importlib.util.spec_from_file_location("write_glossary", DOCS / "write_glossary.py")
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert (DOCS / "glossary.md").read_text(encoding="utf-8") == writer.glossary()


def test_they_are_in_alphabetical_order_and_each_is_a_sentence():
    assert list(WORDS) == sorted(WORDS, key=str.lower)
    assert all(meaning.endswith(".") and not meaning.startswith(" ") for meaning in WORDS.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Accuracies under attacks", ["accuracy", "attack"]),
        ("two pretext tasks and their losses", ["loss", "pretext task"]),
        ("self training, held out", ["held-out", "self-training"]),
        ("APGD at two radii", ["APGD", "radius"]),
        ("`attack` in robusttune.attack", []),  # code is not prose
        ("armour and charm, spot and looking glass", []),
        ("McNemar's test, Student's t, N-FGSM", ["McNemar's test", "N-FGSM", "Student's t"]),
    ],
)
def test_words_are_found_in_their_forms(text, found):
    assert list(explained(text)) == found
