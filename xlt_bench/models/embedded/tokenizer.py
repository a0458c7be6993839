"""The embedded model's tokenizer: byte-level BPE, trained on the same text, and its chat template.

The tokenizer adds the BOS and the template writes none, so a prompt has one.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xlt_bench.models.embedded import corpus
from xlt_bench.models.embedded.corpus import Texts

BOS, PAD = "<s>", "<pad>"
VOCABULARY = 6144
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] | trim + eos_token }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)
# A word takes the blank before it along, so that it is the same tokens wherever it is repeated.
# Han and kana go one by one, as MASSIVE's Japanese and Chinese are scored, and scripts without
# blanks between words leave the blank out, for the same reason. No normalisation: an answer must
# give back the user's very characters (NFC alone would change 611 of MASSIVE's Hindi utterances).
_BLANKLESS = r"\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}"
_KANA_HAN = r"\p{Han}\p{Hiragana}\p{Katakana}"
_PIECES = (
    rf" ?(?:(?![{_KANA_HAN}{_BLANKLESS}])[\p{{L}}\p{{M}}])+"
    rf"|[{_KANA_HAN}]|[{_BLANKLESS}]+"
    r"| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Texts, size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `size` tokens: every text is encoded without loss; adds a BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    turns = [corpus.SYSTEM_TURN, corpus.USER_TURN, corpus.ASSISTANT_TURN]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, corpus.EOS, PAD, *turns],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_lines(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=corpus.EOS,
        pad_token=PAD,
        additional_special_tokens=turns,
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


def _tokenizer_lines(texts: Texts) -> Iterator[str]:
    """All utterances, and at most 2,000 sentences a language, with a blank before each.

    Utterances are twice there, since they are what the model is for.
    """
    for command in texts.commands:
        for text in command.values():
            yield from (text, f" {text}")
    for rows in texts.pairs.values():
        step = max(1, len(rows) // 2000)
        for foreign, english in rows[::step]:
            yield f" {foreign}"
            if step > 1:
                yield f" {english}"
