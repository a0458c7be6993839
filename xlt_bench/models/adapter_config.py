"""Validates adapter_config.json, which is untrusted, before peft reads it.

The tables below name the keys that are restricted, and to which values. `adapter_fit`, which has
the model, checks whether the weights have the shapes that a configuration asks for.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from xlt_bench.errors import InputError, one_line, unknown

# Kinds that need another model, other adapters or a task number besides the base.
_REFUSED_KINDS = {
    "SHADOW": "loads a second model",
    "XLORA": "loads other adapters",
    "MULTITASK_PROMPT_TUNING": "loads another adapter's weights and needs a task's number",
    "POLY": "needs a task's number",
    "LILY": "averages over the rows of a batch and their padding",
}
# Kinds whose virtual tokens peft adds only if the configuration names the task.
_PROMPTS = ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT", "CARTRIDGE")

# Keys that make peft load other files, models or code, or rebuild the base, each with its harmless
# values. `base_model_name_or_path` and `revision` only name the base, and peft opens
# `tokenizer_name_or_path` only in training.
_ELSEWHERE: dict[str, tuple[Any, ...]] = {
    "shadow_model": (None, "mirror"),
    "adapters": (None, {}),
    "prompt_tuning_init_state_dict_path": (None,),
    "megatron_config": (None, {}),
    "megatron_core": (None, "megatron.core"),
    "arrow_config": (None, {}),
    "layer_replication": (None, []),
    "cache_file": (None,),
    "covariance_file": (None,),
}

# A larger value is a mistake or an attack: a rank is at most a layer's width, peft loops over few
# of anything, and it allocates UniLoRA's vector before anything is compared with the weights.
MAX_RANK = 65_536
MAX_ALPHA = 1_000_000
_MOST = (
    dict.fromkeys(
        "r init_r target_r hybrid_r subspace_rank u vector_length num_vectors num_virtual_tokens "
        "num_frozen_tokens token_dim encoder_hidden_size adapter_len adapter_layers".split(),
        MAX_RANK,
    )
    | dict.fromkeys(
        "encoder_num_layers num_transformer_submodules num_cayley_neumann_terms depth gralora_k "
        "psoft_svd_lowrank_niter boft_n_butterfly_factor num_subspaces n_skills n_splits n_tasks "
        "num_samples buffer_size loftq_iter".split(),
        100,
    )
    | {"theta_d_length": 10_000_000}
)
# peft tries each pattern on each module, and recompiles patterns if there are many.
_MOST_NAMES, _MOST_PATTERNS = 10_000, 1_000

# Keys that peft reads as regular expressions: if the value is a string (_WHOLE), or each of its
# keys or items, with the `re` method and the pattern that peft builds around them (_EACH).
_WHOLE = ("target_modules", "exclude_modules", "feedforward_modules")
_EACH = {
    "rank_pattern": ("match", r"(.*\.)?({})$"),
    "alpha_pattern": ("match", r"(.*\.)?({})$"),
    "lambda_pattern": ("match", r"(.*\.)?({})$"),
    "n_frequency_pattern": ("match", r".*\.{}$"),
    "block_size_pattern": ("match", r".*\.{}$"),
    "modules_to_save": ("match", r"(^|.*\.){}($|\..*)"),
    "layers_pattern": ("match", r"(?:^|.*?\.){}\.(?P<idx>\d+)\."),
}
# AdaLora's rank_pattern has a full name for each module, not patterns.
_NO_PATTERNS = {("ADALORA", "rank_pattern")}
# A second adapter is also matched against the modules that the first one added.
_SUFFIXES = ("", ".base_layer", ".lora_magnitude_vector.adapter_0")
# CPU time, so that a busy machine does not refuse a valid adapter; wall-clock time only stops what
# hangs.
_SECONDS, _SECONDS_BY_THE_CLOCK = 5, 60
_MATCHER = """
import json, re, signal, sys
seconds, patterns, names = json.load(sys.stdin)
signal.setitimer(signal.ITIMER_PROF, seconds)
try:
    for method, pattern in patterns:
        match = getattr(re.compile(pattern), method)
        for name in names:
            match(name)
except Exception as error:
    sys.exit(str(error) or type(error).__name__)
"""


def check_config(adapter: str, config: dict[str, Any]) -> str:
    """Validate a configuration, except for its regular expressions.

    Args:
        adapter: The adapter's name, for messages.
        config: The content of adapter_config.json.

    Returns:
        The adapter's `peft_type`.

    Raises:
        InputError: If the kind is not supported, or a key has a value that no valid adapter has.
    """
    kind = _check_kind(adapter, config)
    _check_mapping(adapter, config)
    for values in _mappings(config):
        _check_elsewhere(adapter, values)
        _check_sizes(adapter, values)
    _check_lengths(adapter, kind, config)
    _check_init(adapter, config)
    if kind == "LORA":
        _check_lora(adapter, config)
    return kind


def _check_kind(adapter: str, config: dict[str, Any]) -> str:
    from peft import PeftType

    kind = config.get("peft_type")
    task = config.get("task_type")
    if not isinstance(kind, str):
        raise InputError(f"adapter {adapter}: adapter_config.json has no peft_type")
    kinds = sorted({kind.value for kind in PeftType} - set(_REFUSED_KINDS))
    if why := _REFUSED_KINDS.get(kind):
        raise InputError(f"adapter {adapter}: peft_type {kind} {why} and cannot be evaluated")
    if kind not in kinds:
        raise unknown(f"peft_type of adapter {adapter}", one_line(kind, 60), kinds)
    if task not in (None, "CAUSAL_LM"):
        raise InputError(
            f"adapter {adapter}: task_type must be CAUSAL_LM, got {one_line(task, 60)}"
        )
    if kind in _PROMPTS and task is None:
        raise InputError(
            f"adapter {adapter}: without task_type in adapter_config.json, peft does not apply "
            f'{kind}; set it to "CAUSAL_LM"'
        )
    return kind


def _mappings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the configuration and those nested in it (corda_config, ...)."""
    yield config
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict):
            yield value


def _check_elsewhere(adapter: str, values: dict[str, Any]) -> None:
    for key in _ELSEWHERE.keys() & values.keys():
        if values[key] not in _ELSEWHERE[key]:
            raise InputError(
                f"adapter {adapter}: {key} in adapter_config.json is {one_line(values[key], 60)}, "
                "but an adapter may load only its own weights; remove the key"
            )


def _check_sizes(adapter: str, values: dict[str, Any]) -> None:
    for key in _MOST.keys() & values.keys():
        size, most = values[key], _MOST[key]
        if size is None or (type(size) is int and 0 <= size <= most):
            continue
        name = "rank" if key == "r" else key
        raise InputError(
            f"adapter {adapter}: {name} in adapter_config.json must be between 0 and {most:,}, "
            f"got {one_line(size, 40)}"
        )


def _check_lengths(adapter: str, kind: str, config: dict[str, Any]) -> None:
    for key in (*_WHOLE, *_EACH, "target_parameters"):
        value = config.get(key)
        patterns = key in _EACH and (kind, key) not in _NO_PATTERNS
        most = _MOST_PATTERNS if patterns else _MOST_NAMES
        if isinstance(value, list | dict) and len(value) > most:
            raise InputError(
                f"adapter {adapter}: {key} in adapter_config.json has {len(value):,} entries, at "
                f"most {most:,} are allowed; name modules by their common suffix"
            )


def _check_init(adapter: str, config: dict[str, Any]) -> None:
    """Raise InputError if initial weights would take more than 99 SVD iterations."""
    how = str(config.get("init_lora_weights"))
    if how.startswith("pissa_niter_") and not re.fullmatch(r"pissa_niter_\d{1,2}", how):
        raise InputError(
            f"adapter {adapter}: init_lora_weights in adapter_config.json allows at most 99 "
            f"iterations, got {one_line(how, 60)}; set it to true"
        )


def _check_mapping(adapter: str, config: dict[str, Any]) -> None:
    """Raise InputError if the configuration makes peft import code outside transformers."""
    mapping = config.get("auto_mapping") or {}
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is not None and str(library).split(".")[0] != "transformers":
        raise InputError(
            f"adapter {adapter}: auto_mapping in adapter_config.json names code outside "
            f"transformers ({str(library)[:80]!r}), which is never run; remove the key"
        )


def _check_lora(adapter: str, config: dict[str, Any]) -> None:
    """Raise InputError for a rank or alpha out of range."""
    patterns = [config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise InputError(
            f"adapter {adapter}: rank_pattern and alpha_pattern in adapter_config.json must be "
            "JSON objects"
        )
    for rank in [config.get("r", 8), *patterns[0].values()]:
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise InputError(
                f"adapter {adapter}: rank in adapter_config.json must be between 1 and "
                f"{MAX_RANK:,}, got {one_line(rank, 40)}"
            )
    for alpha in [config.get("lora_alpha", 8), *patterns[1].values()]:
        if type(alpha) not in (int, float) or not 0 < alpha < MAX_ALPHA:
            raise InputError(
                f"adapter {adapter}: lora_alpha in adapter_config.json must be above 0 and "
                f"below {MAX_ALPHA:,}, got {one_line(alpha, 40)}"
            )


def _regexes(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each regular expression as peft builds it, after the method of `re` that peft calls.

    Plain names are left out, since they cannot be slow.
    """
    for key, form in {**dict.fromkeys(_WHOLE, ("fullmatch", "{}")), **_EACH}.items():
        value = config.get(key) or ()
        if not isinstance(value, str | list | dict) or (config["peft_type"], key) in _NO_PATTERNS:
            continue
        if key in _WHOLE and (not isinstance(value, str) or value == "all-linear"):
            continue
        for written in [value] if isinstance(value, str) else map(str, value):
            if re.search(r"[^\w.]", written):
                yield form[0], form[1].replace("{}", written)


def check_regexes(adapter: str, config: dict[str, Any], modules: Sequence[str]) -> None:
    """Check that the regular expressions of a configuration are valid and quick.

    A second interpreter matches them as peft will, since a match that backtracks can only be
    stopped by killing its process. Their form is not restricted: the patterns that tools such as
    Unsloth write are long and nested, and quick on real names.

    Args:
        adapter: The adapter's name, for messages.
        config: A configuration that `check_config` has accepted.
        modules: Names of the base model's modules.

    Raises:
        InputError: If a pattern is invalid or takes more than 5 seconds.
    """
    patterns = list(_regexes(config))
    if not patterns:
        return
    names = [name + suffix for name in modules for suffix in _SUFFIXES]
    command = [sys.executable, "-I", "-S", "-c", _MATCHER]
    given = json.dumps([_SECONDS, patterns, names])
    slow = "takes more than {} seconds to match; list the modules by name"
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=_SECONDS_BY_THE_CLOCK
        )
    except subprocess.TimeoutExpired:
        why = slow.format(_SECONDS_BY_THE_CLOCK)
    else:
        if done.returncode == 0:
            return
        if done.returncode == -signal.SIGPROF:
            why = slow.format(_SECONDS)
        else:
            why = f"is invalid: {one_line(done.stderr, 120)}"
    raise InputError(
        f"adapter {adapter}: a regular expression in adapter_config.json (target_modules, "
        f"rank_pattern, ...) {why}"
    )
