"""Retrieval as a task of lm-eval: a document is an ordered pair of languages.

It is answered with one accuracy per layer; hidden states never enter lm-eval's logs. Needs torch,
which `tasks.retrieval` does not.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from xlt_bench.data.root import data_root
from xlt_bench.languages import language
from xlt_bench.tasks.registry import get_task
from xlt_bench.tasks.retrieval import ACCURACY, TASK


def dataset(
    data_dir: str | None = None,
    languages: list[str] | None = None,
    layers: list[int] | None = None,
    corpus: str = TASK.name,
    **_: Any,
) -> dict[str, Any]:
    """`custom_dataset` of lm-eval: one document per ordered pair.

    `corpus` is the name of the task. `languages` (default: the ranked ones), `layers` (default: the
    even ones) and `data_dir` may come from `--metadata`.
    """
    from datasets import Dataset

    codes = [language(code).code for code in languages or get_task(corpus).test_set().units]
    root = str(data_root(data_dir))
    rows = [
        {"source": a, "target": b, "layers": layers, "data_dir": root, "task": corpus}
        for a, b in itertools.permutations(codes, 2)
    ]
    return {"test": Dataset.from_list(rows)}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


class RetrievalTask(ConfigurableTask):  # type: ignore[misc]
    """The lm-eval task; its requests are answered by XltLM.hidden_states."""

    def __init__(self, config: dict[str, Any]) -> None:
        config = {key: value for key, value in config.items() if key != "class"}
        # The base class accepts only its own four output types.
        super().__init__(config={**config, "output_type": "generate_until"})
        self.OUTPUT_TYPE = "hidden_states"

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> Instance:
        """One request: the document itself, as JSON (lm-eval wants a string)."""
        return Instance(
            request_type="hidden_states",
            doc=doc,
            arguments=(json.dumps(doc),),
            idx=0,
            metadata=kwargs["metadata"],
        )

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, float]:
        """The accuracy of each layer, and their mean over even layers (the paper's aggregate)."""
        by_layer: dict[str, float] = results[0]
        even = [value for layer, value in by_layer.items() if int(layer) % 2 == 0]
        named = {f"accuracy_layer_{layer}": value for layer, value in by_layer.items()}
        return named | ({ACCURACY: _mean(even)} if even else {})

    def aggregation(self) -> Mapping[str, Callable[[list[float]], float]]:
        """Means over ordered pairs, for as many layers as the model has."""
        return _SameForAll(_mean)

    def higher_is_better(self) -> dict[str, bool]:
        """Higher accuracy is better."""
        return {ACCURACY: True}


class _SameForAll(dict[str, Any]):
    """A dict with one value for all keys, since the names of the layers depend on the model."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, key: str) -> Any:
        return self._value
