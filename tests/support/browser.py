"""A page in headless Chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
A4 = 718  # CSS pixels between the margins
MEASURE = """
<iframe id="page" style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe><pre id="found"></pre>
<script>
window.onload = () => {{
  const shown = document.getElementById("page").contentDocument;
  const pictures = [...shown.images].map(each => [each.naturalWidth, each.getBoundingClientRect().right]);
  const facts = {{wide: shown.documentElement.scrollWidth, pictures, height: shown.documentElement.scrollHeight}};
  document.getElementById("found").textContent = "FOUND" + JSON.stringify(facts) + "END";
}};
</script>
"""


def browsed(*arguments):
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def shown_in(page, width, folder):
    """What a browser makes of a page (its text) in a window so wide."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE.format(width=width, page=html.escape(page, quote=True)), encoding="utf-8")
    shown = browsed("--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom", wrapper.as_uri())
    return json.loads(re.search(r"FOUND(.*)END", shown)[1])
