"""PEFT adapters: found, checked against the base before any work, and shown to have an effect."""

from __future__ import annotations

import copy
import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from xlt_bench.errors import InputError, one_line
from xlt_bench.languages import language
from xlt_bench.models.adapter_config import check_config, check_regexes
from xlt_bench.models.embedded import shipped
from xlt_bench.results.run_folder import file_digest, write_bytes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# huggingface_hub's own rule, which takes a tenth of a second to import.
_HUB_NAME = re.compile(
    r"(?!.*(?:--|\.\.))(?:\w(?:[\w.-]{0,94}\w)?/)?\w(?:[\w.-]{0,94}\w)?", re.ASCII
)

# More than any adapter's: AdaLora's ranks, a mask for each module, make the longest configuration.
_MAX_FILE = 4_000_000
_MAX_HEAD = 100_000


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
    weights = folder / WEIGHTS
    try:
        config = json.loads(_read(folder / CONFIG))
        digest = file_digest(weights)
        shapes = _shapes(weights)
    except (ValueError, RecursionError, OSError, SafetensorError) as error:
        raise InputError(f"adapter {name} cannot be read: {one_line(error, 200)}") from None
    if not isinstance(config, dict):
        raise InputError(f"adapter {name}: {CONFIG} holds no JSON object; is it a PEFT adapter?")
    return AdapterFiles(name, folder, config, digest, shapes)


def _read(path: Path) -> str:
    """The text of a small file. Raises ValueError for one that is larger than any adapter's."""
    if path.stat().st_size > _MAX_FILE:
        raise ValueError(f"{path.name} is larger than {_MAX_FILE // 1_000_000} MB")
    return path.read_text(encoding="utf-8")


def _shapes(weights: Path) -> dict[str, tuple[int, ...]]:
    """The tensors' shapes. Raises ValueError for a number that is none, which peft would load."""
    shapes = {}
    with safe_open(weights, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(key)
            if not tensor.float().isfinite().all():  # 8-bit floats have no isfinite of their own
                raise ValueError(f"{one_line(key, 120)} in {WEIGHTS} is NaN or infinite in places")
            shapes[key] = tuple(tensor.shape)
    return shapes


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
    """Raise InputError, in one line, if the adapter does not fit the base, a model on meta."""
    kind = check_config(adapter.name, adapter.config)
    check_regexes(adapter.name, adapter.config, [name for name, _ in model.named_modules()])
    if kind == "LORA":
        _check_lora_fits(adapter, model, model_name)
    _check_build(adapter, model, model_name)


def _check_lora_fits(adapter: AdapterFiles, model: Any, model_name: str) -> None:
    """Say of a LoRA which module is missing or has another size, which peft says at length."""
    linear = {
        name: module.weight.shape
        for name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }
    trained_on = one_line(adapter.config.get("base_model_name_or_path"), 80)
    for key, shape in adapter.shapes.items():
        path, dot, rest = key.removeprefix("base_model.model.").partition(".lora_")
        if not dot or rest.split(".")[0] not in ("A", "B"):
            continue
        if path not in linear:
            raise InputError(
                f"adapter {adapter.name} does not fit {model_name}: the model has no module "
                f"{one_line(path, 120)} (the adapter was trained on {trained_on})"
            )
        axis = 1 if rest[0] == "A" else 0
        wanted = linear[path][axis]
        got = shape[axis] if axis < len(shape) else f"shape {list(shape)}"
        if wanted != got:
            raise InputError(
                f"adapter {adapter.name} does not fit {model_name}: {path} has size {wanted}, the "
                f"adapter's lora_{rest[0]} {got} (it was trained on {trained_on})"
            )


def _check_build(adapter: AdapterFiles, model: Any, model_name: str) -> None:
    """Raise InputError unless peft, building the adapter, asks for just the shapes in its file.

    It is built beside a copy of the base on meta, where a rank of millions takes no memory.
    """
    import torch
    from peft import PeftConfig
    from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # peft says it again when the adapter is loaded
        try:
            config = PeftConfig.from_pretrained(str(adapter.folder))
            config.inference_mode = True  # else prompt tuning would open a tokenizer
            config.init_lora_weights = False  # PiSSA and others would begin with the base's values
            built = MODEL_TYPE_TO_PEFT_MODEL_MAPPING["CAUSAL_LM"](
                copy.deepcopy(model), config, "default", low_cpu_mem_usage=True
            )
            wanted = _wanted(built, "default")
        except Exception as error:  # peft has no type of its own for what is wrong in a config
            if _needs_values(error):
                return _check_ranks(adapter, model)
            raise _misfit(adapter, model_name, error) from None
    _check_complete(wanted, adapter)
    for key, shape in wanted.items():
        if adapter.shapes[key] != shape:
            raise InputError(
                f"adapter {adapter.name} does not fit {model_name}: {key} has shape "
                f"{list(adapter.shapes[key])}, and its configuration asks for {list(shape)}"
            )


def _needs_values(error: Exception) -> bool:
    """Whether peft failed since a tensor on meta has no values, as five rare kinds do."""
    return isinstance(error, NotImplementedError) or "meta tensor" in str(error).lower()


def _check_ranks(adapter: AdapterFiles, model: Any) -> None:
    """Raise InputError for a rank above every width: the bound where peft cannot build on meta."""
    widest = max((min(p.shape) for p in model.parameters() if p.ndim == 2), default=1)
    for key in ("r", "subspace_rank"):
        if (adapter.config.get(key) or 0) > widest:
            raise InputError(f"adapter {adapter.name}: {key} in {CONFIG} is above {widest:,}")


def _misfit(adapter: AdapterFiles, base: str, error: Exception) -> InputError:
    line = one_line(error, 300) or type(error).__name__
    return InputError(f"adapter {adapter.name} does not fit {base}: {line}")


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
            f'of language codes like [de, "no"], not {one_line(languages, 60)}'
        )
    return [language(one_line(code, 40)).code for code in languages]


def recipe_name(adapter: AdapterFiles) -> str | None:
    """The recipe that made the adapter, as a card that `train` wrote names it; else None.

    Raises InputError for a broken head.
    """
    name = _ours(adapter).get("recipe")
    return name if isinstance(name, str) else None


def trained_on_flores(adapter: AdapterFiles) -> bool | None:
    """Whether FLORES dev was in the training text, as a card of `train` or `merge` says; else None.

    Raises InputError for a broken head.
    """
    told = _ours(adapter).get("trained_on_flores")
    return told if isinstance(told, bool) else None


def _ours(adapter: AdapterFiles) -> dict[Any, Any]:
    """What `train` or `merge` wrote into the card's head; empty in others' cards."""
    ours = _card_head(adapter).get("xlt_bench")
    return ours if isinstance(ours, dict) else {}


def _card_head(adapter: AdapterFiles) -> dict[str, Any]:
    """The YAML head of README.md; empty where there is none."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Without aliases, by which a few lines become gigabytes; no card needs them."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it has an alias (*name); write the value out")
            return super().compose_node(parent, index)

    card = adapter.folder / "README.md"
    if not card.is_file():
        return {}
    try:
        parts = _read(card).split("---", 2)
        if len(parts) < 3 or parts[0].strip():
            return {}
        if len(parts[1]) > _MAX_HEAD:
            raise ValueError(f"it is longer than {_MAX_HEAD:,} characters")
        head = yaml.load(parts[1], Loader)
        str(head)  # a number may be read and be too long to be shown
    except UnicodeDecodeError as error:
        raise InputError(
            f"adapter {adapter.name}: README.md is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except Exception as error:  # yaml lets pass what int(), datetime() and recursion raise
        line = one_line(str(error).split("\n")[0], 200) or type(error).__name__
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
    names = {adapter.name: f"adapter_{i}" for i, adapter in enumerate(adapters)}
    for adapter in adapters:
        model = load_beside(model, base, adapter, names[adapter.name])
    return model.eval(), names


def load_beside(model: Any, base: str, adapter: AdapterFiles, name: str) -> Any:
    """The model with one adapter more, whom peft knows as `name`. Raises InputError as `attach`."""
    from peft import PeftModel

    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(adapter.folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(adapter.folder), adapter_name=name)
    except Exception as error:  # peft raises whatever a value in the configuration leads to
        raise _misfit(adapter, base, error) from None
    _check_complete(_wanted(model, name), adapter)
    return model


def _wanted(model: Any, name: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights that a file of this adapter has."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _check_complete(wanted: dict[str, tuple[int, ...]], adapter: AdapterFiles) -> None:
    """Raise InputError for weights that the adapter's file lacks: peft would leave them at zero."""
    if lacking := sorted(set(wanted) - set(adapter.shapes)):
        raise InputError(
            f"adapter {adapter.name} lacks {len(lacking)} of {len(wanted)} weights that its "
            f"configuration names, {lacking[0]} first: is it of a smaller model, or cut off?"
        )
