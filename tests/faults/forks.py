"""Runs commands in forks of a process that has imported everything; conftest.py starts it.

A line of standard input is an order, a line of standard output its end:

    {"words": [...], "folder": "...", "within": "disk", "reads": false, "at": 7, "move": "data",
     "after": 0.3}                                  ->  {"code": -9, "seconds": 0.2, "events": 7}

`events` counts what the command asked of Python's files below `within`: opened for writing,
renamed, removed, made; with `reads`, opened for reading. Before event `at` the command is killed,
or, with `move`, that name in the folder gets another one. `after` seconds it is killed in any case.
What it says goes to FOLDER/said.txt. A negative code is the number of the signal.
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
    "transformers.models.llama.modeling_llama peft xlt_bench.evaluate xlt_bench.train.run "
    "xlt_bench.submit.packing xlt_bench.store.build xlt_bench.join"
).split()
LONGEST = 120  # seconds; then something hangs


def watch(order: dict[str, Any], counter: mmap.mmap) -> None:
    """Count events from here on, and do what the order says before one of them."""
    folder = order["folder"]
    below = os.path.join(folder, order["within"])  # noqa: PTH118 (a hook should be cheap)
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = args
            writes = bool(flags and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if writes == order["reads"]:
                return
        elif event in CHANGES and not order["reads"]:
            path = args[0]
        else:
            return
        if isinstance(path, int | bytes | None):
            return
        if not os.path.abspath(path).startswith(below):  # noqa: PTH100
            return
        seen += 1
        counter[:8] = struct.pack("q", seen)
        if seen == order["at"]:
            if order["move"] is None:
                os.kill(os.getpid(), signal.SIGKILL)
            os.rename(f"{folder}/{order['move']}", f"{folder}/{order['move']}.away")  # noqa: PTH104

    sys.addaudithook(hook)


def child(order: dict[str, Any], counter: mmap.mmap) -> None:
    """The command itself; does not return."""
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
    """A command from fork to end."""
    Path(order["folder"], "said.txt").write_bytes(b"")
    counter = mmap.mmap(-1, 8)  # shared with the child, and there after it was killed
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
    (events,) = struct.unpack("q", counter[:8])
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": time.monotonic() - started, "events": events}


if __name__ == "__main__":
    for name in MODULES:
        import_module(name)
    import torch

    from xlt_bench import cli

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
