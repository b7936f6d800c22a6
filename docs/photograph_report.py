"""Takes the pictures in docs/report.md of a report in headless Chromium, with a number at each part.

python examples/quickstart.py
python docs/photograph_report.py runs/quickstart/report.html
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

DOCS = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, TALLEST = 860, 6000
NUMBERS = """<style>
body { counter-reset: part %d; font-family: "DejaVu Sans", sans-serif; }
h2::before { counter-increment: part; content: counter(part); background: #b3261e; color: #fff; border-radius: 1em;
  display: inline-block; min-width: 1.5em; text-align: center; margin-right: .5em; font-size: .9em; }
</style>"""
FIRST_FOLDED = "<details><summary>"


def folded(page: str) -> str:
    """The page as it opens, with numbers from 1."""
    return page.replace("</head>", NUMBERS % 0 + "</head>")


def unfolded(page: str) -> str:
    """The details alone, unfolded and without cost and words; their numbers go on from those of the parts above."""
    head, body = page.split("<body>")
    above, first, details = body.partition(FIRST_FOLDED)
    details = (
        (first + details).replace("<details>", "<details open>").partition('<details open><summary><h2 id="cost">')[0]
    )
    head = head.replace("</head>", NUMBERS % len(re.findall("<h2", above)) + "</head>")
    return f"{head}<body>{details}"


def photograph(page: str, path: Path) -> None:
    """Write a picture of an HTML page, without the empty rows below it."""
    browser = next(found for name in BROWSERS if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder:
        source, taken = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, encoding="utf-8")
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{TALLEST}",
        ]
        subprocess.run([browser, *options, f"--screenshot={taken}", source.as_uri()], check=True, capture_output=True)
        picture = Image.open(taken).convert("RGB")
    filled = ImageChops.difference(picture, Image.new("RGB", picture.size, picture.getpixel((0, 0)))).getbbox()
    cropped = picture.crop((0, 0, picture.width, min(picture.height, filled[3] + 20)))
    # Few colours without loss: text stays sharp, and the file is smaller than with loss.
    cropped.quantize(160, dither=Image.Dither.NONE).convert("RGB").save(path, lossless=True, quality=100, method=6)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="the report.html")
    page = parser.parse_args().report.read_text(encoding="utf-8")
    photograph(folded(page), DOCS / "report.webp")
    photograph(unfolded(page), DOCS / "report-details.webp")


if __name__ == "__main__":
    main()
