"""Borrows a model that is in memory, with its adapter, and leaves it as it was."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xlt_bench.errors import InputError
from xlt_bench.models.adapter_fit import HARMLESS_INITS
from xlt_bench.models.adapter_switch import Saved
from xlt_bench.models.adapters import AdapterFiles, find_adapter
from xlt_bench.models.load import DTYPES, Base, commit_of, load_base

_SAVE = "save it with save_pretrained, and give the folder"


@dataclass(frozen=True)
class Loaded:
    """A model in memory.

    Attributes:
        base: The base model; its tokenizer is None.
        adapter: What is the adapter of a PeftModel.
    """

    base: Base
    adapter: AdapterFiles | None

    def on_meta(self) -> Any:
        """The same architecture without weights."""
        model = self.base.model
        with torch.device("meta"):
            return type(model)(copy.deepcopy(model.config))


@contextmanager
def borrowed(model: Any) -> Iterator[Loaded]:
    """Take the adapter out of a model while the body runs; weights are not copied.

    Args:
        model: A PreTrainedModel, or a PeftModel with one active adapter.

    Yields:
        The base model, in eval mode, and the adapter's files in a temporary folder. Afterwards the
        model has its modules, modes and gradients' switches again.

    Raises:
        InputError: The adapter cannot be taken out of the model.
    """
    from peft import PeftModel

    saved, needs = Saved(model), [(one, one.requires_grad) for one in model.parameters()]
    try:
        with tempfile.TemporaryDirectory(prefix="xlt-bench-") as folder:
            adapter, base = None, model
            if isinstance(model, PeftModel):
                adapter = _written(model, Path(folder))
                base = _bare(model)
            yield Loaded(_identified(base.eval()), adapter)
    finally:
        saved.restore()
        for parameter, needed in needs:
            parameter.requires_grad_(needed)


def _written(model: Any, folder: Path) -> AdapterFiles:
    active = model.active_adapters
    if len(active) != 1:
        raise InputError(f"the model has {len(active)} active adapters; set one with set_adapter")
    (name,) = active
    config = model.peft_config[name]
    kind = config.peft_type.value
    if getattr(config, "init_lora_weights", None) not in HARMLESS_INITS:
        raise InputError(
            f"adapter {name} starts from {config.init_lora_weights}, which changes the base model "
            f"in memory; {_SAVE}"
        )
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise InputError(f"adapter {name} ({kind}) is merged; call unmerge_adapter first")
    # "auto" would ask the hub whether the vocabulary was extended; the embeddings are in memory.
    model.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    place = folder if name == "default" else folder / name
    return replace(find_adapter(str(place)), name=name)


def _bare(model: Any) -> Any:
    """The base of a PeftModel, with its own modules in the places of peft's."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = model.get_base_model()
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            base.set_submodule(name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):
            base.set_submodule(name, module.original_module)
    if any(type(module).__module__.startswith("peft.") for module in base.modules()):
        (name,) = model.active_adapters
        kind = model.peft_config[name].peft_type.value
        raise InputError(f"adapter {name} ({kind}) cannot be taken out of the model; {_SAVE}")
    vars(base).pop("peft_config", None)
    return base


def _identified(model: Any) -> Base:
    """The model under the name that it was loaded by, and as those weights if it still has them."""
    name = model.name_or_path or type(model).__name__
    dtype = str(model.dtype).removeprefix("torch.")
    if dtype in DTYPES:
        try:
            commit = commit_of(name)
            there = load_base(name, dtype, "cpu", commit=commit, tokenizer=False)
            if _equal(model.state_dict(), there.model.state_dict()):
                return Base(there.name, model, None, commit, there.sha256)
        except InputError:  # no such name, or other weights under it
            pass
    return Base(name, model, None, None, _digest(model.state_dict()))


def _equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.equal(value.cpu(), theirs[name]) for name, value in ours.items()
    )


def _digest(state: dict[str, Tensor]) -> str:
    """sha256 over the names and bytes of all tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
