"""PEFT adapters: found, checked against the base before any work, and shown to have an effect."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from xlt_bench.embedded import shipped
from xlt_bench.errors import InputError, one_line, unknown
from xlt_bench.languages import language
from xlt_bench.runs import write_bytes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# huggingface_hub's own rule, which takes a tenth of a second to import.
_HUB_NAME = re.compile(
    r"(?!.*(?:--|\.\.))(?:\w(?:[\w.-]{0,94}\w)?/)?\w(?:[\w.-]{0,94}\w)?", re.ASCII
)


# Beyond these a configuration is broken or hostile: a rank is at most a layer's width.
_MAX_RANK = 65_536
_MAX_ALPHA = 1_000_000


@dataclass(frozen=True)
class AdapterFiles:
    """A local adapter folder whose configuration and weights have been read."""

    name: str
    folder: Path
    config: dict[str, Any]
    sha256: str
    shapes: dict[str, tuple[int, ...]]


def split_revision(name: str) -> tuple[str, str | None]:
    """`name@revision` of the hub as its two parts; a local folder keeps its whole name.

    `embedded` and its like are the folders that ship with the package.
    """
    name = shipped(name)
    if Path(name).exists() or "@" not in name:
        return name, None
    base, _, revision = name.rpartition("@")
    return base, revision


def looks_local(name: str) -> bool:
    """Whether a name can only be a folder's: no hub name looks like that."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1


def check_hub_name(kind: str, name: str) -> None:
    """Raise InputError, in one line and without the hub, for a name that nothing there can have."""
    repo, revision = split_revision(name)
    if revision == "" or not _HUB_NAME.fullmatch(repo):
        raise InputError(f"{kind} {name}: there is no such folder, and no hub name looks like that")


def check_local(name: str) -> Path | None:
    """The folder of a local adapter, None for a hub name; what is in the files is not read.

    Raises InputError, in one line, where a file is missing or the name can only be a folder's.
    """
    folder = Path(shipped(name)).expanduser()
    if folder.is_dir():
        _check_files(name, folder)
        return folder
    check_hub_name("adapter", name)
    return None


def _check_files(name: str, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise InputError(f"adapter {name}: no adapter_config.json there; is it a PEFT adapter?")
    if not (folder / WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise InputError(
                f"adapter {name}: only pickled weights (adapter_model.bin), which are not loaded; "
                "save it again with save_pretrained(..., safe_serialization=True)"
            )
        raise InputError(f"adapter {name}: no {WEIGHTS} there")


def find_adapter(name: str) -> AdapterFiles:
    """The adapter at a local folder or `hub-name[@revision]`. Raises InputError in one line."""
    folder = check_local(name)
    if folder is None:
        folder = _download(name)
        _check_files(name, folder)
    config_path, weights = folder / CONFIG, folder / WEIGHTS
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        with safe_open(weights, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (ValueError, OSError, SafetensorError) as error:
        raise InputError(f"adapter {name} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"adapter {name}: {CONFIG} holds no JSON object; is it a PEFT adapter?")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return AdapterFiles(name, folder, config, digest, shapes)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repo, revision = split_revision(name)
    patterns = [CONFIG, WEIGHTS, "README.md"]
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client has many, and none carries more than its text
        line = str(error).strip().split("\n")[0]
        raise InputError(
            f"no adapter {name}: not a folder here, and the hub says: {line}"
        ) from None


def install(saved: Path, folder: Path) -> None:
    """Copy a saved adapter, each file whole; the weights come last, since they mean done."""
    for name in (CONFIG, WEIGHTS):
        write_bytes(folder / name, (saved / name).read_bytes())


def check_adapter(adapter: AdapterFiles, model: Any, model_name: str) -> None:
    """Raise InputError, in one line, if the adapter does not fit the (meta or real) base model."""
    from peft import PeftType

    kind = adapter.config.get("peft_type")
    task = adapter.config.get("task_type")
    if not isinstance(kind, str):
        raise InputError(f"adapter {adapter.name}: adapter_config.json has no peft_type")
    kinds = sorted(kind.value for kind in PeftType)
    if kind not in kinds:
        raise unknown(f"peft_type of adapter {adapter.name}", one_line(kind, 60), kinds)
    if task not in (None, "CAUSAL_LM"):
        raise InputError(f"adapter {adapter.name} is for {task}, not for CAUSAL_LM")
    _check_mapping(adapter)
    if kind != "LORA":
        return
    _check_lora(adapter)
    linear = {
        name: module.weight.shape
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }
    trained_on = adapter.config.get("base_model_name_or_path")
    for key, shape in adapter.shapes.items():
        path, dot, rest = key.removeprefix("base_model.model.").partition(".lora_")
        if not dot or rest.split(".")[0] not in ("A", "B"):
            continue
        if path not in linear:
            raise InputError(
                f"adapter {adapter.name} does not fit {model_name}: the model has no module {path} "
                f"(the adapter was trained on {trained_on})"
            )
        out_features, in_features = linear[path]
        wanted, got = (in_features, shape[1]) if rest[0] == "A" else (out_features, shape[0])
        if wanted != got:
            raise InputError(
                f"adapter {adapter.name} does not fit {model_name}: {path} has size {wanted}, the "
                f"adapter's lora_{rest[0]} {got} (it was trained on {trained_on})"
            )


def _check_mapping(adapter: AdapterFiles) -> None:
    """Raise InputError where the adapter names code outside transformers to be imported."""
    mapping = adapter.config.get("auto_mapping") or {}
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is not None and str(library).split(".")[0] != "transformers":
        raise InputError(
            f"adapter {adapter.name}: auto_mapping in {CONFIG} names code of its own "
            f"({str(library)[:80]!r}), which is not run; remove the key"
        )


def _check_lora(adapter: AdapterFiles) -> None:
    """Raise InputError for a rank or alpha that no LoRA has."""
    config = adapter.config
    patterns = [config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise InputError(f"adapter {adapter.name}: rank_pattern or alpha_pattern is no mapping")
    for rank in [config.get("r", 8), *patterns[0].values()]:
        if type(rank) is not int or not 1 <= rank <= _MAX_RANK:
            raise InputError(
                f"adapter {adapter.name}: rank {str(rank)[:40]} in {CONFIG} is none from 1 to "
                f"{_MAX_RANK:,}"
            )
    for alpha in [config.get("lora_alpha", 8), *patterns[1].values()]:
        if type(alpha) not in (int, float) or not 0 < alpha < _MAX_ALPHA:
            raise InputError(
                f"adapter {adapter.name}: lora_alpha {str(alpha)[:40]} in {CONFIG} is no number "
                f"from 0 to {_MAX_ALPHA:,}"
            )


def alignment_languages(adapter: AdapterFiles) -> list[str]:
    """The languages that the adapter was aligned on, as its card's metadata states them.

    Key `alignment_languages` of the YAML head of README.md; empty where there is none. Raises
    InputError for a broken head or an unknown language.
    """
    languages = _card_head(adapter).get("alignment_languages") or []
    if not isinstance(languages, list) or not all(isinstance(code, str) for code in languages):
        # YAML reads a bare `no` as false: Norwegian must be quoted.
        raise InputError(
            f"adapter {adapter.name}: alignment_languages in the head of README.md must be a list "
            f'of language codes like [de, "no"], not {languages!r}'
        )
    return [language(code).code for code in languages]


def recipe_name(adapter: AdapterFiles) -> str | None:
    """The recipe that made the adapter, as a card that `train` wrote names it; else None.

    Raises InputError for a broken head.
    """
    ours = _card_head(adapter).get("xlt_bench")
    name = ours.get("recipe") if isinstance(ours, dict) else None
    return name if isinstance(name, str) else None


def trained_on_flores(adapter: AdapterFiles) -> bool | None:
    """Whether FLORES dev was in the training text, as a card of `train` or `merge` says; else None.

    Raises InputError for a broken head.
    """
    ours = _card_head(adapter).get("xlt_bench")
    told = ours.get("trained_on_flores") if isinstance(ours, dict) else None
    return told if isinstance(told, bool) else None


def _card_head(adapter: AdapterFiles) -> dict[str, Any]:
    """The YAML head of README.md; empty where there is none."""
    import yaml

    card = adapter.folder / "README.md"
    if not card.is_file():
        return {}
    try:
        parts = card.read_text(encoding="utf-8").split("---", 2)
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}
    except UnicodeDecodeError as error:
        raise InputError(
            f"adapter {adapter.name}: README.md is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        line = str(error).split("\n")[0]
        raise InputError(f"adapter {adapter.name}: README.md has a broken head: {line}") from None
    return head if isinstance(head, dict) else {}


def change_norms(peft_model: Any, adapter_name: str) -> dict[str, float]:
    """The Frobenius norm of what the adapter adds to the weights, per kind of module (q_proj, ...).

    For LoRA ||scale B A||, from the factors' Gram matrices, without building the product; for other
    kinds of adapter the norm of their own parameters.
    """
    squares: defaultdict[str, float] = defaultdict(float)
    for name, module in peft_model.named_modules():
        factors = getattr(module, "lora_A", None)
        if factors is None or adapter_name not in factors:
            continue
        a = factors[adapter_name].weight.detach().double()
        b = module.lora_B[adapter_name].weight.detach().double()
        gram = ((b.T @ b) * (a @ a.T)).sum().item()
        squares[name.rsplit(".", 1)[-1]] += module.scaling[adapter_name] ** 2 * gram
    if not squares:
        for name, parameter in peft_model.named_parameters():
            if f".{adapter_name}" in name:
                squares["parameters"] += parameter.detach().double().pow(2).sum().item()
    return {kind: math.sqrt(max(square, 0.0)) for kind, square in sorted(squares.items())}


def attach(model: Any, base: str, adapters: Sequence[AdapterFiles]) -> tuple[Any, dict[str, str]]:
    """The model `base` with all adapters loaded beside each other, and peft's name of each.

    Raises InputError for an adapter that does not fit the base, or lacks weights.
    """
    if not adapters:
        return model, {}
    from peft import PeftModel

    names = {adapter.name: f"adapter_{i}" for i, adapter in enumerate(adapters)}
    for adapter in adapters:
        folder, name = str(adapter.folder), names[adapter.name]
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(folder, adapter_name=name)
            else:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            line = str(error).strip().split("\n")[0]
            raise InputError(f"adapter {adapter.name} does not fit {base}: {line}") from None
        _check_complete(model, name, adapter)
    return model.eval(), names


def _check_complete(model: Any, name: str, adapter: AdapterFiles) -> None:
    """Raise InputError for weights that the adapter's file lacks: peft would leave them at zero."""
    from peft import get_peft_model_state_dict

    wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    if lacking := sorted(set(wanted) - set(adapter.shapes)):
        raise InputError(
            f"adapter {adapter.name} lacks {len(lacking)} of {len(wanted)} weights that its "
            f"configuration names, {lacking[0]} first: is it of a smaller model, or cut off?"
        )
