"""Overlap with test sets, against a search for each item's text written here."""

from pathlib import Path

from xlt_bench.data.root import MINI
from xlt_bench.tasks.registry import get_task
from xlt_bench.training.overlap import holds_flores, notes, overlaps


def test_items_are_found_whole_and_in_part() -> None:
    german, japanese = (get_task("retrieval").load(MINI, code) for code in ("de", "ja"))
    assert all(len(text.split()) >= 4 for text in german[:3])
    loud = german[0].upper().replace(" ", " , ")  # case, punctuation and space do not matter
    found = overlaps(MINI, [("de", f"Vorher. {loud} Nachher."), ("de", german[1])])
    assert found["retrieval/de"] == 2
    assert found["massive/de"] == 0
    assert "intents/de" not in found  # the same sentences
    assert not any(name.endswith("/ja") for name in found)
    # Of a longer item, fewer than 8 words in common do not count.
    words = next(text for text in german if len(text.split()) > 8).split()
    assert overlaps(MINI, [("de", " ".join(words[:7]))])["retrieval/de"] == 0
    # Without spaces, characters count.
    assert overlaps(MINI, [("ja", f"。{japanese[0]}。")])["retrieval/ja"] == 1
    assert overlaps(MINI, [("ja", japanese[0][:9])])["retrieval/ja"] == 0


def test_items_of_every_text_task_are_found() -> None:
    for name, unit, code in (
        ("massive", "es", "es"),
        ("uner", "pt", "pt"),
        ("wmt23", "en-de", "de"),
    ):
        task = get_task(name)
        items = task.load(MINI, unit)
        texts = [item.target if name == "wmt23" else task.sentence(item) for item in items]  # type: ignore[attr-defined]
        long = [text for text in texts if len(text.split()) >= 4]
        found = overlaps(MINI, ((code, text) for text in texts))
        assert len(long) <= found[f"{name}/{unit}"] <= len(items)
        assert long


def test_alma_contains_flores(data_dir: Path) -> None:
    """ALMA's authors say so; Tatoeba's Welsh does not."""
    from xlt_bench.data import alma, tatoeba

    german = [("de", row.source) for row in alma.load_train(data_dir, "de-en")]
    found = overlaps(data_dir, german)
    assert found["retrieval/de"] == 997
    assert holds_flores(found)
    assert "997 of retrieval/de" in notes(found)[0]
    welsh = overlaps(data_dir, (("cy", text) for text, _ in tatoeba.load_challenge(data_dir, "cy")))
    assert welsh["retrieval/cy"] < 3
    assert not holds_flores(welsh)


def test_without_data_nothing_is_compared(tmp_path: Path) -> None:
    assert overlaps(tmp_path, [("de", "Das ist ein Satz mit acht oder mehr Wörtern.")]) == {}
    assert notes({}) == []
