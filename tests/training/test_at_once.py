"""Two processes with one output at once: the second is refused, and the first one's files stay."""

from pathlib import Path

import pytest

from xlt_bench.errors import InputError
from xlt_bench.models import load
from xlt_bench.training.merge import MergeOptions, merge


def test_an_adapter_written_while_others_are_merged_stays(
    tiny_model: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "merged"
    load_base = load.load_base

    def later(*words: object) -> object:
        output.mkdir(exist_ok=True)
        (output / "README.md").write_text("of another process")
        return load_base(*words)

    monkeypatch.setattr(load, "load_base", later)
    options = MergeOptions(str(tiny_adapter), str(tiny_adapter), output, model=str(tiny_model))
    with pytest.raises(InputError, match="is not empty; choose another --output"):
        merge(options)
    assert [path.name for path in output.iterdir()] == ["README.md"]
    assert (output / "README.md").read_text() == "of another process"
