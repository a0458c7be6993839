"""Fuzzes submissions: each must be accepted with true scores, or refused in one line.

Every mutation has a number, its seed. To repeat one:
`XLT_BENCH_FUZZ=12345 pytest tests/submissions/test_fuzz.py -k one`.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fuzz.attacks import ATTACKS
from fuzz.folders import KINDS
from fuzz.judge import LONGEST, Fuzz, only_within, spoiled, watch
from retrieval_forms import with_neighbours
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check

UNITS = {"massive": ["de"], "wmt23": ["de-en"], "uner": ["da"], "retrieval": ["de", "en"]}


MEASURE = """
import json, re, sys, time
from pathlib import Path
from xlt_bench.store.build import build
from xlt_bench.submissions.rescore import check
folder, root, db = map(Path, sys.argv[1:])
# Not getrusage, whose peak includes that of the parent process.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10
start = time.perf_counter()
report = check(folder, root)
checked = time.perf_counter()
built = build(folder.parent, db)
print(json.dumps([report.state, report.detail, checked - start, time.perf_counter() - checked,
                  peak()]))
"""


@pytest.fixture(scope="session", autouse=True)
def watched():
    sys.addaudithook(watch)  # cannot be removed, but does nothing outside `only_within`


@pytest.fixture(scope="module")
def material(make_run, made_up_root, tmp_path_factory, accept):
    """Submissions of a bare model and of an adapter (older and newer), and the data folder.

    The newer one has neighbours, as older releases submitted them, and the others hits.
    """
    top = tmp_path_factory.mktemp("material")
    made = {}
    for name, seed, adapter in [("bare", 0, None), ("older", 1, "lora"), ("own", 2, "lora")]:
        run = make_run(top / name, seed, adapter=adapter, units=UNITS, layers=(2,))
        made[name] = submit(run, About(notes="a note"), top / "submissions", made_up_root).folder
    made["own"] = with_neighbours(made["own"], top / "own")
    accept(top / "submissions", made["older"].name, made["own"].name)
    return made, made_up_root


@pytest.fixture
def fuzz(material, tmp_path):
    return Fuzz(material, tmp_path)


def test_a_mutation_that_changes_nothing_is_accepted(fuzz, material):
    shutil.copytree(fuzz.made["own"], fuzz.inside / fuzz.made["own"].name)
    report = check(fuzz.inside / fuzz.made["own"].name, fuzz.root)
    assert report.state == "checked"
    fuzz.check_scores(fuzz.inside / fuzz.made["own"].name)


def test_a_write_elsewhere_is_noticed(fuzz, tmp_path):
    with pytest.raises(AssertionError, match="elsewhere"), only_within(fuzz.out):
        (tmp_path / "elsewhere").write_text("")


def test_what_other_tests_left_behind_does_not_count(fuzz, tmp_path):
    begins, ended = threading.Event(), threading.Event()

    def writes():
        begins.wait()
        (tmp_path / "elsewhere").write_text("")
        ended.set()

    threading.Thread(target=writes).start()
    with only_within(fuzz.out):
        begins.set()
        ended.wait()
        assert not gc.isenabled()  # it would finalize objects of other tests
    assert gc.isenabled()
    assert (tmp_path / "elsewhere").exists()


def test_a_thread_of_its_own_is_watched(fuzz, tmp_path):
    def writes():
        own = threading.Thread(target=(tmp_path / "elsewhere").write_text, args=("",))
        own.start()
        own.join()

    with pytest.raises(AssertionError, match="elsewhere"), only_within(fuzz.out):
        writes()


def test_short(fuzz):
    failures = fuzz.run(range(70))
    assert not failures, "\n".join(failures)
    assert sum(n for (_, state), n in fuzz.counts.items() if state == "accepted") > 4


@pytest.mark.skipif("XLT_BENCH_FUZZ" not in os.environ, reason="XLT_BENCH_FUZZ names no mutation")
def test_one(fuzz):
    fuzz.one(int(os.environ["XLT_BENCH_FUZZ"]))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_memory(name, fuzz, capsys, tmp_path):
    folder = shutil.copytree(fuzz.made["own"], fuzz.inside / fuzz.made["own"].name)
    folder = ATTACKS[name](folder, fuzz.root)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, folder, fuzz.root, tmp_path / "db"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    state, detail, checking, building, peak = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n{name}: {peak} MB, check {checking:.1f} s, build {building:.1f} s: {detail[:110]}"
        )
    assert state == "refused"
    assert len(detail) <= LONGEST
    assert peak < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("first", [140, 10_140])
def test_full(first, fuzz, capsys):
    failures = fuzz.run(range(first, first + 10_000))
    with capsys.disabled():
        print()
        for kind in KINDS:
            accepted, refused = (fuzz.counts[kind, state] for state in ("accepted", "refused"))
            print(f"{kind}: {accepted:,} accepted, {refused:,} refused")
    assert not failures, "\n".join(failures)


def test_spoiled_output_is_refused_in_a_line(output, made_up_root, tmp_path):
    assert 0 < spoiled(output, made_up_root, tmp_path / "scratch", range(60)) < 60


@pytest.mark.slow
def test_much_spoiled_output(output, made_up_root, tmp_path, capsys):
    refused = spoiled(output, made_up_root, tmp_path / "scratch", range(1_000, 4_000))
    with capsys.disabled():
        print(f"\nlm-eval's output, spoiled 3,000 times: {refused:,} refused, none failed")
    assert refused
