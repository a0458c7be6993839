"""What adapter_config.json may say: strangers write it, and peft does what it says.

Tables of keys, so that what is refused can be read off; whether the weights have the shapes that a
configuration asks for is for `adapters.check_adapter`, which has the model.
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

# Kinds that are nothing without other models, adapters or task numbers beside the base.
_REFUSED_KINDS = {
    "SHADOW": "loads a second model beside the base",
    "XLORA": "loads other adapters",
    "MULTITASK_PROMPT_TUNING": "loads another adapter's weights and needs a task's number",
}

# Keys by which peft comes to load other files, models or code, or builds the base anew, and the
# values that do not. `base_model_name_or_path` and `revision` only name the base, and peft opens
# `tokenizer_name_or_path` in training alone.
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
# peft tries each pattern on each module, and compiles it anew where there are many.
_MOST_NAMES, _MOST_PATTERNS = 10_000, 1_000

# What peft takes as a regular expression where it is a string, or by each of its keys or items; and
# how it matches them.
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
# AdaLora's rank_pattern holds whole names, one for each module.
_NO_PATTERNS = {("ADALORA", "rank_pattern")}
# A second adapter is matched against the modules of the first one too.
_SUFFIXES = ("", ".base_layer", ".lora_magnitude_vector.adapter_0")
# Of the processor, so that a busy machine refuses no sound adapter; the clock only ends what hangs.
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
    """The kind of adapter. Raises InputError, in one line, for what no sound adapter says."""
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
        raise InputError(f"adapter {adapter}: peft_type {kind} {why}, and is not evaluated")
    if kind not in kinds:
        raise unknown(f"peft_type of adapter {adapter}", one_line(kind, 60), kinds)
    if task not in (None, "CAUSAL_LM"):
        raise InputError(f"adapter {adapter} is for {one_line(task, 60)}, not for CAUSAL_LM")
    return kind


def _mappings(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration, and the configurations within it (corda_config, ...)."""
    yield config
    for key, value in config.items():
        if key.endswith("_config") and isinstance(value, dict):
            yield value


def _check_elsewhere(adapter: str, values: dict[str, Any]) -> None:
    for key in _ELSEWHERE.keys() & values.keys():
        if values[key] not in _ELSEWHERE[key]:
            raise InputError(
                f"adapter {adapter}: {key} in adapter_config.json is {one_line(values[key], 60)}: "
                "an adapter may load nothing but its own weights; remove the key"
            )


def _check_sizes(adapter: str, values: dict[str, Any]) -> None:
    for key in _MOST.keys() & values.keys():
        size, most = values[key], _MOST[key]
        if size is None or (type(size) is int and 0 <= size <= most):
            continue
        name = "rank" if key == "r" else key
        raise InputError(
            f"adapter {adapter}: {name} {one_line(size, 40)} in adapter_config.json is none from "
            f"0 to {most:,}"
        )


def _check_lengths(adapter: str, kind: str, config: dict[str, Any]) -> None:
    for key in (*_WHOLE, *_EACH, "target_parameters"):
        value = config.get(key)
        patterns = key in _EACH and (kind, key) not in _NO_PATTERNS
        most = _MOST_PATTERNS if patterns else _MOST_NAMES
        if isinstance(value, list | dict) and len(value) > most:
            raise InputError(
                f"adapter {adapter}: {key} in adapter_config.json has {len(value):,} entries, more "
                f"than {most:,}; name modules by their common ending"
            )


def _check_init(adapter: str, config: dict[str, Any]) -> None:
    """Raise InputError where the weights would be begun by more than 99 rounds of an SVD."""
    how = str(config.get("init_lora_weights"))
    if how.startswith("pissa_niter_") and not re.fullmatch(r"pissa_niter_\d{1,2}", how):
        raise InputError(
            f"adapter {adapter}: init_lora_weights {one_line(how, 60)} in adapter_config.json asks "
            "for more than 99 rounds; set it to true"
        )


def _check_mapping(adapter: str, config: dict[str, Any]) -> None:
    """Raise InputError where the adapter names code outside transformers to be imported."""
    mapping = config.get("auto_mapping") or {}
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is not None and str(library).split(".")[0] != "transformers":
        raise InputError(
            f"adapter {adapter}: auto_mapping in adapter_config.json names code of its own "
            f"({str(library)[:80]!r}), which is not run; remove the key"
        )


def _check_lora(adapter: str, config: dict[str, Any]) -> None:
    """Raise InputError for a rank or alpha that no LoRA has."""
    patterns = [config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise InputError(f"adapter {adapter}: rank_pattern or alpha_pattern is no mapping")
    for rank in [config.get("r", 8), *patterns[0].values()]:
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise InputError(
                f"adapter {adapter}: rank {one_line(rank, 40)} in adapter_config.json is none from "
                f"1 to {MAX_RANK:,}"
            )
    for alpha in [config.get("lora_alpha", 8), *patterns[1].values()]:
        if type(alpha) not in (int, float) or not 0 < alpha < MAX_ALPHA:
            raise InputError(
                f"adapter {adapter}: lora_alpha {one_line(alpha, 40)} in adapter_config.json is no "
                f"number from 0 to {MAX_ALPHA:,}"
            )


def _regexes(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The method of `re` that peft calls, and what it calls it with, for each regular expression.

    Plain names are left out: they need no trial.
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
    """Raise InputError for regular expressions that are none, or take too long on these modules.

    They are matched, as peft will match them, by a second interpreter, since nothing but its end
    stops a match that backtracks. What a pattern may look like is not restricted: those that tools
    write, such as Unsloth's, repeat and nest a lot and are quick on real names.
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
            why = f"is wrong: {one_line(done.stderr, 120)}"
    raise InputError(
        f"adapter {adapter}: a regular expression in adapter_config.json (target_modules, "
        f"rank_pattern, ...) {why}"
    )
