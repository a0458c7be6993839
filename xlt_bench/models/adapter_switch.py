"""Loads adapters with peft, one at a time, so that each answers as it does alone.

Side by side they do not: some kinds share tensors, kinds cannot be mixed, a file with whole
embeddings overwrites the base's, and PiSSA and its like subtract the initial adapter from the base.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from xlt_bench.models.adapter_fit import PEFT_NAME, Fit, check_weights, misfit
from xlt_bench.models.adapters import AdapterFiles
from xlt_bench.models.steering import Steering, steer_by


class AdapterSwitch:
    """A base model that has one of several adapters, or none."""

    def __init__(self, base: Any, base_name: str, fits: Mapping[str, Fit]) -> None:
        """Start without an adapter.

        Args:
            base: The base model.
            base_name: Its name, for messages.
            fits: The result of `check_adapter` by the adapter's name.
        """
        self._base, self._base_name, self._fits = base, base_name, fits
        self._model = base
        self._present: tuple[str | None, bool] = (None, True)
        self._saved: Saved | None = None
        self.steering: Steering | None = None
        """Of the present adapter; None if it does not steer."""

    def use(self, adapter: AdapterFiles | None) -> Any:
        """Remove the present adapter and load another.

        Args:
            adapter: The adapter; None for the bare model.

        Returns:
            The PeftModel in eval mode, or the base model. What steers begins without a language.

        Raises:
            InputError: If the adapter does not fit the base.
        """
        if adapter is None:
            return self._change((None, True), lambda: self._base)
        model = self._change((adapter.name, True), lambda: self._loaded(adapter))
        if self.steering:
            self.steering.use(None)
        return model

    def bare(self, adapter: AdapterFiles) -> Any:
        """Remove the present adapter.

        Args:
            adapter: The adapter whose prompts the bare model is to answer.

        Returns:
            The base model, with as many tokens as the adapter's; any new ones are random.
        """
        if self._fits[adapter.name].vocabulary is None:
            return self.use(None)
        return self._change((adapter.name, False), lambda: self._resized(adapter))

    def _change(self, wanted: tuple[str | None, bool], make: Callable[[], Any]) -> Any:
        if wanted == self._present:
            return self._model
        if self._saved:
            self._saved.restore()
        self._model, self._present, self._saved = self._base, (None, True), None
        self.steering = None
        saved = Saved(self._base)
        try:
            self._model = make()
        except BaseException:
            saved.restore()
            raise
        saved.forget_unchanged()
        self._present, self._saved = wanted, saved
        return self._model

    def _loaded(self, adapter: AdapterFiles) -> Any:
        fit, model = self._fits[adapter.name], self._base
        if inner := adapter.under if adapter.steers else adapter:
            prepare_base(self._base, fit)
            model = load_adapter(self._base, self._base_name, inner, PEFT_NAME)
            if not fit.complete:
                check_weights(model, PEFT_NAME, inner, self._base_name)
        if adapter.steers:
            self.steering = steer_by(adapter, model)  # a hook, which `Saved` takes out again
        return model

    def _resized(self, adapter: AdapterFiles) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            prepare_base(self._base, Fit(vocabulary=self._fits[adapter.name].vocabulary))
        return self._base


class Saved:
    """The modules of a model, and which tensors they have; without a copy of the weights."""

    def __init__(self, model: Any) -> None:
        """Note how a model is.

        Args:
            model: The model; its modules, and what their attributes hold, can change from now on.
        """
        self._modules = [(m, type(m), _copied(m.__dict__)) for m in model.modules()]
        found = (module.__dict__.get("config") for module in model.modules())
        configs = {id(config): config for config in found if isinstance(config, PreTrainedConfig)}
        self._configs = [(config, dict(config.__dict__)) for config in configs.values()]
        tensors = itertools.chain(model.parameters(), model.buffers())
        self._tensors = [(tensor, tensor.data) for tensor in tensors]

    def forget_unchanged(self) -> None:
        """Release memory that only the original values of replaced weights need.

        Merging an adapter replaces the weights too, but undoes it itself.
        """
        self._tensors = [
            (tensor, data) for tensor, data in self._tensors if tensor.data_ptr() != data.data_ptr()
        ]

    def restore(self) -> None:
        """Put everything back."""
        for module, kind, values in self._modules:
            module.__class__ = kind
            module.__dict__.clear()
            module.__dict__.update(values)
        for config, values in self._configs:
            config.__dict__.clear()
            config.__dict__.update(values)
        for tensor, data in self._tensors:
            tensor.data = data


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a module's attributes, and of the tables of its submodules, weights and hooks."""
    return {
        key: value.copy() if isinstance(value, dict | set) else value
        for key, value in values.items()
    }


def prepare_base(model: Any, fit: Fit) -> list[tuple[Tensor, Tensor]]:
    """Give a base model what an adapter needs: other embeddings, or copies that may be overwritten.

    Args:
        model: The base model.
        fit: The result of `check_adapter`.

    Returns:
        Each tensor that the adapter replaces, and the copy that is in its place now.
    """
    if fit.vocabulary is not None:
        model.resize_token_embeddings(fit.vocabulary, mean_resizing=False)
    copies = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in fit.replaced:
            copy = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=False)
            copies[id(tensor)] = (tensor, copy)
    for module in model.modules():  # tied weights have several places
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if id(tensor) in copies:
                    table[key] = copies[id(tensor)][1]
    return list(copies.values())


def load_adapter(model: Any, base: str, adapter: AdapterFiles, name: str) -> Any:
    """Load an adapter; a second one beside the first.

    Args:
        model: The base model, after `prepare_base`, or a PeftModel.
        base: The base model's name, for messages.
        adapter: The adapter.
        name: What peft is to call it.

    Returns:
        The PeftModel in eval mode.

    Raises:
        InputError: If the adapter does not fit the base.
    """
    from peft import PeftModel

    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(adapter.folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(adapter.folder), adapter_name=name)
    except Exception as error:  # peft raises many types for an invalid configuration
        raise misfit(adapter, base, error) from None
    return model.eval()


def change_norms(peft_model: Any, adapter_name: str) -> dict[str, float]:
    """Compute the Frobenius norm of an adapter's weight change, by kind of module.

    For LoRA it is ||scale B A||, computed from the Gram matrices of the factors without building
    the product; for other adapters the norm of their own parameters.

    Args:
        peft_model: The PeftModel.
        adapter_name: peft's name of the adapter.

    Returns:
        The norm by kind of module (`q_proj`, ...) or of parameter, for experts in one tensor; a
        single `parameters` if it is not a LoRA.
    """
    from peft import get_peft_model_state_dict

    squares: defaultdict[str, float] = defaultdict(float)
    for name, module in peft_model.named_modules():
        if (factors := _factors(module, adapter_name)) is None:
            continue
        a, b = (factor.detach().double() for factor in factors)
        gram = ((b.mT @ b) * (a @ a.mT)).sum().item()
        kind = getattr(module, "parameter_name", name.rsplit(".", 1)[-1])
        squares[kind] += module.scaling[adapter_name] ** 2 * gram
    if not squares:
        # Not by name: adaption prompts have parameters without the adapter's name.
        state = get_peft_model_state_dict(
            peft_model, adapter_name=adapter_name, save_embedding_layers=False
        )
        squares["parameters"] = sum(t.double().pow(2).sum().item() for t in state.values())
    return {kind: math.sqrt(max(square, 0.0)) for kind, square in sorted(squares.items())}


def _factors(module: Any, name: str) -> tuple[Tensor, Tensor] | None:
    """LoRA's A (..., rank, in) and B (..., out, rank), by experts where they share a tensor."""
    if name in getattr(module, "lora_embedding_A", ()):
        return module.lora_embedding_A[name], module.lora_embedding_B[name]
    if name not in getattr(module, "lora_A", ()):
        return None
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    if (experts := getattr(module, "num_experts", 1)) > 1:  # peft's order: A by expert, B by rank
        a = a.reshape(experts, -1, a.shape[-1])
        b = b.reshape(b.shape[0], -1, experts).permute(2, 0, 1)
    return a, b
