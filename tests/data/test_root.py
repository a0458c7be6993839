import gzip
import sys

import pytest

from xlt_bench.data.root import (
    MissingFileError,
    content_digest,
    data_root,
    read_json,
    read_lines,
    read_sentences,
)
from xlt_bench.data.segments import Segment, read_pairs
from xlt_bench.errors import InputError


def test_data_root_is_argument_then_environment_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XLT_BENCH_DATA", "elsewhere")
    assert data_root(tmp_path) == tmp_path
    assert data_root().name == "elsewhere"
    monkeypatch.delenv("XLT_BENCH_DATA")
    assert "xlt-bench" in data_root().parts


def test_lines_end_at_line_feeds_alone(tmp_path):
    text = "one\u2028still one\u0085and\x0b\x0c\x1c still\nthree \n\nfive"
    (tmp_path / "a").write_bytes(text.encode())
    (tmp_path / "b.gz").write_bytes(gzip.compress((text + "\n").encode()))
    expected = ["one\u2028still one\u0085and\x0b\x0c\x1c still", "three ", "", "five"]
    assert read_lines(tmp_path / "a", "x") == expected
    assert read_lines(tmp_path / "b", "x") == expected
    assert read_lines(tmp_path / "b.gz", "x") == expected
    (tmp_path / "empty").touch()
    assert read_lines(tmp_path / "empty", "x") == []


@pytest.mark.parametrize(
    "content",
    [
        "ein Hund\r\nzwei Katzen\r\n",
        "ein Hund\r\nzwei Katzen",
        "ein Hund\nzwei Katzen\r\n",
        "ein Hund\r\r\nzwei Katzen\r\r\n",  # line ends converted twice
        "\ufeffein Hund\nzwei Katzen\n",
        "\ufeffein Hund\r\n\ufeffzwei Katzen\r\n",  # two files joined
    ],
)
def test_line_ends_of_windows_and_byte_order_marks_are_not_in_sentences(content, tmp_path):
    (tmp_path / "a").write_bytes(content.encode())
    for read in (read_lines, read_sentences):
        assert read(tmp_path / "a", "x") == ["ein Hund", "zwei Katzen"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2 is blank"),
        (b"a\r\n \t\r\nb\r\n", "line 2 is blank"),
        ("a\n\u3000\u00a0\nb\n".encode(), "line 2 is blank"),
        (b"a\nb\n\n", "line 3 is blank"),
        (b"\xef\xbb\xbf\na\n", "line 1 is blank"),
        (b"a\rb\rc\r", "line 1 has a carriage return inside"),  # line ends of old Macs
        (b"a\nb\rc\n", "line 2 has a carriage return inside"),
        ("a\nb\n".encode("utf-16-le"), "line 1 has a NUL character"),
        ("a\nb\n".encode("utf-16"), "is not UTF-8 (byte 0)"),
        ("caf\u00e9\n".encode("latin-1"), "is not UTF-8 (byte 3)"),
    ],
)
def test_what_is_not_a_sentence_a_line_is_refused_with_its_place(content, message, tmp_path):
    (tmp_path / "a").write_bytes(content)
    for dataset, remedy in (
        ("flores", "; delete it, then: xlt-bench data fetch flores"),
        (None, "; "),
    ):
        with pytest.raises(InputError) as error:
            read_sentences(tmp_path / "a", dataset)
        assert f"a {message}{remedy}" in one_line(error)
        assert ("fetch" in str(error.value)) == (dataset is not None)


def test_the_plain_file_comes_before_the_packed_one(tmp_path):
    (tmp_path / "a").write_text("plain")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"packed"))
    assert read_lines(tmp_path / "a", "x") == ["plain"]


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


def test_missing(tmp_path):
    with pytest.raises(MissingFileError) as error:
        read_lines(tmp_path / "a", "massive")
    assert one_line(error) == (
        f"{tmp_path / 'a'} is missing; get it with: xlt-bench data fetch massive"
    )


PACKED = gzip.compress(bytes(range(256)) * 99, mtime=0)


@pytest.mark.parametrize(
    "content",
    [PACKED[:-20], PACKED[:12], b"no gzip", PACKED[:40] + b"\xff\xff" + PACKED[42:]],
    ids=["truncated", "header only", "other", "bit rot"],
)
def test_broken_gz(tmp_path, content):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.gz is truncated or corrupt.*fetch uner") as error:
        read_lines(tmp_path / "a", "uner")
    one_line(error)


def test_not_utf8(tmp_path):
    (tmp_path / "a").write_bytes(b"abc\xff")
    with pytest.raises(InputError, match=r"a is not UTF-8 \(byte 3\); delete it, then") as error:
        read_lines(tmp_path / "a", "x")
    one_line(error)


def test_unreadable(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="a cannot be read: Is a directory") as error:
        read_lines(tmp_path / "a", "x")
    one_line(error)


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("x")

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)  # root may read everything
    with pytest.raises(InputError, match="a cannot be read: Permission denied"):
        read_lines(tmp_path / "a", "x")


def test_broken_json_names_file_and_line(tmp_path):
    with pytest.raises(InputError, match=r"a\.jsonl line 7 is not JSON .*fetch massive") as error:
        read_json('{"id": ', tmp_path / "a.jsonl", 7, "massive")
    one_line(error)


def test_parallel_files_of_two_lengths(tmp_path):
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("1\n")
    with pytest.raises(InputError, match="b has 1 lines and a 2; delete both"):
        read_pairs(tmp_path / "a", tmp_path / "b", "x")


def test_digest_sees_every_field_and_the_order():
    rows = [Segment("0", "a", "b"), Segment("1", "c", "d")]
    others = [rows[::-1], rows[:1], [rows[0], Segment("1", "c", "e")], [*rows, "x"], ["a", "b"]]
    digests = {content_digest(one) for one in [rows, *others]}
    assert len(digests) == 1 + len(others)
    assert all(len(one) == 16 for one in digests)
    assert content_digest(["ä\u2028"]) != content_digest(["ä", ""])


def test_no_torch():
    import subprocess

    code = "import sys, xlt_bench.data.check, xlt_bench.data.fetch; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_the_mini_suite_ships_and_is_neither_fetched_nor_checked() -> None:
    from xlt_bench.data.check import check
    from xlt_bench.data.fetch import fetch

    root = data_root("mini")
    assert (root / "massive" / "1.1" / "data" / "sw-KE.jsonl").is_file()
    for call in (lambda: check(root), lambda: fetch([], root)):
        with pytest.raises(InputError, match="ships with the package"):
            call()
