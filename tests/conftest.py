"""Fixtures that several folders of tests share: the real data, a made-up data root, tiny models."""

import gzip
import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets: $XLT_BENCH_DATA, else shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("XLT_BENCH_DATA", beside))
    if not (root / "massive").is_dir():
        pytest.skip(f"no real data at {root}: set XLT_BENCH_DATA to a folder that holds it")
    return root


@pytest.fixture(scope="session")
def made_up_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few invented rows in the publishers' layouts: massive de, sw; wmt23 de; uner da; flores."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "massive" / "1.1" / "data"
    folder.mkdir(parents=True)
    for locale in ("de-DE", "sw-KE"):
        rows = [
            {
                "id": str(i),
                "locale": locale,
                "partition": "test",
                "utt": f"play song {i} now",
                "annot_utt": f"play [song_name : song {i}] [time : now]",
            }
            for i in range(5)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{locale}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    for kind, end in (("sources", "src"), ("references", "ref.refA")):
        (root / "wmt23" / kind).mkdir(parents=True)
        for direction in ("de-en", "en-de"):
            code = direction.split("-")[0 if kind == "sources" else 1]
            path = root / "wmt23" / kind / f"generaltest2023.{direction}.{end}.{code}"
            path.write_text("".join(f"{kind} line {i} of {direction}.\n" for i in range(5)))
    folder = root / "uner" / "UNER_Danish-DDT"
    folder.mkdir(parents=True)
    for split, first in (("train", "train-v2-366"), ("test", "test-0")):
        blocks = [
            f"# sent_id = {first if i == 0 else f'{split}-{i}'}\n# text = Ada bor i Oslo {i}.\n"
            f"1\tAda\tB-PER\n2\tbor\tO\n3\ti\tO\n4\tOslo\tB-LOC\n5\t{i}\tO\n6\t.\tO\n\n"
            for i in range(5)
        ]
        (folder / f"da_ddt-ud-{split}.iob2").write_text("".join(blocks))
    folder = root / "flores200_dataset" / "dev"
    folder.mkdir(parents=True)
    for code in ("deu_Latn", "eng_Latn", "swh_Latn"):
        text = "".join(f"{code[:3]} sentence number {i} about {i * i}\n" for i in range(8))
        (folder / f"{code}.dev").write_text(text)
    return root


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of four blocks with a byte-level tokenizer, saved as a model folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with random factors for the tiny model, whose card says it was aligned on Swahili."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(
        r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    folder = tmp_path_factory.mktemp("adapters") / "random"
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nalignment_languages: [sw]\n---\nA random adapter.\n")
    return folder
