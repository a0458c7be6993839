"""Linear CKA between two languages' states as a loss.

A micro-batch has fewer sentences than a state has dimensions, where only the unbiased estimator of
`metrics.representation` tells related states from others.
"""

from __future__ import annotations

from torch import Tensor

from xlt_bench.metrics.representation import LEAST as LEAST
from xlt_bench.metrics.representation import cka


def cka_loss(anchors: Tensor, candidates: Tensor) -> Tensor:
    """Compute 1 - CKA of the sentences' similarities within each side.

    Args:
        anchors: (n, d), the first sides, n at least `LEAST`.
        candidates: (n, d), their translations, row by row.

    Returns:
        A scalar, 0 to 2; float32, or float64 if the states are. 0 if one side is the other turned
        and scaled.
    """
    return 1 - cka(anchors, candidates)
