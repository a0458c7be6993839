"""Reads `--model-args`, as lm-eval does: `KEY=VALUE,...` or a JSON object. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

from xlt_bench.errors import InputError, unknown
from xlt_bench.results.redact import masked_values

SERVER_KEYS = (
    "base_url extra_body tokenizer num_concurrent max_retries timeout seed auth_token header "
    "verify_certificate ca_cert_path"
).split()
"""What the openai backend takes: lm-eval's names, `extra_body` as in OpenAI's own client."""

# What the benchmark fixes, or what --batch-size, --model and --limit are for.
_FIXED_FIELDS = ("messages", "model", "max_tokens", "temperature", "n", "stream")

# lm-eval's arguments for vLLM that an option of ours sets, and those that our prompts and our
# greedy decoding would not read.
_OPTIONS = {
    "pretrained": "--model",
    "model": "--model",
    "dtype": "--dtype",
    "revision": "--model NAME@REVISION",
    "lora_local_path": "--adapter",
    "enable_lora": "--adapter",
    "trust_remote_code": "--trust-remote-code",
}
_UNREAD = (
    "tokenizer tokenizer_mode tokenizer_revision skip_tokenizer_init add_bos_token prefix_token_id "
    "max_gen_toks enable_thinking chat_template_args think_end_token truncation_side device "
    "batch_size"
).split()

# vLLM's settings of speed and memory: a run may be resumed with others.
_SPEED = frozenset(
    "tensor_parallel_size pipeline_parallel_size data_parallel_size distributed_executor_backend "
    "gpu_memory_utilization kv_cache_memory_bytes cpu_offload_gb max_num_seqs max_batch_size "
    "max_num_batched_tokens enforce_eager enable_prefix_caching download_dir "
    "max_parallel_loading_workers disable_log_stats max_loras max_cpu_loras max_lora_rank".split()
)


def read_model_args(text: str | None) -> dict[str, Any]:
    """Read `--model-args`.

    Args:
        text: `KEY=VALUE,...` or a JSON object, or None.

    Returns:
        The values by key.

    Raises:
        InputError: If it is neither.
    """
    text = (text or "").strip()
    if text.startswith("{"):
        return _json_object("--model-args", text)
    if odd := [word for word in text.split(",") if word and "=" not in word]:
        raise InputError(
            f"--model-args: {odd[0]!r} is not KEY=VALUE; a value with commas needs a JSON object: "
            """--model-args '{"KEY": VALUE, ...}'"""
        )
    from lm_eval.utils import simple_parse_args_string  # half a second

    return dict(simple_parse_args_string(text))


def _json_object(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{name} must be a JSON object, got {text[:80]}")
    return found


def server_args(text: str | None) -> dict[str, Any]:
    """Read the `--model-args` of the openai backend.

    Args:
        text: As for `read_model_args`. `extra_body` has the fields that are sent with each request.

    Returns:
        The values by key; `extra_body` is a dict, empty if it was not given.

    Raises:
        InputError: If a key is unknown, `base_url` is missing, or a field is not the user's to set.
    """
    found = read_model_args(text)
    for key in found:
        if key not in SERVER_KEYS:
            raise unknown("--model-args key", key, SERVER_KEYS)
    if not found.get("base_url"):
        raise InputError(
            "--backend openai needs --model-args base_url=http://HOST:PORT/v1/chat/completions"
        )
    extra = found.get("extra_body") or {}
    if not isinstance(extra, dict):
        extra = _json_object("extra_body in --model-args", str(extra))
    if odd := [field for field in extra if field in _FIXED_FIELDS]:
        raise InputError(
            f"extra_body in --model-args cannot set {odd[0]}: it is the same for every model"
        )
    return found | {"extra_body": extra}


def engine_args(text: str | None) -> dict[str, Any]:
    """Read the `--model-args` of the vllm backend.

    Args:
        text: As for `read_model_args`. Unknown keys are left to vLLM, which knows its own.

    Returns:
        The values by key.

    Raises:
        InputError: If a key belongs to another option, or has no effect here.
    """
    found = read_model_args(text)
    for key in found:
        if key in _OPTIONS:
            raise InputError(f"use {_OPTIONS[key]} instead of {key} in --model-args")
        if key in _UNREAD:
            raise InputError(
                f"{key} in --model-args has no effect on --backend vllm, whose prompts and "
                "decoding are those of the hf backend; leave it out"
            )
    return found


def answer_settings(backend: str, text: str | None) -> str:
    """Select the settings that may change answers, for the plan.

    Args:
        backend: A backend.
        text: Its `--model-args`.

    Returns:
        JSON with sorted keys: a server's extra fields, or vLLM's settings other than those of speed
        and memory; empty without any. A plan is published, so secrets are `***`.
    """
    kept: dict[str, Any] = {}
    if backend == "openai":
        kept = server_args(text)["extra_body"]
    elif backend == "vllm":
        kept = {key: value for key, value in engine_args(text).items() if key not in _SPEED}
    return json.dumps(masked_values(kept), sort_keys=True, ensure_ascii=False) if kept else ""
