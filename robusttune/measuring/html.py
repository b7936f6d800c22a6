"""HTML pages of reports, with style and pictures inside one file."""

import base64
import re
from pathlib import Path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2rem; border-bottom: 1px solid #ddd; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .9rem; } th, td { border: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }
th { background: #f4f4f4; } pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: .4rem; }
@media print {
  body { max-width: none; } .wide { overflow: visible; } img, tr { break-inside: avoid; } thead { display: table-header-group; }
  h2, p:has(+ .wide), p:has(+ p > img) { break-after: avoid; }
}
"""


def page(markdown: str, folder: Path, *, title: str = "Robustness report", style: str = "") -> str:
    """Convert a report from Markdown to self-contained HTML; pictures of the folder are embedded.

    Args:
        markdown: the report.
        folder: of its pictures.
        title: of the page.
        style: more CSS, after that of all pages.

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
    converter.inlinePatterns.deregister("html")
    body = converter.convert(markdown)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'src="([^":]+\.(png|jpg))"', lambda match: f'src="{_embedded(folder / match[1])}"', body)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{STYLE}{style}</style></head>\n<body>\n{body}\n</body></html>\n'


def _embedded(path: Path) -> str:
    """Return a picture as a data URL."""
    kind = {"jpg": "jpeg"}.get(path.suffix[1:], path.suffix[1:])
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
