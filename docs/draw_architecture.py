"""Draws the packages and their layers from their imports, and counts the core reading path: `python docs/draw_architecture.py`.

A package stands below all that it imports. The picture is text (SVG), so that a test can tell when it is out of date.
"""

import ast
import html
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "robusttune"
PICTURE, PAGE = ROOT / "docs" / "architecture.svg", ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- core path -->\n", "<!-- end -->"
CORE_PATH = {
    "training/harden.py": "arguments into groups, the run from its start to its end",
    "training/setup.py": "from the groups to the first step",
    "training/loop.py": "epochs and batches",
    "training/step.py": "one optimiser step",
    "training/robust_loss.py": "the loss of one batch",
    "attacks/pgd.py": "an attack",
    "objectives/adversarial.py": "an objective",
    "tasks/rotation.py": "a pretext task",
    "threat.py": "the adversary, and the loss that it maximises",
}
BOX, GAP, HEIGHT, LEFT = 280, 14, 80, 16
PER_ROW = 3
WIDTH = 42  # letters in a line of a box
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 11px; fill: #1d2b2a }
.name { font-size: 14px; font-weight: 600 }
.kind { fill: #d9efe9; stroke: #2f7d6d } .machinery { fill: #eceff3; stroke: #66717f }
.layer { fill: #66717f }
"""


def packages() -> dict[str, list[Path]]:
    """List the files of each package, and of each module beside the packages, by name."""
    files: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).parts
        name = place[0] if len(place) > 1 else path.stem
        if name != "__init__":
            files.setdefault(name, []).append(path)
    return files


def imports(path: Path) -> set[str]:
    """Return the packages of robusttune that a file imports when it runs, at the top or inside a function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checked = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    skipped = {id(inner) for node in checked for inner in ast.walk(node)}
    names = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and id(node) not in skipped
            and (node.module or "").startswith("robusttune")
        ):
            names += [f"{node.module}.{alias.name}".split(".")[1] for alias in node.names]
    return set(names)


def layers(files: dict[str, list[Path]]) -> list[list[str]]:
    """Sort the packages into rows: each one stands in the first row below all that it imports."""
    needs = {name: set().union(*map(imports, paths)) & files.keys() - {name} for name, paths in files.items()}
    depth: dict[str, int] = {}
    while len(depth) < len(needs):
        ready = [name for name in needs if name not in depth and needs[name] <= depth.keys()]
        if not ready:
            raise ValueError(f"these import each other: {', '.join(sorted(needs.keys() - depth.keys()))}")
        depth |= {name: max((depth[need] + 1 for need in needs[name]), default=0) for name in ready}
    return [sorted(name for name in depth if depth[name] == row) for row in range(max(depth.values()) + 1)]


def is_kind(name: str) -> bool:
    """Return True if a package is a kind that is extended by adding one file: a plural folder."""
    return name.endswith("s") and (PACKAGE / name).is_dir()


def summary(name: str, files: list[Path]) -> list[str]:
    """Return up to three short lines on a package: the first sentence of its docstring, for a kind only the beginning."""
    init = PACKAGE / name / "__init__.py"
    source = (init if init.exists() else files[0]).read_text(encoding="utf-8")
    line = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
    sentence = line.split(", one file each")[0].split(". ")[0].rstrip(".").replace("`", "")
    return textwrap.wrap(sentence, WIDTH, max_lines=3, placeholder=" …")


def picture() -> str:
    """Draw the picture as SVG."""
    files = packages()
    boxes, top = [], 28
    for number, row in enumerate(layers(files), 1):
        boxes.append(f'<text class="layer" x="{LEFT}" y="{top - 6}">layer {number}</text>')
        for place, name in enumerate(row):
            x, y = LEFT + place % PER_ROW * (BOX + GAP), top + place // PER_ROW * (HEIGHT + GAP)
            kind = "kind" if is_kind(name) else "machinery"
            boxes.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{BOX}" height="{HEIGHT}" rx="6"/>')
            shown = [f"{name}/" if (PACKAGE / name).is_dir() else f"{name}.py", *summary(name, files[name])]
            for line, text in enumerate(shown):
                style = ' class="name"' if line == 0 else ""
                boxes.append(f'<text{style} x="{x + 10}" y="{y + 20 + 17 * line}">{html.escape(text)}</text>')
        top += -(-len(row) // PER_ROW) * (HEIGHT + GAP) + 22
    width = LEFT * 2 + PER_ROW * (BOX + GAP) - GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top - 10}" role="img">'
    title = "<title>The packages of robusttune in layers; green: kinds, grey: machinery</title>"
    background = f'<rect width="{width}" height="{top - 10}" fill="#ffffff"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style>", background, *boxes, "</svg>\n"])


def length(path: Path) -> int:
    """Count the lines of a file that are not blank."""
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


def core_path() -> str:
    """Return the table of the core reading path."""
    counts = {name: length(PACKAGE / name) for name in CORE_PATH}
    rows = [f"| `{name}` | {content} | {counts[name]} |" for name, content in CORE_PATH.items()]
    return "\n".join(
        ["| file | holds | lines |", "|---|---|---|", *rows, f"| together | | {sum(counts.values())} |", ""]
    )


def page() -> str:
    """Return the page with a new table."""
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}{core_path()}{END}{after}"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
