"""A user's own task: chats by language."""

import json
from pathlib import Path
from typing import Any

import pytest

from xlt_bench.data.chats import Chat, load
from xlt_bench.errors import InputError


def message(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_the_last_answer_is_learned(tmp_path: Path) -> None:
    rows = [
        {"language": "swh_Latn",
         "messages": [message("user", "Habari?"), message("assistant", "A")]},
        {"language": "de", "id": 7, "messages": [
            message("system", "S"), message("user", "1"), message("assistant", "2"),
            message("user", "3"), message("assistant", "4") | {"name": "x"},
        ]},
    ]  # fmt: skip
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert load(path) == [
        Chat("sw", [message("user", "Habari?")], "A"),
        Chat("de", rows[1]["messages"][:4], "4"),  # type: ignore[index]
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], 'needs a "language"'),
        ({"messages": []}, 'needs a "language"'),
        ({"language": "xx", "messages": []}, "line 1: unknown language 'xx'"),
        ({"language": "de"}, 'needs "messages"'),
        ({"language": "de", "messages": [message("bot", "x")]}, 'needs "messages"'),
        ({"language": "de", "messages": [message("user", 1)]}, 'needs "messages"'),
        ({"language": "de", "messages": [message("user", "x")]}, "must end with one of the user"),
        ({"language": "de", "messages": [message("assistant", "x")]}, "must end with one of the"),
        ({"language": "de", "messages": []}, "must end with one of the user"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, row: Any, said: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(InputError) as error:
        load(path)
    assert "train.jsonl line 1" in str(error.value)
    assert said in str(error.value)
