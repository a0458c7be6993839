"""IWSLT 2017's files, made up in the layout of the published ones."""

from pathlib import Path

import pytest

from xlt_bench.data.iwslt import load_train
from xlt_bench.errors import InputError

HEAD = (
    "<url>http://www.ted.com/talks/x</url>\n<keywords>{0}</keywords>\n<speaker>A B</speaker>\n"
    "<talkid>1</talkid>\n<title>{0}</title>\n<description>{0}</description>\n"
)
END = "<reviewer></reviewer>\n<translator>C</translator>\n"


def test_tags_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "iwslt2017" / "de-en"
    folder.mkdir(parents=True)
    texts = {"de": [" Vielen Dank.", "x <y> z", ""], "en": ["Thank you. ", "<y> is it.", ""]}
    for code, lines in texts.items():
        body = HEAD.format(code) + "".join(f"{line}\n" for line in lines) + END.replace("C", code)
        (folder / f"train.tags.de-en.{code}").write_text(body)
    pairs = [("Vielen Dank.", "Thank you."), ("x <y> z", "<y> is it."), ("", "")]
    assert load_train(tmp_path, "de", "en") == pairs
    assert load_train(tmp_path, "en", "de") == [(b, a) for a, b in pairs]
    (folder / "train.tags.de-en.en").write_text(HEAD + "Thank you.\n")
    with pytest.raises(InputError, match="has 3 sentences of de and 1 of en"):
        load_train(tmp_path, "de", "en")


def test_missing_files_say_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"iwslt2017/fr-en/train\.tags\.fr-en\.\* is missing"):
        load_train(tmp_path, "fr", "en")
