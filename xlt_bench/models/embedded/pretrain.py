"""Trains the embedded model and its tokenizer, in about an hour on one CPU core.

    python -m xlt_bench.models.embedded.pretrain --data-dir DATA --messages MESSAGES --output MODEL

MESSAGES is a folder of unpacked Debian packages (`models/embedded/messages`). Each step predicts
the tokens of documents, and draws the states of translations together at the middle block.
`--start-from` takes the blocks of another model, and a token's embedding from that of its parts.

An interrupted training resumes from its last checkpoint when the same command is run again, and
ends with the same weights. The result is a folder of save_pretrained with a model card; the one
that ships is `models/embedded/model`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from xlt_bench.data.root import data_root
from xlt_bench.errors import InputError
from xlt_bench.models.embedded import corpus
from xlt_bench.models.embedded.card import model_card
from xlt_bench.models.embedded.corpus import Texts
from xlt_bench.models.embedded.muon import Muon
from xlt_bench.models.embedded.tokenizer import train_tokenizer
from xlt_bench.models.hidden_states import lengths_mask, pad_right, pooled_layers, without_head
from xlt_bench.results.run_folder import write_bytes

ROW = 256
LONG_ROW, LONG_EVERY = 512, 4
TRANSLATION_ROW = 64
BATCH_TOKENS = 4096
# Learning rates of Muon, for the matrices of the blocks, and AdamW, for the rest. After 125 steps
# the loss was that of AdamW alone after 300.
RATE, OTHER_RATE = 4e-3, 2.5e-3
WARM_UP_STEPS, DECAY, WEIGHT_DECAY, CLIP = 60, 0.25, 0.05, 1.0
# Translations whose mean states at this block are drawn together in each step.
BLOCK, TRANSLATIONS, TEMPERATURE = 4, 48, 0.1
CHECKPOINT_EVERY = 100
HELD_OUT = 64


@dataclass(frozen=True)
class Plan:
    """What determines the weights, apart from the data and the machine."""

    steps: int
    seed: int
    start: str | None = None
    """The model whose weights it started from, as it was named."""
    bfloat16: bool = False
    """Whether matrix products are computed in bfloat16."""

    @property
    def decay_start(self) -> int:
        """The step from which the learning rates fall."""
        return round((1 - DECAY) * self.steps)

    def continues(self, other: Plan, step: int) -> bool:
        """Whether a training by another plan is, up to a step, one by this plan too."""
        same = replace(other, steps=self.steps) == self
        return self == other or (same and step <= min(self.decay_start, other.decay_start))


def new_model(vocabulary: int, seed: int) -> LlamaForCausalLM:
    """Create an untrained model of 8 decoder blocks, in float32.

    Args:
        vocabulary: Size of the vocabulary.
        seed: Seed of the initial weights.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config)


def rows(texts: Texts, tokenizer: Any, plan: Plan, step: int) -> Tensor:
    """Make the batch of a step.

    Args:
        texts: The training text.
        tokenizer: The tokenizer.
        plan: The plan, whose seed determines the documents.
        step: The step, from 0.

    Returns:
        Token ids (rows, length): documents one after the other, the last one truncated.
    """
    rng = Random(f"{plan.seed} {step}")
    length = LONG_ROW if step % LONG_EVERY == LONG_EVERY - 1 else ROW
    batch = []
    for _ in range(BATCH_TOKENS // length):
        row: list[int] = []
        while len(row) < length:
            row += tokenizer(corpus.document(texts, rng).text)["input_ids"]
        batch.append(row[:length])
    return torch.tensor(batch)


def start_from(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    """Copy a trained model's blocks, and make embeddings from its embeddings.

    A token's embedding is the mean of the embeddings of the tokens that it is there.

    Args:
        model: The untrained model, whose blocks have the same shapes.
        tokenizer: The model's tokenizer.
        folder: The trained model and its tokenizer.

    Raises:
        InputError: If the blocks have other shapes.
    """
    old: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    old_tokenizer = AutoTokenizer.from_pretrained(folder)
    new: Any = model.get_input_embeddings()
    table, vocabulary = old.get_input_embeddings().weight, old_tokenizer.get_vocab()
    kept = {key: value for key, value in old.state_dict().items() if len(value) != len(table)}
    try:
        model.load_state_dict(kept, strict=False)
    except RuntimeError:
        raise InputError(f"{folder}: the blocks have other shapes than the new model's") from None
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    decoded = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    split = old_tokenizer(decoded, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        for token, (name, parts) in enumerate(zip(names, split, strict=True)):
            if known := [vocabulary[name]] if name in vocabulary else parts:
                new.weight[token] = table[known].mean(0)


def schedule(step: int, plan: Plan) -> float:
    """Compute the learning rate's factor: linear warm-up, constant, linear to zero.

    Args:
        step: The step, from 0.
        plan: The plan.

    Returns:
        The factor of the highest rate, 0 to 1.
    """
    rising = (step + 1) / WARM_UP_STEPS
    falling = (plan.steps - step) / (plan.steps - plan.decay_start + 1)
    return min(1.0, rising, falling)


def next_token_logits(model: Any, ids: Tensor) -> Tensor:
    """Compute the logits of every token but the first.

    Args:
        model: The model.
        ids: Token ids (rows, length).

    Returns:
        (rows, length - 1, vocabulary).
    """
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[:, :-1]


def training_loss(model: Any, ids: Tensor) -> Tensor:
    """Compute the mean loss.

    Args:
        model: The model.
        ids: Token ids (rows, length).

    Returns:
        A scalar, nats per token.
    """
    return cross_entropy(next_token_logits(model, ids).flatten(0, 1), ids[:, 1:].flatten())


def translation_loss(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Compute the contrastive loss of translations at the middle block, in both directions.

    As the benchmark's alignment (section 3 of the paper), but symmetric: the cosines of mean
    states, divided by a temperature, tell a text's translation from those of the other texts.

    Args:
        model: The model.
        tokenizer: The tokenizer.
        pairs: n pairs of texts.

    Returns:
        A scalar in nats.
    """
    texts = [text for pair in zip(*pairs, strict=True) for text in pair]
    ids = [row[:TRANSLATION_ROW] for row in tokenizer(texts)["input_ids"]]
    mask = lengths_mask(ids)
    with without_head(model), pooled_layers(model, mask, [BLOCK]) as pooled:
        model(input_ids=pad_right(ids), attention_mask=mask, use_cache=False, logits_to_keep=1)
    first, second = normalize(pooled[BLOCK].float(), dim=1).chunk(2)
    scores = first @ second.T / TEMPERATURE
    right = torch.arange(len(scores))
    return (cross_entropy(scores, right) + cross_entropy(scores.T, right)) / 2


def token_losses(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss of each token but the first, and whether it is predicted right.

    Args:
        model: The model.
        ids: Token ids (rows, length).

    Returns:
        Losses in nats, float32, and whether the token is the most likely one: (rows, length - 1).
    """
    logits, labels = next_token_logits(model, ids).float(), ids[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view_as(labels), logits.argmax(-1) == labels


class Run:
    """A training that can resume from its checkpoint, `training.safetensors` in the output.

    Args:
        model: The model to train.
        plan: Steps and seed.
        output: The model's folder.
    """

    def __init__(self, model: LlamaForCausalLM, plan: Plan, output: Path) -> None:
        self.model, self.plan = model, plan
        self.path = output / "training.safetensors"
        self.step = 0
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed_tokens" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed_tokens" in name]
        muon = Muon(matrices, RATE, WEIGHT_DECAY)
        adamw = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        self.optimizers = {muon: RATE, adamw: OTHER_RATE}

    def _tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer states by name; the tensors themselves, not copies."""
        tensors = {}
        for name, parameter in self.model.named_parameters():
            tensors[name] = parameter.detach()
            for optimizer in self.optimizers:
                if state := optimizer.state.get(parameter):
                    tensors |= {f"{key} {name}": value for key, value in state.items()}
        return tensors

    def save(self) -> None:
        """Write the checkpoint atomically."""
        about = {"step": str(self.step), "plan": json.dumps(asdict(self.plan))}
        write_bytes(self.path, save(self._tensors(), about))

    def load(self) -> None:
        """Load the checkpoint, if there is one.

        Raises:
            InputError: If it is damaged, or belongs to another plan.
        """
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata()
                if not self.plan.continues(Plan(**json.loads(about["plan"])), int(about["step"])):
                    raise InputError(
                        f"{self.path} belongs to a training with {about['plan']}; choose another "
                        "--output, or delete it"
                    )
                parameters = dict(self.model.named_parameters())
                for key in sorted(file.keys()):
                    *moment, name = key.split(" ")
                    if moment:
                        self._state(parameters[name])[moment[0]] = file.get_tensor(key)
                    else:
                        parameters[name].data.copy_(file.get_tensor(key))
            self.step = int(about["step"])
        except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{self.path} is damaged ({error}); delete it") from None

    def _state(self, parameter: Tensor) -> Any:
        """The optimizer state of a parameter."""
        for optimizer in self.optimizers:
            if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                return optimizer.state[parameter]
        raise KeyError("no optimizer has this parameter")

    def train(self, texts: Texts, tokenizer: Any) -> Iterator[tuple[int, float, float]]:
        """Train to the end of the plan.

        Args:
            texts: The training text.
            tokenizer: The tokenizer.

        Yields:
            The number of each step, from 1, its loss in nats per token, and that of translations.
        """
        self.model.train()
        while self.step < self.plan.steps:
            for optimizer, highest in self.optimizers.items():
                for group in optimizer.param_groups:
                    group["lr"] = highest * schedule(self.step, self.plan)
            batch = rows(texts, tokenizer, self.plan, self.step)
            rng = Random(f"{self.plan.seed} {self.step} translations")
            pairs = corpus.translations(texts, rng, TRANSLATIONS)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.bfloat16):
                loss = training_loss(self.model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.bfloat16):
                apart = translation_loss(self.model, tokenizer, pairs)
            apart.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            for optimizer in self.optimizers:
                optimizer.step()
            self.model.zero_grad()
            self.step += 1
            yield self.step, loss.item(), apart.item()
            if self.step % CHECKPOINT_EVERY == 0 and self.step < self.plan.steps:
                self.save()


@torch.inference_mode()
def held_out(model: Any, tokenizer: Any, texts: Texts) -> dict[str, float]:
    """Measure the model on 64 held-out documents of each kind.

    Args:
        model: The model.
        tokenizer: The tokenizer.
        texts: Text that the model was not trained on.

    Returns:
        `loss <kind>` in nats per token, and `copied <kind>`, the per cent of copied tokens that the
        model predicts right.
    """
    model.eval()
    results = {}
    for kind, (_, make) in corpus.KINDS.items():
        if (kind == "pairs" and not texts.pairs) or (kind == "entities" and not texts.sentences):
            continue
        rng = Random(f"held out {kind}")
        losses, copied = [], []
        for document in (make(texts, rng) for _ in range(HELD_OUT)):
            ids = tokenizer(document.text)["input_ids"]
            loss, right = token_losses(model, torch.tensor([ids]))
            losses.append(loss[0])
            start = len(tokenizer(document.text[: document.copied])["input_ids"]) - 1
            copied.append(right[0, start:])
        results[f"loss {kind}"] = round(torch.cat(losses).mean().item(), 3)
        if len(tokens := torch.cat(copied)):
            results[f"copied {kind}"] = round(100 * tokens.float().mean().item(), 1)
    return results


def export(model: Any, tokenizer: Any, card: str, output: Path) -> None:
    """Write the model folder, each file atomically.

    Args:
        model: The model.
        tokenizer: The tokenizer.
        card: The model card.
        output: The folder.
    """
    with tempfile.TemporaryDirectory(dir=output) as staging:
        tokenizer.save_pretrained(staging)
        path = Path(staging) / "tokenizer.json"
        table = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(table, ensure_ascii=False, separators=(",", ":")) + "\n")
        model.save_pretrained(staging)
        (Path(staging) / "README.md").write_text(card, encoding="utf-8")
        for file in sorted(Path(staging).iterdir()):
            write_bytes(output / file.name, file.read_bytes())


def _report(step: int, done: int, steps: int, loss: str, seconds: float) -> None:
    """Print one line of progress; `done` steps took `seconds`."""
    speed, left = done * BATCH_TOKENS / seconds, seconds / done * (steps - step) / 60
    print(
        f"step {step} of {steps}, loss {loss}, {speed:,.0f} tokens/s, {left:.0f} min left",
        flush=True,
    )


def pretrain(data_dir: Path | None, messages: Path, output: Path, plan: Plan) -> None:
    """Train and write a model, printing progress.

    Args:
        data_dir: The data folder; None for the default.
        messages: The folder of unpacked packages.
        output: The model's folder.
        plan: Steps and seed.

    Raises:
        InputError: If data are missing, or the folder has another training's checkpoint.
    """
    if plan.steps < 1:
        raise InputError(f"--steps must be at least 1, got {plan.steps}")
    root = data_root(data_dir)
    texts = corpus.load_training(root, messages)
    unseen = corpus.load_unseen(root)
    tokenizer = train_tokenizer(texts)
    output.mkdir(parents=True, exist_ok=True)
    model = new_model(len(tokenizer), plan.seed)
    if plan.start:
        start_from(model, tokenizer, Path(plan.start))
    run = Run(model, plan, output)
    run.load()
    started, first, mean = time.monotonic(), run.step, [0.0, 0.0]
    for step, *losses in run.train(texts, tokenizer):
        share = 1 if step == first + 1 else 0.05
        mean = [old + share * (new - old) for old, new in zip(mean, losses, strict=True)]
        if step % 25 == 0 or step == plan.steps:
            text = f"{mean[0]:.3f}, of translations {mean[1]:.3f}"
            _report(step, step - first, plan.steps, text, time.monotonic() - started)
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    results = held_out(model, tokenizer, unseen)
    print(json.dumps(results, indent=1))
    sizes = {
        "parameters": model.num_parameters(), "vocabulary": len(tokenizer), "batch": BATCH_TOKENS,
        "translations": TRANSLATIONS, "block": BLOCK, "documents": HELD_OUT,
    }  # fmt: skip
    card = model_card(sizes, plan.steps, plan.seed, plan.start, results)
    export(model, tokenizer, card, output)
    run.path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The arguments; None for those of the process.

    Raises:
        SystemExit: With code 2, after one line on stderr, if the input is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m xlt_bench.models.embedded.pretrain")
    parser.add_argument("--data-dir", type=Path, help="default: $XLT_BENCH_DATA, else the cache")
    parser.add_argument("--messages", type=Path, required=True, help="unpacked packages")
    parser.add_argument("--output", type=Path, required=True, help="the model's folder")
    parser.add_argument("--start-from", metavar="MODEL", help="a model whose weights to start from")
    parser.add_argument("--steps", type=int, default=4000, help="updates of 4,096 tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="ten times slower on a processor without instructions for it",
    )
    options = parser.parse_args(arguments)
    try:
        plan = Plan(options.steps, options.seed, options.start_from, options.bfloat16)
        pretrain(options.data_dir, options.messages, options.output, plan)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
