"""Merges a task adapter with others of one base (section 6.4, appendix D.3).

With an alignment adapter, the merged weight change is w T + (1 - w) A, or some blocks of the one
and the rest of the other; with two adapters of a reference task, T plus their difference
(`training.mixture`). peft's "cat" keeps the sum exactly, as one LoRA whose rank is the sum of all
ranks; "svd" approximates it by the largest rank. peft's "linear" averages the factors instead,
which is not that sum; it is here for comparison.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from xlt_bench.data import chats
from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError, unknown
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
from xlt_bench.results.atomic_write import in_use
from xlt_bench.results.run_folder import check_empty, write_bytes, write_json
from xlt_bench.tasks.registry import get_text_task, selectable
from xlt_bench.training.merge_card import merge_card
from xlt_bench.training.mixture import (
    ALIGNMENT,
    SOURCE,
    TARGET,
    TASK,
    Mixture,
    moved,
    parse_blocks,
    shares,
    swapped,
    weighted,
)

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
    """The options of `xlt-bench merge`.

    A task adapter is merged with an alignment adapter or with two adapters of a reference task.
    `weights` are the task adapter's, 0 to 1, by default 0.9; with a reference task those of the
    difference, by default 1. Blocks, such as `5-12`, swap layers instead.
    """

    task: str
    alignment: str | None
    output: Path
    weights: Sequence[float] = ()
    reference_source: str | None = None
    reference_target: str | None = None
    alignment_blocks: Sequence[str] = ()
    task_blocks: Sequence[str] = ()
    transition: int = 0
    select_on: str | None = None
    model: str | None = None
    combination: str = "cat"
    limit: int | None = None
    data_dir: str | None = None
    chat_template: str | None = None
    device: str | None = None
    trust_remote_code: bool = False

    @property
    def adapters(self) -> dict[str, str]:
        """The adapters by the parts that they play; the task adapter first."""
        others = {
            ALIGNMENT: self.alignment,
            SOURCE: self.reference_source,
            TARGET: self.reference_target,
        }
        return {TASK: self.task} | {part: name for part, name in others.items() if name}

    @property
    def mixtures(self) -> list[Mixture]:
        """The ways to merge, of which `select_on` chooses one."""
        if self.alignment is None:
            return [moved(weight) for weight in self.weights or [1.0]]
        if self.alignment_blocks or self.task_blocks:
            inner = ALIGNMENT if self.alignment_blocks else TASK
            given = self.alignment_blocks or self.task_blocks
            return [swapped(parse_blocks(text, self.transition), inner) for text in given]
        return [weighted(weight) for weight in self.weights or [0.9]]


def merge(options: MergeOptions) -> dict[str, float]:
    """Merge adapters, choosing the way on dev data if several are given.

    Args:
        options: What to merge, and where to write it.

    Returns:
        The dev score of each weight or range of blocks: the task's primary score (0 to 100) on the
        validation split, averaged over the supervised units; on a file of chats, the negative
        loss. Empty without `select_on`.

    Raises:
        InputError: If an option is wrong, or the adapters cannot be merged.
    """
    check(options)
    with in_use(options.output):
        return _merge(options)


def _merge(options: MergeOptions) -> dict[str, float]:
    from xlt_bench.models.load import choose_device, commit_of, load_base
    from xlt_bench.models.tokenizer import choose_chat

    adapters = {part: find_adapter(name) for part, name in options.adapters.items()}
    name = options.model or base_of(list(options.adapters.values()))
    commit = commit_of(name)
    fits = _check_fit(options, adapters, name, commit)
    device = choose_device(options.device)
    trust = options.trust_remote_code
    chat = None
    if options.select_on:
        chat = choose_chat(name, adapters[TASK], None, options.chat_template, {}, trust, commit)
    base = load_base(name, "float32", device, trust, commit, chat and chat.tokenizer)
    model = _with_all(base, adapters, fits)
    for mixture in options.mixtures:
        _add(model, mixture, options.combination)
    scores: dict[str, float] = {}
    if chat:
        for mixture in options.mixtures:
            model.set_adapter(_named(mixture))
            scores[mixture.label] = _dev_score(options, chat, model)
    by_label = {mixture.label: mixture for mixture in options.mixtures}
    best = by_label[max(scores, key=scores.__getitem__)] if scores else options.mixtures[0]
    _write(options, adapters, base, model, best, scores)
    return scores


def _add(model: Any, mixture: Mixture, combination: str) -> None:
    """Add the merged adapter to the model, under its own name."""
    try:
        with shares(model, mixture):
            model.add_weighted_adapter(
                list(mixture.weights),
                list(mixture.weights.values()),
                adapter_name=_named(mixture),
                combination_type=combination,
            )
    except ValueError as error:
        line = str(error).split("\n")[0].removesuffix(" Please raise an issue on GitHub.")
        raise InputError(f"these adapters cannot be merged by {combination}: {line}") from None


def _named(mixture: Mixture) -> str:
    return f"merged_{mixture.label}".replace(".", "_")


def check(options: MergeOptions) -> None:
    """Check the options without importing torch.

    Args:
        options: The options.

    Raises:
        InputError: If an option is wrong.
    """
    _check_parts(options)
    if len(options.mixtures) > 1 and options.select_on is None:
        what = "weights" if options.weights else "ranges of blocks"
        raise InputError(f"several {what} need --select-on, the task to choose the best one by")
    if _is_file(options.select_on):
        chats.load(Path(str(options.select_on)))  # a wrong line is told before the base is loaded
    elif options.select_on not in (None, *selectable()):
        raise unknown("task to select on", str(options.select_on), [*selectable(), "a .jsonl file"])
    if options.combination not in get_args(Combination):
        raise unknown("combination", options.combination, get_args(Combination))
    check_empty(options.output)
    check_device(options.device)
    given_template(options.chat_template)
    if options.model:
        check_model(options.model)
    for name in options.adapters.values():
        check_local(name)


def _check_parts(options: MergeOptions) -> None:
    """Raise InputError for adapters and weights that are no merge."""
    references = [options.reference_source, options.reference_target]
    swaps = options.alignment_blocks or options.task_blocks
    if any(references) if options.alignment else not all(references):
        raise InputError(
            "give --alignment, or both --reference-source and --reference-target, beside --task"
        )
    most = 1 if options.alignment else 2
    for weight in options.weights:
        if not 0 <= weight <= most:
            raise InputError(f"weight must be between 0 and {most}, got {weight:g}")
    if swaps and (options.weights or not options.alignment):
        raise InputError("blocks need --alignment, and no weight: a block is one adapter's")
    if options.alignment_blocks and options.task_blocks:
        raise InputError("give --alignment-blocks or --task-blocks; the other adapter has the rest")
    if options.transition and not swaps:
        raise InputError("--transition needs --alignment-blocks or --task-blocks")
    if options.combination == "linear" and (swaps or not options.alignment):
        raise InputError("linear is for weights of a task and an alignment adapter; use cat")


def _check_fit(
    options: MergeOptions, adapters: Mapping[str, AdapterFiles], name: str, commit: str | None
) -> list[Fit]:
    """Check adapters and blocks against the base, before it is loaded."""
    from xlt_bench.models.adapter_fit import check_adapter
    from xlt_bench.models.hidden_states import count_layers
    from xlt_bench.models.load import meta_model

    for adapter in adapters.values():
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
    for mixture in options.mixtures:
        if mixture.blocks and mixture.blocks.last > count_layers(meta):
            raise InputError(
                f"blocks must be between 1 and {count_layers(meta)} for this model, got "
                f"{mixture.label}"
            )
    fits = [check_adapter(adapter, meta, name) for adapter in adapters.values()]
    for adapter, fit in zip(adapters.values(), fits, strict=True):
        if fit.vocabulary is not None:
            raise _not_a_sum(adapter)
    return fits


def _not_a_sum(adapter: AdapterFiles) -> InputError:
    return InputError(
        f"adapter {adapter.name} changes the base model's own weights (embeddings in its file, or "
        "PiSSA and its like): its weight change is not the product of two factors a layer, and "
        "cannot be merged"
    )


def _with_all(base: Base, adapters: Mapping[str, AdapterFiles], fits: Sequence[Fit]) -> Any:
    """The base with all adapters. Raises InputError if one of them changes the base's weights."""
    from xlt_bench.models.adapter_fit import Fit
    from xlt_bench.models.adapter_switch import load_adapter, prepare_base

    copies = prepare_base(base.model, Fit(frozenset().union(*(fit.replaced for fit in fits))))
    model = base.model
    for part, adapter in adapters.items():
        model = load_adapter(model, base.name, adapter, part)
        if not all(own.equal(now) for own, now in copies):
            raise _not_a_sum(adapter)
    # peft gives the merged adapter the task's configuration. The scale is part of the factors by
    # then, so rsLoRA must not apply it again, and the modules of all adapters must be adapted.
    config = model.peft_config[TASK]
    config.use_rslora = False
    for key in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if any(getattr(other, key) != getattr(config, key) for other in model.peft_config.values()):
            setattr(config, key, None)
    return model


def _is_file(select_on: str | None) -> bool:
    """Whether a merge is chosen on a user's own chats instead of a task."""
    return select_on is not None and select_on.endswith((".jsonl", ".jsonl.gz"))


def _dev_score(options: MergeOptions, chat: Chat, model: Any) -> float:
    from xlt_bench.models.lm import XltLM
    from xlt_bench.training.dev_loss import dev_loss

    if _is_file(options.select_on):
        return -dev_loss(model, chat.tokenizer, Path(str(options.select_on)), options.limit)

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
    adapters: Mapping[str, AdapterFiles],
    base: Base,
    model: Any,
    mixture: Mixture,
    scores: dict[str, float],
) -> None:
    """Write the files of the adapter, which answers as the task adapter's prompts ask."""
    name = _named(mixture)
    with TemporaryDirectory() as staging:
        check_empty(options.output)  # again: something may have been written meanwhile
        model.save_pretrained(staging, selected_adapters=[name])
        config = Path(staging) / name / CONFIG
        named = {"base_model_name_or_path": base.repository, "revision": base.revision}
        write_json(config, json.loads(config.read_text(encoding="utf-8")) | named)
        card = merge_card(options, adapters, base, mixture, scores)
        write_bytes(options.output / "README.md", card.encode())
        copy_tokenizer(adapters[TASK], options.output)
        install(Path(staging) / name, options.output, given_template(options.chat_template))
