"""Writes the scores of a run in the formats of other tools.

`eee` is Every Eval Ever's schema 0.3.0 (github evaleval/every_eval_ever), `lm-eval` the results
file of `lm_eval --output_path`, `parquet` one row per score.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xlt_bench.data.catalog import catalog
from xlt_bench.errors import unknown
from xlt_bench.results.record import Mean, Record, Score, ShotPrompt
from xlt_bench.tasks.base import Task
from xlt_bench.tasks.registry import get_task, retrieval_in

EEE_SCHEMA = "0.3.0"


def write_format(record: Record, form: str) -> bytes:
    """Write the scores of a run in a format of `FORMATS`.

    Args:
        record: The record of a finished run.
        form: `eee`, `lm-eval` or `parquet`.

    Raises:
        InputError: The format is unknown.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    return FORMATS[form](record)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _texts(details: Mapping[str, object]) -> dict[str, str]:
    """Details without those that are None; Every Eval Ever takes texts only."""
    return {key: str(value) for key, value in details.items() if value is not None}


def _seed(record: Record) -> int | None:
    training = record.adapter.training if record.adapter else None
    return training.seed if training else None


def _model_name(record: Record) -> str:
    return record.adapter.name if record.adapter else record.model.name


def _eee(record: Record) -> bytes:
    created = str(int(datetime.fromisoformat(record.created).timestamp()))
    name, adapter = _model_name(record), record.adapter
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights",
        "base_model": record.model.name,
        "base_model_revision": record.model.revision,
        "base_model_sha256": record.model.sha256,
        "adapter": adapter and adapter.name,
        "adapter_revision": adapter and adapter.revision,
        "adapter_sha256": adapter and adapter.sha256,
        "peft_type": adapter and adapter.peft_type,
        "alignment_languages": adapter and ",".join(adapter.alignment_languages),
        "seed": _seed(record),
        "num_model_parameters": record.model.parameters,
        "dtype": record.model.dtype,
    }
    rows = [_eee_score(record, row) for row in record.results.scores]
    rows += [_eee_mean(record, row) for row in record.results.means]
    return _json(
        {
            "schema_version": EEE_SCHEMA,
            "evaluation_id": f"xlt-bench/{name.replace('/', '_')}/{created}",
            "evaluation_timestamp": created,
            "retrieved_timestamp": created,
            "source_metadata": {
                "source_name": "xlt-bench",
                "source_type": "evaluation_run",
                "source_organization_name": "xlt-bench",
                "evaluator_relationship": "other",
            },
            "eval_library": {"name": "xlt-bench", "version": version("xlt-bench")},
            "model_info": {"name": name, "id": name, "additional_details": _texts(details)},
            "evaluation_results": rows,
        }
    )


def _eee_score(record: Record, row: Score) -> dict[str, Any]:
    task = get_task(row.task)
    details = {
        "language": task.language_of(row.unit),
        "unit": row.unit,
        "setting": row.setting,
        "aligned": row.aligned,
    }
    result = _eee_result(record, task, row)
    result["evaluation_name"] = f"{row.task}/{row.unit}"
    result["source_data"]["additional_details"] |= _texts(details)
    result["score_details"]["details"] = _texts({"items": row.n})
    return result


def _eee_mean(record: Record, row: Mean) -> dict[str, Any]:
    result = _eee_result(record, get_task(row.task), row)
    result["evaluation_name"] = f"{row.task}/mean of {row.split}"
    details = {"units": ",".join(row.units), "missing": ",".join(row.missing)}
    result["score_details"]["details"] = details
    return result


def _eee_result(record: Record, task: Task, row: Score | Mean) -> dict[str, Any]:
    metric = {**task.metrics, **task.stored_metrics}[row.metric]
    interval = {"lower": row.low, "upper": row.high, "confidence_level": 0.95}
    is_accuracy = isinstance(row, Score) and task.is_accuracy(row.metric)
    method = record.results.accuracy_intervals if is_accuracy else "bootstrap"
    return {
        "evaluation_name": "",
        "source_data": _eee_source(record, task),
        "metric_config": {
            "metric_id": row.metric,
            "metric_name": row.metric,
            "metric_unit": "percent",
            "lower_is_better": not metric.higher_is_better,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 100,
        },
        "score_details": {
            "score": row.value,
            "uncertainty": {"confidence_interval": {**interval, "method": method}},
        },
    }


def _eee_source(record: Record, task: Task) -> dict[str, Any]:
    """The data set by its address; a package's own task has none."""
    pairing = retrieval_in([task.name])
    name = pairing.dataset if pairing else task.name
    details = _texts({"task_version": record.plan.task_versions[task.name]})
    if prompt := record.plan.prompts.get(task.name):
        details |= {"prompt": prompt.name}
    if pairing and not record.plan.corpus:
        details |= {"sentences": pairing.corpus}
    if name not in catalog() or record.plan.corpus:
        dataset = record.plan.corpus or task.title
        return {"dataset_name": dataset, "source_type": "other", "additional_details": details}
    found = catalog()[name]
    return {
        "dataset_name": found.title,
        "source_type": "url",
        "url": list(dict.fromkeys(file.url for file in found.files))[:1],
        "additional_details": details,
    }


def _lm_eval(record: Record) -> bytes:
    """As lm-eval: a task per unit, `metric,filter` as keys; the scores are those of its own run."""
    results: dict[str, dict[str, Any]] = {}
    counts: dict[str, dict[str, int]] = {}
    task_of: dict[str, str] = {}
    better: dict[str, dict[str, bool]] = {}
    for row in record.results.scores:
        if retrieval_in([row.task]):  # lm-eval's task has a score for each layer
            continue
        name, task = f"xlt_{row.task}_{row.unit}", get_task(row.task)
        found = results.setdefault(name, {"alias": name})
        found |= {f"{row.metric},none": row.value, f"{row.metric}_stderr,none": "N/A"}
        counts[name] = {"original": row.n, "effective": row.n}
        task_of[name] = row.task
        metric = {**task.metrics, **task.stored_metrics}[row.metric]
        better.setdefault(name, {})[row.metric] = metric.higher_is_better
    arguments = {"pretrained": record.model.name, "dtype": record.model.dtype}
    arguments |= {"peft": record.adapter.name} if record.adapter else {}
    return _json(
        {
            "results": results,
            "versions": {name: record.plan.task_versions[task] for name, task in task_of.items()},
            "n-shot": {name: _shots(record, task) for name, task in task_of.items()},
            "n-samples": counts,
            "higher_is_better": better,
            "config": {
                "model": record.plan.backend,
                "model_args": arguments,
                "model_num_parameters": record.model.parameters,
                "model_dtype": record.model.dtype,
                "limit": record.plan.limit,
            },
            "date": datetime.fromisoformat(record.created).timestamp(),
            "model_source": "xlt-bench",
            "model_name": _model_name(record),
        }
    )


def _shots(record: Record, task: str) -> int:
    prompt = record.plan.prompts.get(task)
    return prompt.shots if isinstance(prompt, ShotPrompt) else 0


def _parquet(record: Record) -> bytes:
    system = {
        "model": record.model.name,
        "adapter": record.adapter.name if record.adapter else None,
        "seed": _seed(record),
        "created": record.created,
    }
    rows = [
        system
        | {"version": record.plan.task_versions[row.task]}
        | {"prompt": prompt.name if (prompt := record.plan.prompts.get(row.task)) else None}
        | {"language": get_task(row.task).language_of(row.unit)}
        | row.model_dump()
        for row in record.results.scores
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd")
    return out.getvalue()


FORMATS: dict[str, Callable[[Record], bytes]] = {
    "eee": _eee,
    "lm-eval": _lm_eval,
    "parquet": _parquet,
}
