"""Merges a task adapter and an alignment adapter of one base (section 6.4, appendix D.3).

The merged weight change is the weighted sum w T + (1 - w) A. peft's "cat" keeps it exactly, as one
LoRA whose rank is the sum of the two ranks; "svd" approximates it by the larger of the two ranks.
peft's "linear" averages the factors instead, which is not that sum; it is here for comparison.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import yaml

from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError, unknown
from xlt_bench.models.adapter_card import alignment_languages, trained_on_flores, training
from xlt_bench.models.adapters import (
    CONFIG,
    AdapterFiles,
    base_of,
    check_local,
    copy_tokenizer,
    find_adapter,
    install,
)
from xlt_bench.models.chat import given_template
from xlt_bench.models.validate_names import check_device, check_model
from xlt_bench.results.atomic_write import in_use, is_part
from xlt_bench.results.run_folder import check_place, write_bytes, write_json
from xlt_bench.tasks.registry import get_text_task, selectable

if TYPE_CHECKING:
    from xlt_bench.models.adapter_fit import Fit
    from xlt_bench.models.load import Base
    from xlt_bench.models.tokenizer import Chat

Combination = Literal["cat", "svd", "linear"]

# Keys of LoRAs whose weight change is not just the product of two factors a layer: such changes
# cannot be added, or peft loses them when it merges.
_NO_SUM = (
    "use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "layer_replication",
    "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config",
    "monteclora_config", "target_parameters",
)  # fmt: skip


@dataclass(frozen=True)
class MergeOptions:
    """The options of `xlt-bench merge`. `weights` are weights of the task adapter, 0 to 1."""

    task: str
    alignment: str
    output: Path
    weights: Sequence[float] = (0.9,)
    select_on: str | None = None
    model: str | None = None
    combination: str = "cat"
    limit: int | None = None
    data_dir: str | None = None
    chat_template: str | None = None
    device: str | None = None
    trust_remote_code: bool = False


def merge(options: MergeOptions) -> dict[float, float]:
    """Merge two adapters, choosing the weight on dev data if several are given.

    Args:
        options: What to merge, and where to write it.

    Returns:
        The dev score of each weight: the task's primary score (0 to 100) on the validation split,
        averaged over the supervised units. Empty without `select_on`.

    Raises:
        InputError: If an option is wrong, or the adapters cannot be merged.
    """
    check(options)
    with in_use(options.output):
        return _merge(options)


def _merge(options: MergeOptions) -> dict[float, float]:
    from xlt_bench.models.load import choose_device, commit_of, load_base
    from xlt_bench.models.tokenizer import choose_chat

    task, alignment = find_adapter(options.task), find_adapter(options.alignment)
    name = options.model or base_of([options.task, options.alignment])
    commit = commit_of(name)
    fits = _check_fit(options, task, alignment, name, commit)
    device = choose_device(options.device)
    trust = options.trust_remote_code
    chat = None
    if options.select_on:
        chat = choose_chat(name, task, None, options.chat_template, {}, trust, commit)
    base = load_base(name, "float32", device, trust, commit, chat and chat.tokenizer)
    model = _with_both(base, task, alignment, fits)
    for weight in options.weights:
        try:
            model.add_weighted_adapter(
                ["task", "alignment"],
                [weight, 1 - weight],
                adapter_name=_named(weight),
                combination_type=options.combination,
            )
        except ValueError as error:
            line = str(error).split("\n")[0].removesuffix(" Please raise an issue on GitHub.")
            raise InputError(
                f"these adapters cannot be merged by {options.combination}: {line}"
            ) from None
    scores: dict[float, float] = {}
    if chat:
        for weight in options.weights:
            model.set_adapter(_named(weight))
            scores[weight] = _dev_score(options, chat, model)
    best = max(scores, key=lambda weight: scores[weight]) if scores else options.weights[0]
    told = [trained_on_flores(adapter) for adapter in (task, alignment)]
    seen = True if True in told else None if None in told else False
    languages = [*alignment_languages(alignment), *alignment_languages(task)]
    ours, theirs = training(task), training(alignment)
    merged = ours and theirs and ours.merged_with(theirs, best, options.combination)
    stated = {"trained_on_flores": seen, **(merged.model_dump() if merged else {})}
    _write(options, task, base, model, best, list(dict.fromkeys(languages)), scores, stated)
    return scores


def _named(weight: float) -> str:
    return f"merged_{weight:g}".replace(".", "_")


def check(options: MergeOptions) -> None:
    """Check the options without importing torch.

    Args:
        options: The options.

    Raises:
        InputError: If an option is wrong.
    """
    for weight in options.weights:
        if not 0 <= weight <= 1:
            raise InputError(f"weight must be between 0 and 1, got {weight:g}")
    if len(options.weights) > 1 and options.select_on is None:
        raise InputError("several weights need --select-on, the task to choose the best one by")
    if options.select_on not in (None, *selectable()):
        raise unknown("task to select on", str(options.select_on), selectable())
    if options.combination not in get_args(Combination):
        raise unknown("combination", options.combination, get_args(Combination))
    check_place(options.output)
    _check_empty(options.output)
    check_device(options.device)
    given_template(options.chat_template)
    if options.model:
        check_model(options.model)
    for name in (options.task, options.alignment):
        check_local(name)


def _check_empty(output: Path) -> None:
    if output.exists() and not all(is_part(path) for path in output.iterdir()):
        raise InputError(f"{output} is not empty; choose another --output")


def _check_fit(
    options: MergeOptions,
    task: AdapterFiles,
    alignment: AdapterFiles,
    name: str,
    commit: str | None,
) -> list[Fit]:
    """Check the adapters against the base, before it is loaded."""
    from xlt_bench.models.adapter_fit import check_adapter
    from xlt_bench.models.load import meta_model

    for adapter in (task, alignment):
        if adapter.config.get("peft_type") != "LORA":
            raise InputError(f"adapter {adapter.name} is not a LoRA; only LoRAs can be merged")
        more = [key for key in _NO_SUM if adapter.config.get(key)]
        if adapter.config.get("bias", "none") != "none":
            more.append("bias")
        if more:
            raise InputError(
                f"adapter {adapter.name} uses {more[0]}: its weight change is not the product of "
                "two factors a layer, and cannot be merged"
            )
    meta = meta_model(name, options.trust_remote_code, commit)
    fits = [check_adapter(adapter, meta, name) for adapter in (task, alignment)]
    for adapter, fit in zip((task, alignment), fits, strict=True):
        if fit.vocabulary is not None:
            raise _not_a_sum(adapter)
    return fits


def _not_a_sum(adapter: AdapterFiles) -> InputError:
    return InputError(
        f"adapter {adapter.name} changes the base model's own weights (embeddings in its file, or "
        "PiSSA and its like): its weight change is not the product of two factors a layer, and "
        "cannot be merged"
    )


def _with_both(base: Base, task: AdapterFiles, alignment: AdapterFiles, fits: Sequence[Fit]) -> Any:
    """The base with both adapters. Raises InputError if one of them changes the base's weights."""
    from xlt_bench.models.adapter_fit import Fit
    from xlt_bench.models.adapter_switch import load_adapter, prepare_base

    copies = prepare_base(base.model, Fit(frozenset().union(*(fit.replaced for fit in fits))))
    model = base.model
    for adapter, name in ((task, "task"), (alignment, "alignment")):
        model = load_adapter(model, base.name, adapter, name)
        if not all(own.equal(now) for own, now in copies):
            raise _not_a_sum(adapter)
    # peft gives the merged adapter the task's configuration. The scale is part of the factors by
    # then, so rsLoRA must not apply it again, and the modules of both adapters must be adapted.
    config, other = model.peft_config["task"], model.peft_config["alignment"]
    config.use_rslora = False
    for key in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if getattr(config, key) != getattr(other, key):
            setattr(config, key, None)
    return model


def _dev_score(options: MergeOptions, chat: Chat, model: Any) -> float:
    from xlt_bench.models.lm import XltLM

    task, root = get_text_task(str(options.select_on)), data_root(options.data_dir)
    lm = XltLM(pretrained=model, tokenizer=chat.tokenizer, batch_size="auto")
    lm.use_chat(chat)
    scores = []
    test_set = task.test_set()
    for unit in task.members(task.version, task.primary)["supervised"]:
        items = task.load(root, unit, "validation")[: options.limit]
        prompts = [lm.apply_chat_template(item.messages) for item in items]
        answers = [answer.text for answer in lm.generate(prompts, task.max_new_tokens)]
        counts = task.count(items, answers, test_set)[task.primary]
        scores.append(task.metric(task.primary)(counts))
    return float(np.mean(scores))


def _write(
    options: MergeOptions,
    task: AdapterFiles,
    base: Base,
    model: Any,
    weight: float,
    languages: Sequence[str],
    scores: dict[float, float],
    stated: dict[str, Any],
) -> None:
    """Write the files of the adapter, which answers as the task adapter's prompts ask."""
    name = _named(weight)
    with TemporaryDirectory() as staging:
        _check_empty(options.output)  # again: something may have been written meanwhile
        model.save_pretrained(staging, selected_adapters=[name])
        config = Path(staging) / name / CONFIG
        named = {"base_model_name_or_path": base.repository, "revision": base.revision}
        write_json(config, json.loads(config.read_text(encoding="utf-8")) | named)
        write_bytes(
            options.output / "README.md",
            _card(options, base, weight, languages, scores, stated).encode(),
        )
        copy_tokenizer(task, options.output)
        install(Path(staging) / name, options.output, given_template(options.chat_template))


def _card(
    options: MergeOptions,
    base: Base,
    weight: float,
    languages: Sequence[str],
    scores: dict[float, float],
    stated: dict[str, Any],
) -> str:
    head = {
        "base_model": base.repository,
        "library_name": "peft",
        "alignment_languages": list(languages),
        "xlt_bench": {
            "merged": {"task": options.task, "alignment": options.alignment, "weight": weight},
            "combination": options.combination,
            "selected_on": options.select_on,
            **stated,
            "base_sha256": base.sha256,
            "base_revision": base.revision,
            "trust_remote_code": options.trust_remote_code,
            "dev_scores": {f"{key:g}": value for key, value in scores.items()},
        },
    }
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# A merged adapter\n\n"
        f"{weight:g} of `{options.task}` and {1 - weight:g} of `{options.alignment}`, "
        f"by peft's `{options.combination}`.\n"
    )
