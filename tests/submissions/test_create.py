"""Tests `submit`: ids, repeats, newer and partial runs, and what must not be published."""

import hashlib
import json
import shutil

import pytest

from boards import verify
from xlt_bench.data.root import MINI
from xlt_bench.errors import InputError
from xlt_bench.results.record import Record
from xlt_bench.submissions import accepted
from xlt_bench.submissions.create import About, submit
from xlt_bench.submissions.rescore import check
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.test_set import path_of


@pytest.fixture
def root(made_up_root):
    return made_up_root


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "submissions"


def test_a_run_becomes_a_checked_submission(make_run, root, folder, tmp_path):
    run = make_run(tmp_path / "run", adapter="lora")
    about = About(name="Mine", contact="me@example.org", url="https://example.org", notes="a\nb")
    done = submit(run, about, folder, root)
    assert not done.repeat
    assert check(done.folder, root).state == "checked"
    assert sorted(p.relative_to(done.folder).as_posix() for p in done.folder.rglob("*.*")) == [
        "accuracies.parquet",
        "counts.parquet",
        "predictions/massive/de.jsonl.zst",
        "predictions/massive/sw.jsonl.zst",
        "predictions/uner/da.jsonl.zst",
        "predictions/wmt23/de-en.jsonl.zst",
        "predictions/wmt23/en-de.jsonl.zst",
        "record.json",
        "retrieval/layer-002.parquet",
        "retrieval/layer-004.parquet",
        "submission.json",
    ]
    stored = Record.model_validate_json((done.folder / "record.json").read_bytes())
    assert stored == Record.model_validate_json((run / "record.json").read_bytes())
    assert [p.name for p in folder.iterdir()] == [done.folder.name]


def test_ids_hash_what_was_evaluated_and_nothing_else(make_run, root, tmp_path):
    def id_of(place, **options):
        run = make_run(tmp_path / f"run {place}", **options)
        return submit(run, About(name=f"name {place}"), tmp_path / f"in {place}", root).folder.name

    first = id_of("first", adapter="lora")
    # Another machine, day and name: the same system and answers.
    assert id_of("again", adapter="lora", created="2026-05-05T00:00:00+00:00") == first
    slug, system, answers = first.rsplit("-", 2)
    assert slug == "base-lora"
    others = {
        "answers": {"adapter": "lora", "seed": 1},
        "limit": {"adapter": "lora", "limit": 3},
        "units": {"adapter": "lora", "units": {"massive": ["de"]}},
    }
    for name, options in others.items():
        _, same_system, other = id_of(name, **options).rsplit("-", 2)
        assert (same_system, other != answers) == (system, True), name
    assert id_of("adapter", adapter="other").rsplit("-", 2)[1] != system
    assert id_of("model", adapter="lora", model="larger").rsplit("-", 2)[1] != system


def test_a_repeat_is_recognised_under_any_name(make_run, root, folder, tmp_path):
    first = submit(make_run(tmp_path / "a", adapter="lora"), About(), folder, root)
    before = {p: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()}
    run = make_run(tmp_path / "b", adapter="lora", created="2026-09-09T00:00:00+00:00")
    # The same weights from another folder.
    for name in ("record.json", "plan.json"):
        path = run / name
        path.write_text(path.read_text().replace('"lora"', '"/somewhere/else/renamed"'))
    again = submit(run, About(), folder, root)
    assert (again.repeat, again.folder) == (True, first.folder)
    assert {p: p.read_bytes() for p in folder.rglob("*.*") if p.is_file()} == before


def test_a_later_run_supersedes_what_it_covers_and_deletes_nothing(
    make_run, root, folder, tmp_path, accept
):
    """The date of a record decides nothing: anybody can write one."""

    def add(name, seed, **options):
        return submit(make_run(tmp_path / name, seed, **options), About(), folder, root)

    old = add("old", 0, adapter="lora", created="2026-09-09T00:00:00+00:00")
    part = add("part", 0, adapter="lora", units={"massive": ["de"]})
    assert (part.supersedes, part.held) == ([], "")
    assert add("other", 1, adapter="another").supersedes == []
    new = add("new", 1, adapter="lora", created="2026-01-01T00:00:00+00:00")
    told = f"other answers than {old.folder.name} in 7 of 7 files, under the same system"
    assert new.held.startswith(told)
    report = check(new.folder, root)
    assert (report.state, report.detail) == ("held", new.held)
    # Neither is accepted, so nobody knows whose answers they are.
    assert check(old.folder, root).state == "held"
    accept(folder, old.folder.name)
    assert check(old.folder, root).state == "checked"
    assert check(new.folder, root).state == "held"
    accept(folder, old.folder.name, new.folder.name)
    report = check(new.folder, root)
    assert report.state == "checked"
    assert report.detail.startswith(f"supersedes {old.folder.name} in all its tasks")
    assert check(old.folder, root).detail == ""
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 4


def test_a_later_run_of_the_same_answers_needs_no_permission(make_run, root, folder, tmp_path):
    def add(name, units):
        run = make_run(tmp_path / name, right=1.0, adapter="lora", units=units)
        return submit(run, About(), folder, root)

    small = add("small", {"massive": ["de"], "retrieval": ["de", "en"]})
    large = add("large", {"massive": ["de", "sw"], "retrieval": ["de", "en", "sw"]})
    assert large.held == ""
    accepted.accept(folder, [small.folder.name, large.folder.name])
    assert check(large.folder, root).detail == f"supersedes {small.folder.name} in all its tasks"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"training": {"settings": {"task.name": "massive"}, "seed": 2}}, "another training"),
        ({"aligned": ("sw", "tr")}, "another list of alignment languages"),
        ({"n_layers": 40}, "another number of layers"),
        ({"verified": True}, "which is verified"),
    ],
)
def test_public_answers_of_another_with_one_more_language_take_no_place(
    change, told, make_run, root, folder, tmp_path, edit
):
    """It used to supersede a verified SFT, and to change the gains of all that extend it."""
    training = {"settings": {"task.name": "massive"}, "seed": 1}
    given = {"right": 1.0, "adapter": "lora", "training": training}

    def add(name, units, n_layers=None, verified=False, **more):
        run = make_run(tmp_path / name, units={"massive": units}, **{**given, **more})
        if n_layers:
            edit(run / "record.json", lambda record: record["model"].update(layers=n_layers))
        return submit(run, About(), folder, root)

    old = add("old", ["de"])
    accepted.accept(folder, [old.folder.name])
    if "verified" in change:
        verify(old.folder)
    new = add("new", ["de", "sw"], **change)
    report = check(new.folder, root)
    assert (report.state, told in report.detail) == ("held", True), report
    assert new.held == report.detail
    assert check(old.folder, root).state == "checked"
    accepted.accept(folder, [new.folder.name])
    assert check(new.folder, root).state == "held"
    if told == "which is verified":
        verify(new.folder)
    else:
        over = accepted.Supersession(newer=new.folder.name, older=old.folder.name, why="a test")
        accepted.accept(folder, [], [over])
    assert check(new.folder, root).detail == f"supersedes {old.folder.name} in all its tasks"


def test_a_newer_run_on_other_items_supersedes_nothing(make_run, root, folder, tmp_path):
    units = {"massive": ["de", "sw"], "wmt23": ["en-de"]}
    old = make_run(tmp_path / "old", adapter="lora", units=units)
    submit(old, About(), folder, root)
    later = "2026-03-03T00:00:00+00:00"
    new = make_run(
        tmp_path / "new", 1, adapter="lora", units=units, created=later, root=MINI
    )  # the same languages of the mini suite
    assert submit(new, About(), folder, MINI).supersedes == []


def test_a_run_of_a_newer_version_supersedes_in_the_other_tasks_only(
    make_run, root, folder, tmp_path, monkeypatch, run_cli, accept
):
    old = submit(make_run(tmp_path / "old", adapter="lora"), About(), folder, root)
    task = get_task("massive")
    pins = shutil.copytree(task.pins, tmp_path / "pinned")
    pin = json.loads(path_of(pins, "massive", task.version).read_text())
    path_of(pins, "massive", task.version + 1).write_text(
        json.dumps({**pin, "version": task.version + 1})
    )
    monkeypatch.setattr(type(task), "pins", pins)
    new = make_run(tmp_path / "new", 1, adapter="lora")
    code, out, _ = run_cli("submit", new, "--submissions", folder, "--data-dir", root)
    # Five files: two directions, one language of entities, two layers.
    assert (code, "in 5 of 5 files" in " ".join(out.split())) == (0, True), out
    (added,) = set(folder.iterdir()) - {old.folder}
    accept(folder, old.folder.name, added.name)
    assert check(added, root).detail == (
        f"supersedes {old.folder.name} in wmt23, uner, retrieval "
        "(not in massive, where versions or items differ)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [("", ""), ("not an id\n", "line 1"), (f"a-{'0' * 10}-{'1' * 10}\n" * 2, "line 2")],
)
def test_a_damaged_register(text, message, make_run, root, folder, tmp_path):
    done = submit(make_run(tmp_path / "run"), About(), folder, root)
    (folder / "accepted.txt").write_text(text)
    report = check(done.folder, root)
    assert (report.state, message in report.detail) == ("refused" if message else "checked", True)


def test_the_command_accepts_what_is_new(make_run, root, folder, tmp_path, run_cli):
    names = [
        submit(make_run(tmp_path / str(i), i), About(), folder, root).folder.name for i in range(2)
    ]
    where = ("--submissions", folder)
    code, out, _ = run_cli("submissions", "accept", names[1], *where)
    assert (code, out) == (0, f"accepted: {names[1]}\n")
    code, out, _ = run_cli("submissions", "accept", *where)
    assert (code, out) == (0, f"accepted: {names[0]}\n")
    assert (folder / "accepted.txt").read_text() == f"{names[1]}\n{names[0]}\n"
    assert run_cli("submissions", "check", folder, "--data-dir", root)[0] == 4
    over = ("--over", names[1], "--why", "the first had a wrong template")
    assert run_cli("submissions", "accept", names[0], *over, *where)[0] == 0
    assert run_cli("submissions", "check", folder, "--data-dir", root)[0] == 0
    code, _, err = run_cli("submissions", "accept", names[0], "--over", names[1], *where)
    assert (code, "--over needs one ID and --why" in err) == (2, True)
    code, _, err = run_cli("submissions", "accept", "a-0123456789-0123456789", *where)
    assert (code, err.count("\n")) == (2, 1)


def test_what_is_partial_says_what_it_lacks(make_run, root, folder, tmp_path):
    done = submit(make_run(tmp_path / "run", limit=3), About(), folder, root)
    assert done.partial["uner"] == ["en", "hr", "pt", "sk", "sr", "sv", "zh", "limit 3"]
    assert "limit 3" in done.partial["retrieval"]
    from xlt_bench.submissions.schema import missing

    record = Record.model_validate_json((done.folder / "record.json").read_bytes())
    whole = {
        "massive": list(get_task("massive").test_set().units),
        "retrieval": list(get_task("retrieval").test_set().units),
    }
    plan = record.plan.model_copy(update={"units": whole, "limit": None})
    digests = {
        f"{t}/{u}": one.digest for t in whole for u, one in get_task(t).test_set(1).units.items()
    }
    record = record.model_copy(update={"data_digests": digests})
    assert missing(record.model_copy(update={"plan": plan}), "massive") == []
    assert missing(record.model_copy(update={"plan": plan}), "retrieval") == []
    # The same number of items, but other items, as in the mini suite.
    mini = record.model_copy(update={"plan": plan, "data_digests": digests | {"massive/de": "0"}})
    assert missing(mini, "massive") == ["de on its items"]
    odd = plan.model_copy(update={"layers": [2, 3]})
    assert missing(record.model_copy(update={"plan": odd}), "retrieval") == ["layer 4"]


def test_local_folders_are_not_published(make_run, root, folder, tmp_path):
    run = make_run(tmp_path / "run", adapter="lora", recipe="/home/ada/my recipe.yaml")
    for name in ("record.json", "plan.json"):
        text = (run / name).read_text()
        text = text.replace('"base"', '"/home/ada/models/llama"')
        text = text.replace('"lora"', '"/home/ada/out/my lora"')
        told = "xlt-bench evaluate --model /home/ada/models/llama --comet-model '/home/ada/a b'"
        text = text.replace("xlt-bench evaluate", told)
        (run / name).write_text(text)
    done = submit(run, About(), folder, root)
    assert done.folder.name.startswith("llama-my-lora-")
    for path in done.folder.glob("*.json"):
        assert "/home" not in path.read_text()
        assert "ada/" not in path.read_text()
    record = json.loads((done.folder / "record.json").read_text())
    assert record["command"] == "xlt-bench evaluate --model llama --comet-model 'a b'"
    assert record["adapter"]["recipe"] == "my recipe.yaml"
    assert check(done.folder, root).state == "checked"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (About(name="a" * 201), "--name: .*200 characters"),
        (About(name="=1+1"), "--name: .*must not start with '='"),
        (About(name="a\u202eb"), r"--name: .*U\+202E"),
        (About(url="javascript:alert(1)"), "--url"),
        (About(contact="a\nb"), r"--contact: .*U\+000A"),
        (About(baseline="../../etc"), "--baseline"),
        (About(baseline="base-0123456789-0123456789"), "baseline .* is not another submission"),
    ],
)
def test_bad_descriptions_are_refused_and_nothing_is_left(
    about, message, make_run, root, folder, tmp_path
):
    with pytest.raises(InputError, match=message):
        submit(make_run(tmp_path / "run"), about, folder, root)
    assert list(folder.iterdir()) == []


def test_a_run_with_forged_scores_is_refused(make_run, root, folder, tmp_path):
    run = make_run(tmp_path / "run")
    record = json.loads((run / "record.json").read_text())
    record["results"]["scores"][0]["value"] += 1
    (run / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"massive de slot_f1: value is .*recomputed"):
        submit(run, About(), folder, root)
    assert list(folder.iterdir()) == []


def test_an_unfinished_run_is_refused(make_run, root, folder, tmp_path):
    run = make_run(tmp_path / "run")
    (run / "predictions" / "uner" / "da.jsonl.zst").unlink()
    with pytest.raises(InputError, match=r"da\.jsonl\.zst is missing"):
        submit(run, About(), folder, root)
    (run / "record.json").unlink()
    with pytest.raises(InputError, match=r"record\.json is missing"):
        submit(run, About(), folder, root)


def test_a_repeat_of_a_damaged_submission_is_refused(make_run, root, folder, tmp_path):
    run = make_run(tmp_path / "run")
    done = submit(run, About(), folder, root)
    path = done.folder / "predictions" / "massive" / "de.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="restore or delete it"):
        submit(run, About(), folder, root)


def test_answers_to_another_prompt_are_not_other_answers(make_run, root, folder, tmp_path):
    def add(name, seed, prompt=None):
        run = make_run(tmp_path / name, seed, units={"massive": ["de", "sw"]})
        for path in (run / "plan.json", run / "record.json") if prompt else ():
            found = json.loads(path.read_text())
            plan = found["plan"] if path.stem == "record" else found
            plan["prompts"] = {"massive": prompt}
            path.write_text(json.dumps(found))
        return submit(run, About(), folder, root)

    one = {"name": "2 examples in the item's language", "shots": 2, "language": "same"}
    one["sha256"] = hashlib.sha256(b'[null, 2, "same", 1234]').hexdigest()
    one["examples"] = {"de": "a" * 16, "sw": "a" * 16}
    added = [add("usual", 0), add("shots", 1, one)]
    added.append(add("other", 2, one | {"examples": dict.fromkeys(["de", "sw"], "b" * 16)}))
    assert [(new.held, new.supersedes) for new in added] == [("", [])] * 3
    assert {check(new.folder, root).state for new in added} == {"checked"}
    half = add("half", 3, one | {"examples": {"de": "a" * 16, "sw": "b" * 16}})
    assert " in 1 of 1 files" in half.held
    wrong = [{"shots": 3}, {"language": "en"}, {"sha256": "1" * 64}, {"name": "no examples"}]
    english = {
        "name": "2 examples in English",
        "language": "en",
        "examples": {"de": "a" * 16, "sw": "b" * 16},
    }
    english["sha256"] = hashlib.sha256(b'[null, 2, "en", 1234]').hexdigest()
    for number, change in enumerate([*wrong, english]):
        with pytest.raises(InputError, match=r"plan\.prompts\.massive"):
            add(f"wrong{number}", 4, one | change)
