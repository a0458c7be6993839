"""Size: the score of each method against the number of parameters of its base model."""

from __future__ import annotations

import choices
import curves
import method_rows
import names
import pandas as pd
from specs import show
from widgets import SUBMIT, footer, nothing

task = choices.task()
metric = method_rows.primary(task)
known = names.bases()
frame = pd.DataFrame(
    [
        {
            "base_model": known[row.base].name,
            "method": names.badged(row.name, row.badges[0][0]),
            "kind": names.KINDS.get(row.kind, "training not known"),
            "items": row.items if row.items.startswith("first") else "whole test sets",
            "parameters": known[row.base].parameters,
            "score": row.score,
        }
        for group in method_rows.groups(task, metric)
        for row in group.rows
        if row.id and row.score is not None and known[row.base].parameters
    ]
)
if frame.empty:
    nothing("No method of this task has a mean score yet.", SUBMIT)
caption = (
    f"{task}: mean {metric} of the {task.ranked_by} languages against the parameters of the base "
    "model, a point for each method. Points of different shapes were tested on different items and "
    "cannot be compared."
)
chart = curves.sizes(frame, metric)
show(chart, caption)
footer(f"size-{task.name}-v{task.version}", caption, frame, chart)
