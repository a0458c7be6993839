"""Test that the notebook of the docs runs from its first cell to its last."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
# In place of the cell tagged `parameters`.
SMALL = """
import xlt_bench

MODEL, DATA, WORK = "embedded", "mini", "notebook"
STEPS, LIMIT, LANGUAGES = 2, 2, ["en", "de"]
"""


@pytest.mark.slow
def test_the_notebook_runs_and_ends_with_a_chart_of_gains(tmp_path, monkeypatch):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert len(notebook.cells) <= 10
    assert NOTEBOOK.stat().st_size < 100_000  # its outputs are small
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert tags.count(["install"]) == tags.count(["parameters"]) == 1
    given = notebook.cells[tags.index(["parameters"])]
    given.source = SMALL
    del notebook.cells[tags.index(["install"])]
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()

    assert sorted(path.name for path in (tmp_path / "notebook").iterdir()) == [
        "adapter",
        "bare",
        "mine",
    ]
    (chart,) = (out.data for out in notebook.cells[-1].outputs if "data" in out)
    drawn = set(re.findall(r'{"unit": "(\w+)", "setting": "([\w ]+)"', chart["text/html"]))
    both = {("en", "no setting"), ("de", "no setting")}  # retrieval
    assert drawn == {("en", "supervised"), ("de", "transfer"), *both}
