"""Mutates the folder of a submission, or one of its files."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from fuzz.mutators import (
    ODD_TEXTS,
    bare_table,
    change_bytes,
    change_frame,
    change_json,
    change_lines,
    change_table,
)
from retrieval_forms import expanded
from xlt_bench.evaluation.score import count_run, scores_of
from xlt_bench.results.record import Plan
from xlt_bench.submissions.counts import write_counts
from xlt_bench.submissions.hits import parse_hits
from xlt_bench.submissions.rescore import answers_digest, layer_digest
from xlt_bench.submissions.safe_read import read_answers, read_layer
from xlt_bench.submissions.schema import COUNTS, RECORD, SUBMISSION, answer_files, identity

SECRET = "content-outside-the-folder"


def change_tree(draw, folder, outside):
    """Add links, extra files, pipes or odd names, or remove files and folders."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = draw.choice(files)
    kind = draw.randrange(9)
    if kind == 0:
        path.unlink()
        path.symlink_to(outside / draw.choice(["secret", path.name, "not there"]))
    elif kind == 1:
        moved = outside / "moved"
        shutil.rmtree(moved, ignore_errors=True)
        part = draw.choice(sorted(p for p in folder.rglob("*") if p.is_dir()))
        shutil.move(part, moved)
        part.symlink_to(moved)
    elif kind == 2:
        path.unlink()
    elif kind == 3:
        path.unlink()
        path.mkdir()
    elif kind == 4:
        path.unlink()
        os.mkfifo(path)
    elif kind == 5:
        name = draw.choice([t for t in ODD_TEXTS if 0 < len(t) < 60 and not set(t) & set("/\0")])
        with_name = path.with_name(name)
        if not with_name.exists():
            with_name.write_bytes(path.read_bytes())
    elif kind == 6:
        os.link(outside / "secret", path.with_name("linked"))
    elif kind == 7:
        names = [
            b"\xff\xfe",
            b"a\nb",
            b"\x1b[2J",
            b".hidden",
            b"x" * 200,
            folder.name.upper().encode(),
        ]
        target = os.path.join(os.fsencode(folder.parent), draw.choice(names))  # noqa: PTH118
        os.rename(folder, target)  # noqa: PTH104
        return Path(os.fsdecode(target))
    else:
        part = draw.choice(sorted(p for p in folder.rglob("*") if p.is_dir()))
        shutil.rmtree(part)
        part.write_text(SECRET)
    return folder


def seal(folder, root, rescored):
    """Correct the digests and the id, and if `rescored` the counts and scores, as a forger would.

    Returns:
        The renamed folder, or the unchanged folder if a reader refuses a file.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        about = json.loads((folder / SUBMISSION).read_text())
        plan = Plan.model_validate(record["plan"])
        for name, path in answer_files(plan).items():
            if not name.startswith("retrieval/"):
                digest = answers_digest(read_answers(folder / path))
            elif about.get("retrieval") == "hits":
                data = (folder / path).read_bytes()
                digest = layer_digest(*parse_hits(data, name, plan.units["retrieval"]))
            else:
                digest = layer_digest(*read_layer(folder / path, plan.units["retrieval"])[:2])
            about["contents"][name] = digest
        if rescored:
            hits = about.get("retrieval") == "hits"
            run = expanded(folder, folder.parent.parent / "expanded") if hits else folder
            counted = count_run(plan, run, root)
            aligned = record["adapter"]["alignment_languages"] if record["adapter"] else []
            record["results"] = scores_of(plan, counted, aligned).model_dump()
            write_counts(folder / COUNTS, counted.tasks)
            (folder / RECORD).write_text(json.dumps(record))
        about["record_sha256"] = hashlib.sha256((folder / RECORD).read_bytes()).hexdigest()
        about["id"] = about["id"][:-21] + identity(plan, about["contents"])
        (folder / SUBMISSION).write_text(json.dumps(about))
        return folder.rename(folder.with_name(about["id"]))
    except Exception:  # any error: the check itself has to find it
        return folder


KINDS = ["bytes", "json", "lines", "frame", "table", "bare table", "tree"]


def mutate(draw, kind, folder, outside):
    """Change a submission once; returns the folder, which may be renamed."""
    if kind == "tree":
        return change_tree(draw, folder, outside)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    end = {"bytes": "", "json": ".json", "lines": ".zst", "frame": ".zst"}.get(kind, ".parquet")
    path = draw.choice([p for p in files if p.name.endswith(end)])
    data = path.read_bytes()
    if kind == "json":
        text = change_json(draw, json.loads(data))
        path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    else:
        change = {"bytes": change_bytes, "lines": change_lines, "frame": change_frame,
                  "table": change_table, "bare table": bare_table}[kind]  # fmt: skip
        path.write_bytes(change(draw, data))
    return folder


def spoil(draw, output):
    """Change a value, some bytes or the whole of one of lm-eval's files."""
    path = draw.choice(sorted(output.rglob("*.json*")))
    kind = draw.randrange(10)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(change_bytes(draw, path.read_bytes()))
    elif kind == 2:
        path.write_text(draw.choice(["", "null", "[]", "{}", "[" * 100_000, "NaN", "\x00"]))
    elif path.suffix == ".json":
        text = change_json(draw, json.loads(path.read_text()))
        path.write_text(text, errors="surrogatepass")
    else:
        lines = path.read_text().splitlines()
        at = draw.randrange(len(lines))
        if kind == 3:
            lines[at : at + 1] = draw.choice([[], [lines[at]] * 2, [""]])
        else:
            lines[at] = change_json(draw, json.loads(lines[at]))
        path.write_text("\n".join(lines) + "\n", errors="surrogatepass")
