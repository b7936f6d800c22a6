"""Writes examples/tutorial.ipynb from examples/tutorial.py, whose cells begin with `# %%`, and runs it: `python docs/write_notebook.py`.

It needs `pip install nbclient ipykernel`.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "tutorial.ipynb"
NEEDED = ("photographs.py", "pictures.py", "study")
MARK, WORDS = "# %%", " [markdown]"
PLACE = re.compile(r"\S*ipykernel_\d+\S*:\d+: ")  # of a warning: a file that is not there any more


def cells() -> list[nbformat.NotebookNode]:
    """The cells of the script in order, without outputs."""
    text = (EXAMPLES / "tutorial.py").read_text(encoding="utf-8")
    made = []
    for number, part in enumerate(text.split(MARK)[1:]):
        first, _, body = part.partition("\n")
        body = body.strip("\n")
        if first == WORDS:
            cell = nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", body, flags=re.MULTILINE))
        else:
            cell = nbformat.v4.new_code_cell(body)
        cell["id"] = f"cell-{number}"  # the same in every version, so that differences show what has changed
        made.append(cell)
    return made


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    for name in NEEDED:
        copy = shutil.copytree if (EXAMPLES / name).is_dir() else shutil.copy
        copy(EXAMPLES / name, folder / name)
    notebook = nbformat.v4.new_notebook(cells=cells())
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    # Without ipywidgets, bars are text, which shows on sites, too; tqdm warns of that.
    client.execute(env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress not found"})
    tidy(notebook)
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take out, in place, what would differ in each version: times, and the places of warnings."""
    notebook.metadata.pop("language_info", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = PLACE.sub("", output.text)


def main() -> None:
    """Write the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
