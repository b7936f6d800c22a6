"""Writes the search index as a script, too, so that search works on pages from the disk (docs/offline.js): a hook of mkdocs.yml."""

from pathlib import Path
from typing import Any


def on_post_build(config: Any, **kwargs: Any) -> None:
    """Write search/search_index.js beside search_index.json."""
    index = Path(config["site_dir"], "search", "search_index.json")
    script = f"var __search = {{index: Promise.resolve({index.read_text(encoding='utf-8')})}}\n"
    index.with_suffix(".js").write_text(script, encoding="utf-8")
