"""The text benchmarks by family; retrieval (`flores`) has hidden states for answers."""

from types import ModuleType

from xlt_bench.benchmarks import massive, uner, wmt23

TEXT: dict[str, ModuleType] = {"massive": massive, "wmt23": wmt23, "uner": uner}
