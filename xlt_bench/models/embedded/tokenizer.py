"""Trains the embedded model's tokenizer, a byte-level BPE, and defines its chat template.

The tokenizer adds the BOS and the template does not, so a prompt has exactly one.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xlt_bench.models.embedded import corpus
from xlt_bench.models.embedded.corpus import Texts

BOS, PAD = "<s>", "<pad>"
VOCABULARY = 8192
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] | trim + eos_token }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)
# The space before a word belongs to it, so that a repeated word has the same tokens. Han and kana
# are single characters, as MASSIVE scores Japanese and Chinese; in scripts without spaces between
# words a space is not part of a word, for the same reason. Nothing is normalised: an answer must
# repeat the user's exact characters (NFC would change 611 of MASSIVE's Hindi utterances).
_BLANKLESS = r"\p{Thai}\p{Khmer}\p{Lao}\p{Myanmar}"
_KANA_HAN = r"\p{Han}\p{Hiragana}\p{Katakana}"
_PIECES = (
    rf" ?(?:(?![{_KANA_HAN}{_BLANKLESS}])[\p{{L}}\p{{M}}])+"
    rf"|[{_KANA_HAN}]|[{_BLANKLESS}]+"
    r"| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Texts, size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, which encodes every text without loss and adds a BOS.

    Args:
        texts: The training text.
        size: Size of the vocabulary.

    Returns:
        The tokenizer, with its chat template.
    """
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
    """Yield all utterances, and of a language about 4,000 pairs and 500 answers in JSON.

    Each comes after a space. Utterances are also yielded without the space: the model is for them.
    """
    for command in texts.commands:
        for text in command.values():
            yield from (text, f" {text}")
    for rows in texts.pairs.values():
        step = max(1, len(rows) // 4000)
        for foreign, english in rows[::step]:
            yield f" {foreign}"
            if step > 1:
                yield f" {english}"
    rng = Random(0)
    for code in texts.sentences:
        for _ in range(500):
            yield corpus.entities(Texts([], {}, {code: texts.sentences[code]}), rng).text
