"""HTML pages of reports, with style and pictures inside one file, and HTML tables for notebooks."""

import base64
import re
from collections.abc import Collection, Iterable, Sequence
from html import escape
from pathlib import Path

LINKS = (*("reference", "link", "short_reference", "autolink", "automail", "image_reference", "short_image_ref"),)
LONG = 30  # letters of a word
STYLE = """
:root { color-scheme: light dark; --text: #1c1c1c; --page: #fff; --line: #ddd; --shade: #f4f4f4; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; margin: 1rem 0; } img { max-width: 100%; height: auto; background: #fff; }
table { border-collapse: collapse; font-size: .9rem; } th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; }
th { background: var(--shade); } pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--shade); padding: .4rem; }
summary { cursor: pointer; margin-top: 1rem; border-bottom: 1px solid var(--line); } summary h2 { display: inline; border: 0; }
@page { size: A4; margin: 14mm; }
@media screen and (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #181a1b; --line: #4a4d50; --shade: #2a2d2f; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; line-height: 1.35; } h1 { font-size: 16pt; } h2 { font-size: 12pt; margin-top: 1rem; }
  .wide { overflow: visible; margin: .5rem 0; } table { font-size: 8pt; } img { max-height: 20cm; } img[alt*="against the radius"] { max-height: 9cm; } th, .long { overflow-wrap: anywhere; } img, tr { break-inside: avoid; } thead { display: table-header-group; }
  h2, h3, summary, p:has(+ .wide), p:has(+ p > img) { break-after: avoid; } summary { list-style: none; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
}
"""


def page(
    markdown: str, folder: Path, *, title: str = "Robustness report", style: str = "", folded: Collection[str] = ()
) -> str:
    """Convert a report from Markdown to self-contained HTML; pictures of the folder are embedded.

    Args:
        markdown: the report.
        folder: the folder of its pictures.
        title: the title of the page.
        style: more CSS, after that of all pages.
        folded: titles of second-level headings whose text a reader unfolds; it is always printed.

    Raises:
        ImportError: the package that reads Markdown is not installed.
    """
    try:
        from markdown import Markdown
    except ImportError as error:
        raise ImportError("an HTML report needs the package markdown: pip install 'robusttune[report]'") from error
    converter = Markdown(extensions=["tables", "toc", "sane_lists", "fenced_code"])
    # Users choose the names, such as <lambda>: they are text, not HTML.
    converter.preprocessors.deregister("html_block")
    for pattern in ("html", *LINKS):  # the pages have no links, so that one can only have come with a name
        converter.inlinePatterns.deregister(pattern)
    body = re.sub(r"<img [^>]*>", lambda match: _shown(match[0], folder), converter.convert(markdown))
    body = re.sub(r"<td([^>]*)>(.*?)</td>", _cell, body, flags=re.DOTALL)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    body = "".join(_unfoldable(part, folded) for part in re.split(r"(?=<h2[ >])", body))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{STYLE}{style}</style></head>\n<body>\n{body}\n</body></html>\n'


def html_table(
    head: Sequence[object], rows: Iterable[Sequence[object]], *, right: Collection[int] = (), below: str | None = None
) -> str:
    """Format a table as HTML, in which names that came from elsewhere are text.

    Args:
        head, rows: the cells.
        right: the columns, counted from 0, whose cells end at the right, instead of beginning at the left.
        below: a sentence below the table; None for none.

    Example:
        >>> html_table(["name"], [["<b>"]])
        '<table><thead><tr><th style="text-align: left">name</th></tr></thead><tbody><tr><td style="text-align: left">&lt;b&gt;</td></tr></tbody></table>'
    """

    def line(cells: Sequence[object], tag: str) -> str:
        sides = ("right" if column in right else "left" for column in range(len(cells)))
        shown = (
            f'<{tag} style="text-align: {side}">{_text(cell)}</{tag}>' for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{''.join(shown)}</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    end = "" if below is None else f"<p>{_text(below)}</p>"
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>{end}"


def _text(value: object) -> str:
    """Return what a value prints, as text in HTML; characters that cannot be printed are blanks."""
    return escape("".join(each if each.isprintable() else " " for each in str(value)))


def _cell(cell: re.Match[str]) -> str:
    """Mark a cell with a long word, which breaks on paper; in other cells that would take numbers apart."""
    words = re.sub(r"<[^>]*>", "", cell[2]).split()
    return f'<td{cell[1]} class="long">{cell[2]}</td>' if max(map(len, words), default=0) > LONG else cell[0]


def _unfoldable(part: str, folded: Collection[str]) -> str:
    """Return a part of the page, from a heading to the next, as one that a reader unfolds, if its title is among these."""
    heading = re.match(r"<h2[^>]*>([^<]*)</h2>", part)
    if heading is None or heading[1] not in folded:
        return part
    return f"<details><summary>{heading[0]}</summary>\n{part[heading.end() :]}\n</details>\n"


def _shown(image: str, folder: Path) -> str:
    """Embed a picture of the folder itself; of any other, such as one that came with a name, only its words are shown."""
    source, words = (re.search(rf'{name}="([^"]*)"', image) for name in ("src", "alt"))
    file = source[1] if source else ""
    if not re.fullmatch(r"[\w-]+\.(png|jpg)", file) or not (folder / file).is_file():
        return words[1] if words else ""
    return image.replace(f'src="{file}"', f'src="{_embedded(folder / file)}"')


def _embedded(path: Path) -> str:
    """Return a picture as a data URL."""
    kind = {"jpg": "jpeg"}.get(path.suffix[1:], path.suffix[1:])
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
