"""Converts the output of plain lm-eval (`lm_eval --log_samples --output_path DIR`) to a run folder.

Prompts, items and length limits must be those of the tasks. lm-eval logs neither retrieved
neighbours nor which answers the length limit cut off, so the run has no retrieval and no `cut_off`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlt_bench.data.root import content_digest
from xlt_bench.errors import InputError, first_fault, one_line
from xlt_bench.evaluation.score import score_run
from xlt_bench.models.adapter_card import alignment_languages, recipe_name, training
from xlt_bench.models.adapters import (
    AdapterFiles,
    check_local,
    find_adapter,
    looks_local,
    split_revision,
)
from xlt_bench.results.record import AdapterRecord, ModelRecord, Plan, Record, Scores
from xlt_bench.results.redact import masked_command
from xlt_bench.results.run_folder import (
    Prediction,
    predictions_path,
    write_bytes,
    write_predictions,
)
from xlt_bench.submissions.safe_read import MAX_ANSWER, MAX_ITEMS, MB, read_bytes, read_json
from xlt_bench.tasks.base import Item
from xlt_bench.tasks.registry import get_task, get_text_task, retrieval_in, tasks, text_tasks

_MAX_SAMPLES = 512 * MB


class _Loose(BaseModel):
    """The parts of lm-eval's output that are read; others are ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class _Config(_Loose):
    """The key `config`: how lm-eval was called."""

    model: str | None = None
    model_args: str | dict[str, Any] | None = None
    model_sha: str | None = None
    peft_sha: str | None = None
    model_num_parameters: int | None = None
    model_dtype: str = "unknown"
    limit: float | None = None
    device: str | None = None
    batch_size: int | str | None = None

    @property
    def arguments(self) -> dict[str, str]:
        """`--model_args` by name."""
        given = self.model_args or {}
        if isinstance(given, str):
            given = dict(part.partition("=")[::2] for part in given.split(","))
        return {key: str(value) for key, value in given.items()}


class _Results(_Loose):
    """results_*.json."""

    config: _Config
    configs: dict[str, Any]
    versions: dict[str, Any]
    shots: dict[str, Any] = Field(alias="n-shot")
    date: float = Field(ge=0, lt=253_402_300_800, allow_inf_nan=False)  # before the year 10,000
    chat_template_sha: str | None = None
    system_instruction: str | None = None
    total_evaluation_time_seconds: float = Field(default=0, ge=0, allow_inf_nan=False)
    lm_eval_version: str | None = None
    transformers_version: str | None = None


def is_output(folder: Path) -> bool:
    """Whether a folder has results of lm-eval and is not a run folder."""
    return not (folder / "record.json").exists() and bool(_results(folder))


def _results(folder: Path) -> list[Path]:
    found = [*folder.glob("results_*.json"), *folder.glob("*/results_*.json")]
    return sorted(found, key=lambda path: path.name)


def convert(folder: Path, run: Path, root: Path) -> Path:
    """Convert the newest results in a folder to a run folder, and score them.

    Args:
        folder: The --output_path of lm_eval.
        run: The run folder to write.
        root: The data folder.

    Returns:
        `run`.

    Raises:
        InputError: A setting, prompt or item differs from the task's.
    """
    path = _results(folder)[-1]
    results = _read_results(path)
    chosen = _units(results, path)
    versions = {task: _version(results, task, units) for task, units in chosen.items()}
    limit = _limit(results.config.limit)
    stamp = path.stem.removeprefix("results_")
    digests = {}
    for task, names in chosen.items():
        for unit in names:
            items = get_text_task(task).load(root, unit)[:limit]
            samples = path.parent / f"samples_xlt_{task}_{unit}_{stamp}.jsonl"
            answers = _answers(samples, items, get_text_task(task).max_new_tokens)
            write_predictions(predictions_path(run, task, unit), answers)
            digests[f"{task}/{unit}"] = content_digest(items)
    model, adapter = _model(results.config), _adapter(results.config)
    plan = _plan(results, model, adapter, chosen, limit, versions)
    write_bytes(run / "plan.json", plan.model_dump_json(indent=1).encode())
    scores = score_run(run, root, adapter.alignment_languages if adapter else [])
    record = _record(results, plan, model, adapter, digests, scores)
    write_bytes(run / "record.json", record.model_dump_json(indent=1).encode())
    return run


def _read_results(path: Path) -> _Results:
    value = read_json(read_bytes(path, 64 * MB), path.name)
    try:
        return _Results.model_validate(value)
    except ValidationError as error:
        raise InputError(
            f"{path.name} is not a results file of lm-eval ({first_fault(error)}); run lm_eval "
            "again"
        ) from None


def _units(results: _Results, path: Path) -> dict[str, list[str]]:
    """List the evaluated units by task, in table order."""
    chosen: dict[str, list[str]] = {}
    for task in text_tasks():
        prefix = get_task(task).lm_eval_name
        names = [u for u in get_task(task).units() if f"{prefix}_{u}" in results.configs]
        if names:
            chosen[task] = names
    if not chosen:
        raise InputError(
            f"{path} has no text task of xlt-bench; run lm_eval with one, such as xlt_massive"
        )
    return chosen


def _version(results: _Results, task: str, units: Sequence[str]) -> int:
    """The version of a task that its units were run in; any that this release can score."""
    scored = [v for v in get_task(task).versions if v >= get_task(task).rescored_from]
    names = [f"xlt_{task}_{unit}" for unit in units]
    for name in names:
        version, shots = results.versions.get(name), results.shots.get(name)
        if type(version) is not int or version not in scored:
            raise InputError(
                f"{name} was run in version {one_line(version, 60)}, but this release scores "
                f"{' and '.join(map(str, scored))}; run lm_eval again with: xlt-bench stubs --path"
            )
        if shots:
            said = one_line(shots, 60)
            raise InputError(f"{name} was run with {said} few-shot examples; use --num_fewshot 0")
        if version != results.versions[names[0]]:
            raise InputError(
                f"{names[0]} was run in version {results.versions[names[0]]} and {name} in "
                f"{version}; run lm_eval again"
            )
    return int(results.versions[names[0]])


def _limit(limit: float | None) -> int | None:
    if limit is None:
        return None
    if not 1 <= limit <= MAX_ITEMS or limit != int(limit):
        raise InputError(f"--limit must be a whole number up to {MAX_ITEMS:,}, got {limit:g}")
    return int(limit)


def _answers(path: Path, items: Sequence[Item], max_tokens: int) -> list[Prediction]:
    """Read the answers in the order of the items, checking the item of each sample."""
    lines = read_bytes(path, _MAX_SAMPLES).decode("utf-8", "replace").removesuffix("\n").split("\n")
    if len(lines) > MAX_ITEMS:
        raise InputError(f"{path.name} has more than {MAX_ITEMS:,} samples")
    rows = [read_json(line, f"{path.name} line {i}") for i, line in enumerate(lines, start=1)]
    try:
        rows.sort(key=lambda row: int(row["doc_id"]))
        if len(rows) != len(items):
            raise InputError(f"{path.name}: expected {len(items)} samples, found {len(rows)}")
        both = list(zip(rows, items, strict=True))
        found = [_answer(row, item, max_tokens, path.name) for row, item in both]
        frames = {_frame(_prompt(row), item) for row, item in both}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path.name} is not a samples file of lm-eval ({one_line(repr(error), 200)})"
        ) from None
    if len(frames) > 1:
        raise InputError(f"{path.name}: prompts differ in more than the text of their items")
    return found


def _prompt(row: dict[str, Any]) -> str:
    return str(row["arguments"]["gen_args_0"]["arg_0"])


def _frame(prompt: str, item: Item) -> tuple[str, str, str]:
    """The text of the chat template before, between and after the texts of an item."""
    before, _, rest = prompt.partition(item.system) if item.system else ("", "", prompt)
    head, _, tail = rest.rpartition(item.user)
    return before, head, tail


def _answer(row: dict[str, Any], item: Item, max_tokens: int, where: str) -> Prediction:
    if row["doc"] != dataclasses.asdict(item):
        raise InputError(f"{where}: expected item {item.id}, found another item or text")
    prompt, options = _prompt(row), row["arguments"]["gen_args_0"]["arg_1"]
    if item.user not in prompt or item.system not in prompt:
        raise InputError(f"{where}: the prompt of item {item.id} differs from the task's")
    if options != {"until": [], "do_sample": False, "max_gen_toks": max_tokens}:
        raise InputError(
            f"{where}: answers must be greedy with at most {max_tokens} new tokens, not "
            f"{one_line(options, 200)}"
        )
    answer = row["filtered_resps"][0]
    if not isinstance(answer, str) or len(answer) > MAX_ANSWER:
        raise InputError(
            f"{where}: the answer to item {item.id} must be a string of at most {MAX_ANSWER:,} "
            "characters"
        )
    return Prediction(item.id, answer, cut_off=None)


def _model(config: _Config) -> ModelRecord:
    arguments = config.arguments
    name = arguments.get("pretrained")
    if not name:
        raise InputError("the results do not name a model; use --model_args pretrained=...")
    sha256 = None
    if Path(name).expanduser().is_dir():
        from xlt_bench.models.load import weights_digest

        sha256 = weights_digest(Path(name).expanduser())
    elif looks_local(name):
        raise InputError(
            f"cannot hash the local model {name}: run `submit` on the machine that has it"
        )
    commit = config.model_sha or arguments.get("revision")
    return ModelRecord(
        name=name,
        revision=commit or None,
        sha256=sha256,
        architecture=None,
        # With an adapter, lm-eval's number includes its parameters.
        parameters=None if "peft" in arguments else config.model_num_parameters,
        layers=None,
        dtype=config.model_dtype.removeprefix("torch."),
    )


def _adapter(config: _Config) -> AdapterRecord | None:
    name = config.arguments.get("peft")
    if not name:
        return None
    found = _adapter_files(name, config.peft_sha)
    if found.steers:
        raise InputError(f"{name} is a steering folder, which lm_eval does not apply")
    return AdapterRecord(
        name=name,
        sha256=found.sha256,
        revision=found.revision,
        peft_type=str(found.config.get("peft_type")),
        base_model=found.config.get("base_model_name_or_path"),
        alignment_languages=alignment_languages(found),
        recipe=recipe_name(found),
        training=training(found),
        change_norms={},
        probe_prompts=0,
        probe_differing=0,
    )


def _adapter_files(name: str, commit: str | None) -> AdapterFiles:
    """The adapter as it was evaluated: from its folder, or from the hub at the logged commit."""
    if check_local(name) is not None:
        return find_adapter(name)
    if not commit:
        raise InputError(
            f"the results do not say which commit of {name} answered, since lm_eval did not reach "
            "the hub; evaluate again with a connection"
        )
    return find_adapter(f"{split_revision(name)[0]}@{commit}")


def _plan(
    results: _Results,
    model: ModelRecord,
    adapter: AdapterRecord | None,
    chosen: dict[str, list[str]],
    limit: int | None,
    versions: dict[str, int],
) -> Plan:
    sha = results.chat_template_sha
    if not sha:
        raise InputError("the prompts had no chat template; run lm_eval with --apply_chat_template")
    if results.system_instruction:
        raise InputError("the tasks have their own system prompt; leave out --system_instruction")
    return Plan(
        model=model.name,
        model_revision=model.revision,
        model_sha256=model.sha256,
        adapter=adapter.name if adapter else None,
        adapter_sha256=adapter.sha256 if adapter else None,
        adapter_revision=adapter.revision if adapter else None,
        dtype=model.dtype,
        template="tokenizer",
        template_sha256=sha,
        limit=limit,
        layers=[],
        units=chosen,
        task_versions=versions,
        trust_remote_code=results.config.arguments.get("trust_remote_code", "").lower() == "true",
    )


def _record(
    results: _Results,
    plan: Plan,
    model: ModelRecord,
    adapter: AdapterRecord | None,
    digests: dict[str, str],
    scores: Scores,
) -> Record:
    config = results.config
    arguments = ",".join(f"{key}={value}" for key, value in config.arguments.items())
    names = ",".join(f"xlt_{task}_{unit}" for task, given in plan.units.items() for unit in given)
    words = ["lm_eval", "--model", str(config.model), "--model_args", arguments]
    words += ["--tasks", names, "--apply_chat_template", "--log_samples"]
    words += ["--limit", str(plan.limit)] if plan.limit else []
    versions = {"lm_eval": results.lm_eval_version, "transformers": results.transformers_version}
    notes = ["answered by plain lm-eval, which does not log whether an answer was cut off"]
    if any(
        retrieval_in([name]) for name, one in tasks().items() if one.lm_eval_name in results.configs
    ):
        notes.append("retrieval was left out: lm-eval does not log the neighbours")
    return Record(
        harness="lm-eval",
        created=datetime.fromtimestamp(results.date, UTC).isoformat(timespec="seconds"),
        command=masked_command(words),
        model=model,
        adapter=adapter,
        template=plan.template,
        template_sha256=plan.template_sha256,
        bos_per_prompt=[],
        truncated_prompts=None,
        plan=plan,
        data_digests=digests,
        notes=notes,
        signatures={},
        versions={name: str(version) for name, version in versions.items()},
        hardware={"device": str(config.device)},
        seconds={"all": results.total_evaluation_time_seconds},
        batch_sizes={"all": str(config.batch_size)},
        fertility={},
        results=scores,
    )
