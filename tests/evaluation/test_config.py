"""What a command asks for: the units of each task, and what is left out of it."""

from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.evaluation.config import Options, plan_units, prepare

FEW = "needs at least two languages, and has only"
NOTHING = {
    ("retrieval", "en"): [f"retrieval {FEW} en of those chosen"],
    ("retrieval", "de,deu_Latn"): [f"retrieval {FEW} de of those chosen"],
    ("massive", "yo"): ["massive has no unit for yo"],
    ("wmt23", "en"): ["wmt23 has no unit for en"],
    ("uner,retrieval", "yor_Latn"): ["uner has no unit for yo", f"retrieval {FEW} yo of those"],
}
NOTES = {
    ("massive,wmt23,retrieval", "de,swh_Latn"): ["wmt23 has no unit for sw"],
    ("massive,uner", "de,sw"): ["uner is left out: it has no unit for de sw"],
    ("massive,wmt23,retrieval", "de"): [f"retrieval is left out: it {FEW} de of those chosen"],
    ("wmt23,retrieval", "de,en"): [],  # en is a side of each direction
}


def options(tasks: str, languages: str, data: Path, output: Path, shard: str | None = None):
    return Options(
        model="embedded",
        tasks=tasks.split(","),
        languages=languages.split(","),
        data_dir=str(data),
        output=output,
        shard=shard,
    )


@pytest.mark.parametrize("asked", NOTHING)
def test_nothing_to_evaluate_is_said_with_its_reason(asked, made_up_root, tmp_path):
    with pytest.raises(InputError) as found:
        plan_units(options(*asked, made_up_root, tmp_path / "run"))
    for reason in NOTHING[asked]:
        assert reason in str(found.value)
    assert "change --languages" in str(found.value)


@pytest.mark.parametrize("shard", [None, "1/2", "2/2"])
@pytest.mark.parametrize("asked", NOTES)
def test_what_is_left_out_is_noted_in_every_shard(asked, shard, made_up_root, tmp_path):
    request = prepare(options(*asked, made_up_root, tmp_path / "run", shard))
    assert request.left_out == NOTES[asked]


def test_no_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="--tasks names no task; choose from massive, wmt23"):
        plan_units(Options(model="embedded", tasks=[], output=tmp_path))
