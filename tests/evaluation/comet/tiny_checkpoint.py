"""Writes a COMET checkpoint with random weights; run in COMET's environment, as is `direct`.

`tiny_checkpoint.py make FOLDER` makes FOLDER/{checkpoints/model.ckpt,hparams.yaml,encoder/}, in the
form of the published ones: XLM-R, pooled over all layers, an estimator on top.
`tiny_checkpoint.py direct FOLDER SEGMENTS` prints what comet itself scores.
"""

import json
import logging
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import comet
import pytorch_lightning
import torch
import yaml
from comet.models import RegressionMetric
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast


def make(folder: Path) -> None:
    encoder = folder / "encoder"
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    XLMRobertaTokenizerFast(tokenizer_object=tokenizer).save_pretrained(encoder)
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        pad_token_id=1,
        type_vocab_size=1,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(encoder)
    model = RegressionMetric(
        encoder_model="XLM-RoBERTa",
        pretrained_model=str(encoder),
        hidden_sizes=[16],
        local_files_only=True,
    )
    (folder / "hparams.yaml").write_text(yaml.safe_dump(dict(model.hparams)))
    trainer = pytorch_lightning.Trainer(accelerator="cpu", logger=False, max_epochs=0)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(folder / "checkpoints" / "model.ckpt", weights_only=True)


def direct(folder: Path, segments: Path) -> None:
    path = folder / "checkpoints" / "model.ckpt"
    model = comet.load_from_checkpoint(str(path), local_files_only=True)
    found = model.predict(json.loads(segments.read_text()), gpus=0, progress_bar=False)
    print(json.dumps(found["scores"]))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    {"make": make, "direct": direct}[sys.argv[1]](*map(Path, sys.argv[2:]))
