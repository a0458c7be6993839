"""A merged adapter gives the same answers, and is not merged if it would not."""

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from tiny import load_model, with_lora
from xlt_bench.models.merged import merged

ROWS = [[5, 9, 7, 30], [8, 6]]


def load(folder, dtype=torch.float32):
    return load_model(folder, dtype).eval()


def adapted_model(folder, dtype=torch.float32, **settings):
    return with_lora(load(folder, dtype), seed=2, **{"lora_alpha": 8} | settings).eval()


@torch.inference_mode()
def logits(model):
    return model(input_ids=torch.tensor([ROWS[0]])).logits.float()


def n_adapted(model):
    return sum(isinstance(module, BaseTunerLayer) for module in model.modules())


def test_merged_answers_as_unmerged_on_the_bare_models_modules(tiny_model, tiny_adapter):
    model = PeftModel.from_pretrained(load(tiny_model), str(tiny_adapter)).eval()
    unmerged, bare = logits(model), logits(load(tiny_model))
    assert (unmerged - bare).abs().max() > 1e-2
    with merged(model, ROWS) as in_weights:
        assert in_weights
        assert n_adapted(model) == 0
        torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)
    assert n_adapted(model) == 8
    torch.testing.assert_close(logits(model), unmerged, rtol=1e-5, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), bare, rtol=1e-5, atol=1e-5)


def test_the_base_is_restored_after_an_error(tiny_model):
    model = adapted_model(tiny_model)
    with pytest.raises(KeyError), merged(model, ROWS):
        raise KeyError
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(load(tiny_model)), rtol=1e-5, atol=1e-5)


def test_the_base_is_restored_if_the_check_of_the_merged_model_fails(tiny_model, monkeypatch):
    model = adapted_model(tiny_model)
    calls = []

    def out_of_memory(*inputs):
        calls.append(inputs)
        if len(calls) == 2:
            raise torch.OutOfMemoryError
        return torch.zeros(1)

    monkeypatch.setattr("xlt_bench.models.merged._logits", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError), merged(model, ROWS):
        raise AssertionError
    assert n_adapted(model) == 8
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(load(tiny_model)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        (torch.bfloat16, {}),
        (torch.float32, {"target_modules": ["embed_tokens"]}),
        (torch.float32, {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
    ],
    ids=["half precision", "embeddings", "parameters"],
)
def test_what_is_not_safe_stays_unmerged(tiny_model, dtype, settings):
    model = adapted_model(tiny_model, dtype, **settings)
    before, adapted = logits(model), n_adapted(model)
    with merged(model, ROWS) as in_weights:
        assert not in_weights
        assert torch.equal(logits(model), before)
    assert n_adapted(model) == adapted > 0


def test_weights_that_come_out_different_are_taken_back(tiny_model):
    """A merge that gives other logits: one module in two places, so that it is merged twice."""
    model = adapted_model(tiny_model, target_modules=["up_proj"])
    blocks = model.get_base_model().model.layers
    shared = blocks[0].mlp.up_proj.get_base_layer()
    blocks[1].mlp.up_proj.base_layer = shared
    before = logits(model)
    with merged(model, ROWS) as in_weights:
        assert not in_weights
        torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)


def test_a_broken_adapter_stays_unmerged(tiny_model):
    model = adapted_model(tiny_model)
    layer = model.get_base_model().model.layers[2].mlp.up_proj
    with torch.no_grad():
        layer.lora_B["default"].weight[0, 0] = torch.inf
    with merged(model, ROWS) as in_weights:
        assert not in_weights
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(load(tiny_model)), rtol=1e-5, atol=1e-5)
