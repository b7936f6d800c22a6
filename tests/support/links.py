"""Opens every link of README.md, CONTRIBUTING.md and docs/ to other places, and names those that do not answer: needs the internet.

python tests/support/links.py
"""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((https://[^)\s]+)\)")
SECONDS = 20


def links() -> dict[str, list[str]]:
    """The pages of each link."""
    found: dict[str, list[str]] = {}
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            found.setdefault(link, []).append(str(page.relative_to(ROOT)))
    return found


def fault(link: str) -> str | None:
    """Return why a link does not answer, or None."""
    try:
        with urlopen(Request(link, headers={"User-Agent": "robusttune links"}), timeout=SECONDS):
            return None
    except HTTPError as error:
        return f"HTTP {error.code}"
    except (URLError, TimeoutError) as error:
        return str(error)


def main() -> int:
    """Print the links that do not answer; return 1 if there are any."""
    known = links()
    with ThreadPoolExecutor(8) as pool:
        faults = {link: why for link, why in zip(known, pool.map(fault, known), strict=True) if why is not None}
    for link, why in faults.items():
        print(f"{link}: {why} ({', '.join(known[link])})")
    print(f"{len(known) - len(faults)} of {len(known)} links answer")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
