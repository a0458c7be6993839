"""Executes the notebook again, so that its outputs are those of the embedded model that ships.

python docs/execute_notebook.py
"""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = Path(__file__).parent / "notebook.ipynb"
# A picture is shown everywhere, and is smaller than the data and script of a chart.
PICTURES = "import altair; altair.renderers.enable('png')"


def main() -> None:
    """Write the outputs of all cells but the one that installs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    run = copy.copy(notebook)
    run.cells = [nbformat.v4.new_code_cell(PICTURES), *cells]
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(run, kernel_name="python3", resources=where).execute()
    for cell in cells:
        cell.metadata.pop("execution", None)  # times
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
