"""Checks that an adapter fits the base model, before the base model's weights are loaded.

peft builds the adapter on a copy of the base on the meta device, where a rank of millions takes no
memory, and says where it would load each tensor of the file. So whatever peft loads completely
fits, also under the names of an older transformers, or with whole embeddings in the file.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open

from xlt_bench.errors import InputError, one_line
from xlt_bench.models.adapter_config import check_config, check_regexes
from xlt_bench.models.adapters import CONFIG, WEIGHTS, AdapterFiles
from xlt_bench.models.steering import check_steering

PEFT_NAME = "default"
"""What peft calls the adapter."""

_Shapes = Mapping[str, tuple[int, ...]]

# What follows the module's name in the names of whole embeddings.
_WHOLE = (
    "weight", "base_layer.weight", "original_module.weight", "token_adapter.base_layer.weight",
)  # fmt: skip
# Other ways of initialising a LoRA (PiSSA, OLoRA, ...) subtract the initial change from the base.
HARMLESS_INITS = (None, True, False, "gaussian", "orthogonal", "eva")
MERGE = (
    "merge the adapter into its base with peft's merge_and_unload, save model and tokenizer, and "
    "evaluate them with --model"
)
"""What to do about an adapter that does not fit because of its vocabulary."""


@dataclass(frozen=True)
class Fit:
    """What peft changes in the base model, besides adding the adapter's modules."""

    replaced: frozenset[str] = frozenset()
    """The base's tensors that peft changes: the file holds them whole, or the LoRA is a PiSSA."""
    vocabulary: int | None = None
    """Rows to which the base's embeddings are resized first; None if they stay as they are."""
    complete: bool = True
    """Whether all weights were compared; if not, `check_weights` does after loading."""


def check_adapter(adapter: AdapterFiles, model: Any, model_name: str) -> Fit:
    """Check that an adapter is valid and fits the base model.

    Args:
        adapter: The adapter.
        model: The base model on the meta device.
        model_name: The base model's name, for messages.

    Returns:
        What loading the adapter changes in the base model.

    Raises:
        InputError: If the configuration is invalid, or does not match the weights or the model.
    """
    if adapter.steers:
        check_steering(adapter, model, model_name)
        return check_adapter(adapter.under, model, model_name) if adapter.under else Fit()
    check_config(adapter.name, adapter.config)
    check_regexes(adapter.name, adapter.config, [name for name, _ in model.named_modules()])
    vocabulary = _vocabulary(adapter, model)
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # repeated when the adapter is loaded
        try:
            return _fit(adapter, copy.deepcopy(model), model_name, vocabulary)
        except InputError:
            raise
        except Exception as error:  # peft raises many types for an invalid configuration
            if not _needs_values(error):
                raise misfit(adapter, model_name, error) from None
    _check_ranks(adapter, model)
    if vocabulary is not None:
        raise InputError(
            f"adapter {adapter.name} was trained with a vocabulary of {vocabulary:,}, and "
            f"{model_name} has another; {MERGE}"
        )
    return Fit(complete=False)


def _fit(adapter: AdapterFiles, base: Any, base_name: str, vocabulary: int | None) -> Fit:
    """Build the adapter on a base on meta, which is changed."""
    from peft import PeftConfig
    from peft.auto import MODEL_TYPE_TO_PEFT_MODEL_MAPPING
    from peft.utils import ModulesToSaveWrapper

    grown = False
    if vocabulary is not None:
        grown = vocabulary > len(base.get_input_embeddings().weight)
        base.resize_token_embeddings(vocabulary, mean_resizing=False)
    names = {id(tensor): name for name, tensor in base.state_dict(keep_vars=True).items()}
    embeddings = _embeddings(base)
    config = PeftConfig.from_pretrained(str(adapter.folder))
    config.inference_mode = True  # otherwise prompt tuning would load a tokenizer
    init = getattr(config, "init_lora_weights", None)
    config.init_lora_weights = False  # PiSSA and others would need the base's values
    built = MODEL_TYPE_TO_PEFT_MODEL_MAPPING["CAUSAL_LM"](
        base, config, PEFT_NAME, low_cpu_mem_usage=True
    )
    _check_token_indices(adapter, built)
    loaded = check_weights(built, PEFT_NAME, adapter, base_name)
    state = built.state_dict(keep_vars=True)
    overwritten = {id(state[key]) for key in loaded if key in state} & names.keys()
    if grown:
        for name, module in embeddings.items():
            wrapped = isinstance(base.get_submodule(name), ModulesToSaveWrapper)
            if not wrapped and {id(weight) for weight in module.parameters()} - overwritten:
                raise InputError(
                    f"adapter {adapter.name} was trained with a vocabulary of {vocabulary:,}, and "
                    f"its file does not hold all of {name}, which {base_name} has with another "
                    f"vocabulary; {MERGE}"
                )
    if init not in HARMLESS_INITS:
        overwritten |= _adapted(built) & names.keys()
    return Fit(frozenset(names[id_] for id_ in overwritten), vocabulary)


def _adapted(built: Any) -> set[int]:
    """Ids of the base's tensors in the layers that have an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (module for module in built.modules() if isinstance(module, BaseTunerLayer))
    return {id(tensor) for layer in layers for tensor in layer.get_base_layer().parameters()}


def check_weights(model: Any, name: str, adapter: AdapterFiles, base: str) -> list[str]:
    """Check that peft loads every tensor of an adapter's file, and needs no others.

    Args:
        model: The PeftModel with the adapter, on the meta device or loaded.
        name: peft's name of the adapter.
        adapter: The adapter.
        base: The base model's name, for messages.

    Returns:
        Names in `model` of the tensors that peft loads, the base's among them if the file has any.

    Raises:
        InputError: If tensors are missing, left over, or of another shape.
    """
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    wanted: _Shapes = {key: tuple(tensor.shape) for key, tensor in saved.items()}
    known = wanted
    given: _Shapes = adapter.shapes
    lacking = sorted(set(wanted) - set(given))
    if next(model.parameters()).is_meta and not model.peft_config[name].is_prompt_learning:
        # On a copy, since AdaLora changes the shapes of the model here.
        wanted = _places(copy.deepcopy(model), name, wanted)
        state = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        known = {**state, **wanted}
        try:
            given = _places(model, name, adapter.shapes)
            lacking = sorted(set(wanted) - set(given))
        except KeyError as error:  # by which peft says that a module's weights are missing
            lacking = [str(error.args[0])]
    trained_on = f"it was trained on {one_line(adapter.config.get('base_model_name_or_path'), 80)}"
    if lacking:
        raise InputError(
            f"adapter {adapter.name} lacks {len(lacking)} of {len(wanted)} weights that its "
            f"configuration names, such as {_shown(lacking[0], name)}: is the file truncated, or "
            f"for another model than {base} ({trained_on})?"
        )
    if unused := _unused(adapter, name, [key for key in given if key not in known]):
        raise InputError(
            f"adapter {adapter.name} does not fit {base}: neither the model nor the configuration "
            f"has a place for {len(unused)} of its {len(adapter.shapes)} weights, such as "
            f"{_shown(unused[0], name)} ({trained_on})"
        )
    for key, shape in given.items():
        if shape != known.get(key, shape):
            raise InputError(
                f"adapter {adapter.name} does not fit {base}: {_shown(key, name)} has shape "
                f"{list(shape)}, and its configuration asks for {list(known[key])} ({trained_on})"
            )
    return [key for key in given if key in known]


def _shown(place: str, name: str) -> str:
    """The name in the file of a tensor that has this name in the model."""
    return one_line(place.replace(f".{name}", "").removeprefix("base_model.model."), 120)


def _places(model: Any, name: str, shapes: _Shapes) -> _Shapes:
    """Names in a model on meta of the tensors that peft would load from a file, and their shapes.

    Raises KeyError if the file lacks the weights of a module that the configuration names.
    """
    from peft import set_peft_model_state_dict

    found: dict[str, tuple[int, ...]] = {}

    def note(state: Mapping[str, Any], *_: Any, **__: Any) -> Any:
        found.update({key: tuple(tensor.shape) for key, tensor in state.items()})
        return SimpleNamespace(missing_keys=[], unexpected_keys=[])

    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    model.load_state_dict = note  # hides the method: nothing is loaded
    try:
        set_peft_model_state_dict(model, tensors, adapter_name=name)
    finally:
        del model.load_state_dict
    return found


def _unused(adapter: AdapterFiles, name: str, places: Sequence[str]) -> list[str]:
    """The tensors without a place in the model, other than second copies, which peft writes.

    They occur where embeddings were resized and are trained, or tied.
    """
    copies = set()
    with safe_open(adapter.folder / WEIGHTS, framework="pt") as file:
        for place in places:
            key = place if place in adapter.shapes else place.replace(f".{name}", "")
            if key not in adapter.shapes:
                continue
            others = (k for k, s in adapter.shapes.items() if s == adapter.shapes[key])
            tensor = file.get_tensor(key)
            if any(k not in places and tensor.equal(file.get_tensor(k)) for k in others):
                copies.add(place)
    return sorted(set(places) - copies)


def _needs_values(error: Exception) -> bool:
    """Whether peft failed because tensors on meta have no values, which five rare kinds need."""
    return isinstance(error, NotImplementedError) or "meta tensor" in str(error).lower()


def _check_ranks(adapter: AdapterFiles, model: Any) -> None:
    """Raise InputError for a rank above every layer's width; for kinds not buildable on meta."""
    widest = max((min(p.shape) for p in model.parameters() if p.ndim == 2), default=1)
    for key in ("r", "subspace_rank"):
        if (adapter.config.get(key) or 0) > widest:
            raise InputError(
                f"adapter {adapter.name}: {key} in {CONFIG} must be at most {widest:,}, the width "
                "of the widest layer"
            )


def misfit(adapter: AdapterFiles, base: str, error: Exception) -> InputError:
    """Make the InputError for any of the many exceptions by which peft refuses an adapter.

    Args:
        adapter: The adapter.
        base: The base model's name.
        error: What peft raised.

    Returns:
        The error to raise.
    """
    line = one_line(error, 300) or type(error).__name__
    return InputError(f"adapter {adapter.name} does not fit {base}: {line}")


def _embeddings(model: Any) -> dict[str, Any]:
    """The input embeddings and the LM head, by their names in the model."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name: m for name, m in model.named_modules() if any(m is end for end in ends)}


def _vocabulary(adapter: AdapterFiles, model: Any) -> int | None:
    """The rows of the embeddings in the file; None if none has other rows than the base's."""
    sizes = set()
    for name, module in _embeddings(model).items():
        rows, width = module.weight.shape
        for key, shape in adapter.shapes.items():
            part = key.removeprefix(f"base_model.model.{name}.")
            if part == key or len(shape) != 2:
                continue
            if part == "lora_embedding_A":
                sizes.add(shape[1])
            elif part == "lora_B.weight" or (part in _WHOLE and shape[1] == width):
                sizes.add(shape[0])
        sizes.discard(rows)
    return sizes.pop() if len(sizes) == 1 else None


def _check_token_indices(adapter: AdapterFiles, built: Any) -> None:
    """Raise InputError for trained tokens that the embeddings do not have."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    for module in built.modules():
        if isinstance(module, TrainableTokensLayer):
            rows = len(module.get_base_layer().weight)
            for index in module.token_indices.get(PEFT_NAME, ()):
                if not -rows <= index < rows:
                    raise InputError(
                        f"adapter {adapter.name} trains token {index}, and the base has {rows:,} "
                        f"tokens and the file no resized embeddings; {MERGE}"
                    )
