"""Runs commands in forks of a process that has imported everything; conftest.py starts it.

It reads an order per line of standard input, and answers each with a line of standard output:

    {"words": [...], "folder": "...", "output": "disk", "input": "data", "kill_at": 7,
     "kill_before": null, "move_at": null, "after": null}
    -> {"code": -9, "seconds": 0.2, "writes": 7, "reads": 9}

Writes are Python's operations below `output`: open for writing, rename, remove, create. Reads are
files opened below `input`. The command is killed before write number `kill_at`, before a file whose
path ends in `kill_before` appears, or after `after` seconds. The input is renamed before read
number `move_at`. Output goes to FOLDER/said.txt. A negative code is the number of a signal.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
MODULES = (
    "transformers.models.llama.modeling_llama peft xlt_bench.evaluation.run xlt_bench.training.run "
    "xlt_bench.submissions.create xlt_bench.store.build xlt_bench.evaluation.join"
).split()
LONGEST = 600  # seconds; a command that takes longer hangs


def watch(order: dict[str, Any], counter: mmap.mmap) -> None:
    """Count reads and writes from now on, and disturb the command as ordered."""
    given, made = (Path(order["folder"], order[kind]) for kind in ("input", "output"))
    writes = reads = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal writes, reads
        changes = event in CHANGES
        if event == "open":
            changes = bool(args[2] and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        elif not changes:
            return
        if not isinstance(args[0], str | Path):
            return
        path = os.path.abspath(args[0])  # noqa: PTH100 (Path.absolute is slower)
        if changes and path.startswith(str(made)):
            writes += 1
            there = event == "os.rename" and order["kill_before"]
            if writes == order["kill_at"] or (there and str(args[1]).endswith(there)):
                os.kill(os.getpid(), signal.SIGKILL)
        elif not changes and path.startswith(str(given)):
            reads += 1
            if reads == order["move_at"]:
                given.rename(f"{given}.away")
        counter[:16] = struct.pack("qq", writes, reads)

    sys.addaudithook(hook)


def child(order: dict[str, Any], counter: mmap.mmap) -> None:
    """Run the command; does not return."""
    code = 1
    try:
        os.chdir(order["folder"])
        for number, file in ((0, os.devnull), (1, "said.txt"), (2, "said.txt")):
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
            os.dup2(os.open(file, mode, 0o644), number)
        sys.argv = ["xlt-bench", *order["words"]]
        watch(order, counter)
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, run a command, and wait for its end."""
    Path(order["folder"], "said.txt").write_bytes(b"")
    counter = mmap.mmap(-1, 16)  # shared with the child; survives it
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        child(order, counter)
    last = started + (LONGEST if order["after"] is None else order["after"])
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() >= last:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    seconds = time.monotonic() - started
    writes, reads = struct.unpack("qq", counter[:16])
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": seconds, "writes": writes, "reads": reads}


if __name__ == "__main__":
    for name in MODULES:
        import_module(name)
    import torch

    from xlt_bench.cli import main as cli
    from xlt_bench.metrics.translation import is_wrong_language
    from xlt_bench.tasks.registry import get_task, get_text_task, text_tasks

    torch.set_num_threads(1)
    # Loads the language identifier, which takes longer than the rest of a submission.
    candidates = tuple(get_task("wmt23").test_set().identifier_languages)
    assert not is_wrong_language("A sentence in English.", "en", candidates)
    # What the answers say does not matter here, and long ones take long.
    for name in text_tasks():
        get_text_task(name).max_new_tokens = 16
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
