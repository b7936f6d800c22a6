"""Tables are Markdown, and aligned where they are printed."""

from robusttune.run.markdown import markdown_table


def test_columns_are_aligned_whatever_is_in_them():
    table = markdown_table(["name", "n"], [["ä", 1], ["猫", 22], ["e\u0301", 333], ["a|b", ""]], right=[0])
    assert table.splitlines() == [
        "| name | n   |",
        "|------|-----|",
        "|    ä | 1   |",
        "|   猫 | 22  |",
        "|    e\u0301 | 333 |",
        r"| a\|b |     |",
    ]


def test_a_last_column_that_would_wrap_is_not_padded():
    long = "words " * 30
    first, _, *rows = markdown_table(["a", "what"], [[1, "short"], [2, long]]).splitlines()
    assert (first, rows[0]) == ("| a | what |", "| 1 | short |")
    assert rows[1].strip("| ").endswith("words")
