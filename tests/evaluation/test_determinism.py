"""The same command gives the same bytes, and its record says what that rests on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("xlt-bench")
COMMAND = (
    "evaluate --model embedded --adapter embedded:aligned --tasks massive,uner,retrieval "
    "--languages de,en,sw --limit 2 --layers 2,4 --data-dir mini --output"
).split()


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", "1"), ("two", "2")):
        # Nothing may hang on the order of a set.
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        words = [PROGRAM, *COMMAND, tmp_path / name]
        subprocess.run(words, env=environment, check=True, capture_output=True)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for folder in ("predictions", "retrieval")
            for path in sorted((tmp_path / name / folder).rglob("*.*"))
        }
        for name in ("one", "two")
    )
    assert len(one) == 3 + 1 + 2  # MASSIVE, UNER (English alone), layers
    assert one == two
    records = [json.loads((tmp_path / name / "record.json").read_text()) for name in ("one", "two")]
    of_the_run = ("created", "command", "seconds")
    first, second = ({k: v for k, v in r.items() if k not in of_the_run} for r in records)
    assert first == second
    stated = first["hardware"]
    assert (stated["threads"], stated["deterministic_algorithms"]) == ("1", "false")
    assert stated["cpu_kernels"]
    assert set(first["batch_sizes"].values()) == {"32"}
