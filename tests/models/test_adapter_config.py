"""Every kind of adapter and every configuration field that peft knows has been judged.

A newer peft may add a kind that loads another model, or a number that it loops over. Read what
peft does with a new name, then give it its place: a table of `models/adapter_config.py`, or a list
here with the reason why its values need no bound.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from xlt_bench.models import adapter_config

KINDS = set(
    "ADALORA ADAMSS ADAPTION_PROMPT BEFT BOFT C3A CARTRIDGE CPT DEFT DELORA FOURIERFT FROD GLORA "
    "GRALORA HIRA HRA IA3 LILY LN_TUNING LOHA LOKR LORA MISS OFT OSF PEANUT POLY PREFIX_TUNING "
    "PROMPT_TUNING PSOFT PVERA P_TUNING RANDLORA ROAD SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS "
    "UNILORA VBLORA VERA WAVEFT".split()
)

CHECKED_BY_NAME = set(
    "peft_type task_type auto_mapping init_lora_weights lora_alpha target_parameters".split()
)

NO_BOUND_NEEDED = {
    "names something, and nothing is loaded by it in evaluation": (
        "base_model_name_or_path revision peft_version tokenizer_name_or_path tokenizer_kwargs "
        "prompt_tuning_init prompt_tuning_init_text"
    ),
    "takes part in training alone": (
        "inference_mode progressbar loftq_bits "
        # schedules and regularisation
        "beta1 beta2 tinit tfinal deltaT total_step orth_reg_weight regularization_alpha "
        "asa_importance_beta asa_schedule_exponent asa_target_subspaces asa_uncertainty_beta "
        "use_asa init_warmup final_warmup mask_interval use_dynamic_rank select_top "
        "opt_loss_decay_factor opt_projection_epsilon opt_projection_format_epsilon "
        "opt_weighted_loss_type cpt_mask cpt_tokens_type_mask weight_tying ensure_weight_tying "
        "kl_loss_weight use_entropy dirichlet_prior sample_scaler beta gamma stable_gamma "
        # dropout
        "boft_dropout deft_dropout encoder_dropout frod_dropout gralora_dropout hira_dropout "
        "lora_dropout miss_dropout module_dropout psoft_dropout pvera_dropout randlora_dropout "
        "rank_dropout rank_dropout_scale tinylora_dropout unilora_dropout vblora_dropout "
        "vera_dropout "
        # what is saved
        "save_indices save_only_topk_weights save_precomputed_indices save_projection"
    ),
    "chooses starting values, which the adapter's weights replace": (
        "init_weights init_ia3_weights init_logits_std init_scale init_theta_d_bound init_v_bound "
        "init_vector_bank_bound d_initial ab_svd_init rho tau use_label_mask label_mask_value "
        "whiten adjust_scaling_factors corda_method verbose use_float16_for_covariance "
        "prune_temporary_fields direction scale init_type"
    ),
    "seeds random numbers": (
        "generator_seed proj_seed projection_prng_key projection_seed random_loc_seed random_seed"
    ),
    "chooses or scales a computation": (
        "act_fn alpha apply_GS bias block_share cayley_neumann_eps coft config_A_B config_C "
        "config_D_E decompose_both decomposition_method delora_lambda eps fan_in_fan_out "
        "lora_bias mask_type para poly_type prefix_projection proportional_parameters psoft_alpha "
        "psoft_mag_a psoft_mag_b psoft_orth psoft_svd qalora_group_size randlora_alpha "
        "runtime_offload_base_weight sample_at_inference scaling sparse sparse_rate sparsity "
        "svd_threshold use_cayley_neumann use_dora use_effective_conv2d use_idwt use_qalora "
        "use_rslora variant very_sparse wavelet_family encoder_reparameterization_type "
        "ephemeral_gpu_offload match_strict"
    ),
    "is a size that must agree with the weights' shapes, or divide a layer's": (
        "block_size boft_block_num boft_block_size decompose_factor effective_rank group_size "
        "mini_r n_frequency nblocks num_B num_attention_heads num_groups num_layers "
        "oft_block_size stride_A target_svd_config topk"
    ),
    "lists tokens or layers, no more than the file has room for": (
        "alora_invocation_tokens cpt_token_ids layers_to_transform token_indices "
        "trainable_token_indices target_modules_bd_a target_modules_bd_b"
    ),
    "nests a configuration, whose fields are judged like the others": (
        "loftq_config eva_config corda_config lora_ga_config velora_config monteclora_config "
        "runtime_config use_bdlora kasa_config"
    ),
}  # fmt: skip


def _nested(config: type) -> Iterator[type]:
    """A configuration class and those that its fields hold, unless such a field must be empty."""
    yield config
    module = sys.modules[config.__module__]
    for field in dataclasses.fields(config):
        if field.name in adapter_config._ELSEWHERE:
            continue
        for word in re.findall(r"\w+", str(field.type)):
            inner = getattr(module, word, None)
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                yield from _nested(inner)


def test_every_kind_of_adapter_has_been_judged() -> None:
    known = {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert known <= KINDS | adapter_config._REFUSED_KINDS.keys()


def test_every_field_of_a_configuration_has_been_judged() -> None:
    judged = CHECKED_BY_NAME | set(" ".join(NO_BOUND_NEEDED.values()).split())
    judged |= {*adapter_config._ELSEWHERE, *adapter_config._MOST}
    judged |= {*adapter_config._WHOLE, *adapter_config._EACH}
    fields = {
        f"{kind.value}: {field.name}"
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind.value not in adapter_config._REFUSED_KINDS
        for one in _nested(config)
        for field in dataclasses.fields(one)
        if field.name not in judged
    }
    assert fields == set()


def test_nested_configurations_are_among_the_judged() -> None:
    names = {one.__name__ for one in _nested(PEFT_TYPE_TO_CONFIG_MAPPING["LORA"])}
    assert {"LoraConfig", "CordaConfig", "MontecloraConfig", "BdLoraConfig"} <= names


def test_no_name_is_judged_twice() -> None:
    reasons = " ".join(NO_BOUND_NEEDED.values()).split()
    bounded = {*adapter_config._ELSEWHERE, *adapter_config._MOST, *CHECKED_BY_NAME}
    assert len(reasons) == len(set(reasons))
    assert not bounded & set(reasons)
