"""Computes language vectors, which steer a model without training, and writes their folder.

The vector of a language is the mean hidden state of English sentences minus that of their
translations, at one layer: added to the states of text in the language, it moves them towards
English. `models.steering` adds it.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_bench.data.flores import Corpus
from xlt_bench.data.root import content_digest, data_root
from xlt_bench.errors import InputError, unknown
from xlt_bench.evaluation.predict import untracked
from xlt_bench.languages import LANGUAGES, language
from xlt_bench.models.adapters import (
    AdapterFiles,
    base_of,
    check_local,
    copy_tokenizer,
    find_adapter,
    install,
)
from xlt_bench.models.steering_config import (
    CONFIG,
    KIND,
    MAX_SCALE,
    PIVOT,
    STEERING_CORPORA,
    UNDER,
    VECTORS,
    SteeringConfig,
)
from xlt_bench.models.validate_names import (
    check_device,
    check_dtype,
    check_model,
    parse_batch_size,
)
from xlt_bench.results.atomic_write import part_folder
from xlt_bench.results.run_folder import check_empty, write_bytes, write_json
from xlt_bench.tasks.registry import BY_DEFAULT, get_task
from xlt_bench.training.recipe_data import block_number
from xlt_bench.training.steer_card import steer_card

if TYPE_CHECKING:
    from torch import Tensor

    from xlt_bench.models.lm import XltLM
    from xlt_bench.models.load import Base


@dataclass(frozen=True)
class SteerOptions:
    """The options of `xlt-bench steer`.

    `layer` is a block, from 1, if it is an int, and a share of all blocks if it is a float.
    """

    output: Path
    model: str | None = None
    adapter: str | None = None
    layer: float = 0.5
    languages: Sequence[str] = ()
    corpus: str = "flores-devtest"
    scale: float = 1.0
    dtype: str = "auto"
    device: str | None = None
    batch_size: str = "auto"
    trust_remote_code: bool = False
    data_dir: str | None = None


@dataclass(frozen=True)
class Steered:
    """What was written: the languages that have a vector, the layer, and notes for the user."""

    languages: list[str]
    layer: int
    notes: list[str]


def parse_layer(text: str) -> float:
    """Parse a block such as `16`, an int, or a share of all blocks such as `0.5`, a float.

    Raises:
        InputError: If it is not a number.
    """
    try:
        return int(text) if text.strip().isdecimal() else float(text)
    except ValueError:
        raise InputError(f"--layer must be a number such as 16 or 0.5, got {text!r}") from None


def check(options: SteerOptions) -> None:
    """Check the options without importing torch.

    Args:
        options: The options.

    Raises:
        InputError: If an option is wrong.
    """
    if options.corpus in ("flores", "flores-dev"):
        raise InputError(
            f"--corpus: retrieval is measured on FLORES dev; choose {' or '.join(STEERING_CORPORA)}"
        )
    if options.corpus not in STEERING_CORPORA:
        raise unknown("corpus", options.corpus, STEERING_CORPORA)
    if not math.isfinite(options.scale) or abs(options.scale) > MAX_SCALE:
        raise InputError(f"--scale must be a number up to {MAX_SCALE:,}, got {options.scale}")
    share = isinstance(options.layer, float)
    if not (0 < options.layer <= 1 if share else options.layer >= 1):
        raise InputError(
            f"--layer must be a block from 1, or a share above 0 and up to 1.0, got {options.layer}"
        )
    parse_batch_size(options.batch_size)
    check_dtype(options.dtype)
    check_device(options.device)
    check_empty(options.output)
    if options.model is None and options.adapter is None:
        raise InputError("give --model, or --adapter, which names its base model")
    if options.model:
        check_model(options.model)
    if options.adapter:
        check_local(options.adapter)


def languages_of(options: SteerOptions) -> tuple[list[str], list[str]]:
    """Choose the languages that get a vector.

    Args:
        options: The checked options.

    Returns:
        Those that the corpus has, and those that it lacks; English is in neither.

    Raises:
        InputError: If the corpus has none of them.
    """
    asked = {language(name).code for name in options.languages if name.strip()} or _ranked()
    corpus = STEERING_CORPORA[options.corpus]
    codes = [code for code in LANGUAGES if code in asked and code != PIVOT]
    there = [code for code in codes if code in corpus.units()]
    if not there:
        lacks = f"--languages: {corpus.corpus} has no {' '.join(codes)}"
        raise InputError(lacks if codes else _NO_LANGUAGE)
    return there, [code for code in codes if code not in there]


_NO_LANGUAGE = "--languages: English has no vector; give another language, such as de,sw"


def _ranked() -> set[str]:
    """All languages of the units that the benchmark ranks."""
    tasks = [get_task(name) for name in BY_DEFAULT]
    return {code for t in tasks for unit in t.test_set().units for code in t.languages_of(unit)}


def steer(options: SteerOptions, track: Any = untracked) -> Steered:
    """Compute the vectors of a model and write their folder, whole or not at all.

    Args:
        options: What to compute, and where to write it.
        track: Reports progress; see `evaluation.run.evaluate`.

    Raises:
        InputError: If an option is wrong, data are missing, or the folder is not empty.
    """
    check(options)
    codes, lacking = languages_of(options)
    task, root = STEERING_CORPORA[options.corpus], data_root(options.data_dir)
    task.check(Corpus(root), [PIVOT, *codes])
    sentences = {code: task.load(root, code) for code in (PIVOT, *codes)}
    adapter = find_adapter(options.adapter) if options.adapter else None
    if adapter and adapter.steers:
        raise InputError(f"adapter {adapter.name} is a steering folder; give the adapter in it")
    base, lm, layer = _load(options, adapter)
    vectors = _vectors(lm, layer, sentences, track)
    config = SteeringConfig(
        peft_type=KIND,
        base_model_name_or_path=base.repository,
        revision=base.revision,
        base_model_sha256=base.sha256,
        adapter_sha256=adapter.sha256 if adapter else None,
        layer=layer,
        scale=float(options.scale),
        pooling="mean",
        corpus=options.corpus,  # type: ignore[arg-type]  # checked before
        corpus_digest=content_digest([code, *rows] for code, rows in sentences.items()),
        sentences=len(sentences[PIVOT]),
    )
    card = steer_card(config, base, adapter, codes, lacking)
    _write(options.output, config, vectors, adapter, card)
    notes = [f"{task.corpus} has no {' '.join(lacking)}: without a vector"] if lacking else []
    return Steered(codes, layer, notes)


def _load(options: SteerOptions, adapter: AdapterFiles | None) -> tuple[Base, XltLM, int]:
    """The base model, what pools its states with the adapter, and the layer."""
    from xlt_bench.models.adapter_fit import check_adapter
    from xlt_bench.models.adapter_switch import AdapterSwitch
    from xlt_bench.models.hidden_states import count_layers
    from xlt_bench.models.lm import XltLM
    from xlt_bench.models.load import choose_device, commit_of, load_base, meta_model
    from xlt_bench.models.tokenizer import choose_chat

    name = options.model or base_of([str(options.adapter)])
    commit, trust = commit_of(name), options.trust_remote_code
    skeleton = meta_model(name, trust, commit)
    last = count_layers(skeleton)
    layer = block_number(options.layer, last, 0)
    if layer > last:
        raise InputError(
            f"--layer must be between 1 and {last} for this model, got {layer} (a share such as "
            "0.5 fits any model)"
        )
    fits = {adapter.name: check_adapter(adapter, skeleton, name)} if adapter else {}
    chat = choose_chat(name, adapter, None, None, {}, trust, commit)
    device = choose_device(options.device)
    base = load_base(name, options.dtype, device, trust, commit, chat.tokenizer)
    size = parse_batch_size(options.batch_size)
    lm = XltLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=size)
    lm.use_model(AdapterSwitch(base.model, base.name, fits).use(adapter))
    lm.try_out(False, [layer])
    return base, lm, layer


def _vectors(
    lm: XltLM, layer: int, sentences: dict[str, list[str]], track: Any
) -> dict[str, Tensor]:
    """The mean state of English minus that of each other language, (d,), float32."""
    from xlt_bench.models.generation import NotFiniteError

    means = {}
    for code, rows in sentences.items():
        with track(f"steer {code}", len(rows)) as progress:
            states = lm.sentence_states(rows, [layer], progress)[:, 0]
        means[code] = states.double().mean(dim=0)
        if not means[code].isfinite().all():
            dtype = str(lm.model.dtype).removeprefix("torch.")
            raise NotFiniteError(f"hidden states of {code}", dtype)
    return {code: (means[PIVOT] - mean).float() for code, mean in means.items() if code != PIVOT}


def _write(
    output: Path,
    config: SteeringConfig,
    vectors: dict[str, Tensor],
    adapter: AdapterFiles | None,
    card: str,
) -> None:
    """Write all files to a temporary folder, read them back, and rename it."""
    from safetensors.torch import save

    output = output.resolve()
    with part_folder(output) as staging:
        folder = staging / "files"
        write_json(folder / CONFIG, config.model_dump())
        write_bytes(folder / "README.md", card.encode())
        write_bytes(folder / VECTORS, save(vectors))
        if adapter:
            _copy(adapter, folder / UNDER)
        find_adapter(str(folder))
        try:
            folder.rename(output)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            check_empty(output)  # another process wrote it meanwhile
            raise


def _copy(adapter: AdapterFiles, folder: Path) -> None:
    install(adapter.folder, folder)
    copy_tokenizer(adapter, folder)
    if (card := adapter.folder / "README.md").is_file():
        write_bytes(folder / card.name, card.read_bytes())
