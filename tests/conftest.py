"""Fixtures that several folders of tests share: the real data, a made-up data root, tiny models."""

import gzip
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from loopback_hub import Hub
    from xlt_bench.results.record import Plan, Record

# Several test processes and those that they start share the cores: with more threads than cores
# each waits for the others. Equal bytes, too, take equal numbers of threads.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

# The same examples in every run, and nothing timed, for the machine may be busy.
settings.register_profile(
    "xlt-bench", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("xlt-bench")
# What tests/support asserts is told as in a test.
pytest.register_assert_rewrite("fuzz")


# With `--dist loadfile` a file is one process's, and a long one that comes last keeps the others
# waiting. From the longest.
LONGEST = (
    "leaderboard/test_browser.py", "evaluation/test_sharding.py", "faults/test_faults.py",
    "training/test_run.py", "tasks/test_new_language.py", "leaderboard/test_app.py",
    "reproduce/test_run.py", "models/test_backends.py", "models/embedded/test_pretrain.py",
    "evaluation/test_determinism.py", "plugins/test_capitals.py", "submissions/test_fuzz.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the longest files to the front."""
    here = Path(__file__).parent
    places = {here / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets: $XLT_BENCH_DATA, else shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("XLT_BENCH_DATA", beside))
    if not (root / "massive").is_dir():
        pytest.skip(f"no real data at {root}: set XLT_BENCH_DATA to a folder that holds it")
    return root


@pytest.fixture(scope="session")
def made_up_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few invented rows in the publishers' layouts: massive de, sw; wmt23 de; uner da; flores."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "massive" / "1.1" / "data"
    folder.mkdir(parents=True)
    for locale in ("de-DE", "sw-KE"):
        rows = [
            {
                "id": str(i),
                "locale": locale,
                "partition": "test",
                "intent": "play_music",
                "utt": f"play song {i} now",
                "annot_utt": f"play [song_name : song {i}] [time : now]",
            }
            for i in range(5)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{locale}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for kind, end in (("sources", "src"), ("references", "ref.refA")):
        (root / "wmt23" / kind).mkdir(parents=True)
        for direction in ("de-en", "en-de"):
            code = direction.split("-")[0 if kind == "sources" else 1]
            path = root / "wmt23" / kind / f"generaltest2023.{direction}.{end}.{code}"
            path.write_text("".join(f"{kind} line {i} of {direction}.\n" for i in range(5)))
    folder = root / "uner" / "UNER_Danish-DDT"
    folder.mkdir(parents=True)
    for split, first in (("train", "train-v2-366"), ("test", "test-0")):
        blocks = [
            f"# sent_id = {first if i == 0 else f'{split}-{i}'}\n# text = Ada bor i Oslo {i}.\n"
            f"1\tAda\tB-PER\n2\tbor\tO\n3\ti\tO\n4\tOslo\tB-LOC\n5\t{i}\tO\n6\t.\tO\n\n"
            for i in range(5)
        ]
        (folder / f"da_ddt-ud-{split}.iob2").write_text("".join(blocks))
    folder = root / "flores200_dataset" / "dev"
    folder.mkdir(parents=True)
    for code in ("deu_Latn", "eng_Latn", "swh_Latn"):
        text = "".join(f"{code[:3]} sentence number {i} about {i * i}\n" for i in range(8))
        (folder / f"{code}.dev").write_text(text)
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four blocks with a byte-level tokenizer, saved as a model folder."""
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with random factors for the tiny model, whose card says it was aligned on Swahili."""
    from tiny import save_adapter

    folder = save_adapter(tiny_model, tmp_path_factory.mktemp("adapters") / "random", seed=1)
    head = "alignment_languages: [sw]\nxlt_bench: {recipe: massive-align-middle}\n"
    (folder / "README.md").write_text(f"---\n{head}---\nA random adapter.\n")
    return folder


@pytest.fixture
def loopback_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[Hub]":
    """A hub on this machine in place of huggingface.co, with an empty cache."""
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as transformers_hub

    from loopback_hub import serve

    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # These keep the address.
        monkeypatch.setattr(transformers_hub, "_hf_api", None)
        monkeypatch.setattr(hf_api.api, "endpoint", hub.address)
        yield hub


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: its exit code, its output, its errors."""
    from xlt_bench.cli import main as cli

    monkeypatch.delenv("COLUMNS", raising=False)  # the terminal's that the tests run in

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["xlt-bench", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def edit() -> Callable[[Path, Callable[[Any], object]], None]:
    """Changes what a JSON file holds; submission.json then has the changed record's sha256."""
    import hashlib

    def change_file(path: Path, change: Callable[[Any], object]) -> None:
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
        about = path.with_name("submission.json")
        if path.name == "record.json" and about.exists():
            stated = json.loads(about.read_text())
            stated["record_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
            about.write_text(json.dumps(stated))

    return change_file


@pytest.fixture(scope="session")
def accept() -> Callable[..., None]:
    """Accepts submissions in the given order; each may supersede those before it."""
    from xlt_bench.submissions import accepted

    def in_order(submissions: Path, *names: str) -> None:
        accepted.accept(submissions, names)
        for older, newer in pairwise(names):
            pair = accepted.Supersession(newer=newer, older=older, why="a test")
            accepted.accept(submissions, [], [pair])

    return in_order


KILL = """
import json, os, signal, sys
end, number, rank = json.loads(os.environ["KILLED_BEFORE"])
def hook(event, args):
    global number
    if event == "os.rename" and str(args[1]).endswith(end):
        number -= 1
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
if int(os.environ.get("RANK", "0")) == rank:
    sys.addaudithook(hook)
"""


@pytest.fixture
def killed_before(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Environments in which Python is killed just before a file whose path ends so is there.

    It kills itself: a test that watches the disk, and then kills, may come too late. Of several
    such files it is the `number`th, of torchrun's processes the one of this rank.
    """
    folder = tmp_path_factory.mktemp("killed")
    (folder / "sitecustomize.py").write_text(KILL)

    def environment(end: str, number: int = 1, rank: int = 0) -> dict[str, str]:
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        return {"PYTHONPATH": path, "KILLED_BEFORE": json.dumps([end, number, rank])}

    return environment


def write_answers(
    folder: Path, root: Path, plan: "Plan", right: float, seed: int
) -> dict[str, str]:
    """Answers to all that is planned, this share of them right; the digests of the items."""
    from xlt_bench.data.root import content_digest
    from xlt_bench.results.run_folder import (
        Prediction,
        layer_path,
        predictions_path,
        write_layer,
        write_predictions,
    )
    from xlt_bench.tasks.registry import get_task, retrieval_in, retrieval_units

    draw, digests = random.Random(seed), {}
    for task, names in plan.units.items():
        for unit in names:
            items = get_task(task).load(root, unit)[: plan.limit]
            if not retrieval_in([task]):
                hits = [draw.random() < right for _ in items]
                answers = [
                    Prediction(item.id, item.target if hit else "nothing of it", False)
                    for item, hit in zip(items, hits, strict=True)
                ]
                write_predictions(predictions_path(folder, task, unit), answers)
            digests[f"{task}/{unit}"] = content_digest(items)
    n = min(8, plan.limit or 8)
    for layer in plan.layers:
        table = {
            pair: [i if draw.random() < right else draw.randrange(n) for i in range(n)]
            for pair in permutations(retrieval_units(plan.units), 2)
        }
        write_layer(layer_path(folder, layer), table)
    return digests


def made_up_plan(
    model: str,
    adapter: str | None,
    units: dict[str, list[str]],
    limit: int | None,
    layers: list[int],
) -> "Plan":
    """The plan that the answers belong to; digests of weights are made of the names."""
    from xlt_bench.results.record import Plan
    from xlt_bench.tasks.registry import get_task

    return Plan(
        model=model,
        model_revision=None,
        model_sha256=model.encode().hex().ljust(64, "0"),
        adapter=adapter,
        adapter_sha256=adapter and adapter.encode().hex().ljust(64, "0"),
        dtype="float32",
        template="tokenizer",
        template_sha256="ab" * 32,
        limit=limit,
        layers=layers,
        units=units,
        task_versions={task: get_task(task).version for task in units},
    )


def made_up_record(
    folder: Path, root: Path, plan: "Plan", digests: dict[str, str], created: str, **trained: Any
) -> "Record":
    """The record of a finished run with this plan, its scores from its answers."""
    from xlt_bench.evaluation.score import score_run
    from xlt_bench.results.record import AdapterRecord, ModelRecord, Record

    proof = plan.adapter and AdapterRecord(
        name=plan.adapter,
        sha256=plan.adapter_sha256,
        peft_type="LORA",
        base_model=plan.model,
        change_norms={"q_proj": 1.0},
        probe_prompts=8,
        probe_differing=5,
        **trained,
    )
    return Record(
        created=created,
        command="xlt-bench evaluate",
        model=ModelRecord(
            name=plan.model,
            revision=None,
            sha256=plan.model_sha256,
            architecture="LlamaForCausalLM",
            parameters=1000,
            layers=4,
            dtype=plan.dtype,
        ),
        adapter=proof or None,
        template=plan.template,
        template_sha256=plan.template_sha256,
        bos_per_prompt=[1],
        truncated_prompts=0,
        plan=plan,
        data_digests=digests,
        notes=[],
        signatures={},
        versions={},
        hardware={},
        seconds={},
        batch_sizes={},
        fertility={},
        results=score_run(folder, root, trained["alignment_languages"] if plan.adapter else []),
    )


@pytest.fixture(scope="session")
def make_run(made_up_root: Path) -> Callable[..., Path]:
    """Writes finished runs on the made-up data (or `root`), partly right by a seed, no model."""
    from xlt_bench.results.run_folder import write_json

    every = {
        "massive": ["de", "sw"],
        "wmt23": ["de-en", "en-de"],
        "uner": ["da"],
        "retrieval": ["de", "en", "sw"],
    }

    def make(
        folder: Path,
        seed: int = 0,
        *,
        right: float = 0.5,
        model: str = "base",
        adapter: str | None = None,
        units: dict[str, list[str]] | None = None,
        limit: int | None = None,
        layers: Sequence[int] = (2, 4),
        root: Path = made_up_root,
        created: str = "2026-01-02T03:04:05+00:00",
        recipe: str | None = None,
        trained_on_flores: bool | None = None,
        training: dict[str, Any] | None = None,
        aligned: Sequence[str] = ("sw",),
        dtype: str = "float32",
    ) -> Path:
        units = units or every
        with_layers = any(task.startswith("retrieval") for task in units)
        plan = made_up_plan(model, adapter, units, limit, list(layers) if with_layers else [])
        plan = plan.model_copy(update={"dtype": dtype})
        digests = write_answers(folder, root, plan, right, seed)
        write_json(folder / "plan.json", plan.model_dump())
        trained = {"recipe": recipe, "trained_on_flores": trained_on_flores, "training": training}
        trained["alignment_languages"] = list(aligned)
        record = made_up_record(folder, root, plan, digests, created, **trained)
        write_json(folder / "record.json", record.model_dump())
        return folder

    return make
