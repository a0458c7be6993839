"""Submissions in the form of older releases, which had neighbours instead of hits."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from xlt_bench.results.run_folder import write_layer
from xlt_bench.submissions.rescore import layer_digest
from xlt_bench.submissions.safe_read import read_layer
from xlt_bench.submissions.schema import identity
from xlt_bench.submissions.validate import open_package


def with_neighbours(folder: Path, run: Path) -> Path:
    """Give a submission the neighbours of its run, and the id that they give it."""
    plan = open_package(folder).record.plan
    about = json.loads((folder / "submission.json").read_text())
    shutil.rmtree(folder / "retrieval")
    shutil.copytree(run / "retrieval", folder / "retrieval")
    for path in (folder / "retrieval").iterdir():
        layer = int(path.stem.rpartition("-")[2])
        found = read_layer(path, plan.units["retrieval"])[:2]
        about["contents"][f"retrieval/{layer}"] = layer_digest(*found)
    (folder / "accuracies.parquet").unlink()
    del about["retrieval"], about["artifacts"]
    about["id"] = about["id"][:-21] + identity(plan, about["contents"])
    (folder / "submission.json").write_text(json.dumps(about))
    return folder.rename(folder.with_name(about["id"]))


def expanded(folder: Path, copy: Path) -> Path:
    """Copy a submission with neighbours for hits; a miss becomes the next sentence."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    for path in (copy / "retrieval").glob("*.parquet"):
        table = {}
        for row in pq.read_table(path).to_pylist():
            n = row["sentences"]
            bits = "".join(f"{byte:08b}" for byte in row["hits"])[:n]
            own = np.arange(n)
            hit = np.array([bit == "1" for bit in bits])
            table[row["source"], row["target"]] = np.where(hit, own, (own + 1) % n).tolist()
        write_layer(path, table)
    return copy
