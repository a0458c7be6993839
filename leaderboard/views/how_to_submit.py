"""How to submit: the steps from an adapter to a row of the leaderboard."""

from __future__ import annotations

import streamlit as st

STEPS = (
    (
        "1. Evaluate the bare model and your adapter",
        "The gains of your adapter are differences from the bare model on the same items.",
        "xlt-bench evaluate --model MODEL --output runs/bare\n"
        "xlt-bench evaluate --model MODEL --adapter ADAPTER --output runs/mine",
    ),
    (
        "2. Look at the gains",
        "The gain or loss in each language, tested with a paired bootstrap.",
        "xlt-bench compare runs/mine runs/bare",
    ),
    (
        "3. Submit",
        "This recomputes every score from the answers. Equal answers are written once. A newer run "
        "of the same system supersedes an older one task by task: in a task of which they have "
        "different versions, each keeps its place in the ranking of its version. A task with "
        "missing languages or an item limit is partial: the leaderboard shows it without a place. "
        "Languages beyond the ranked set of the task's version are shown apart and are in no mean.",
        'xlt-bench submit runs/bare --name "MODEL, bare"\n'
        'xlt-bench submit runs/mine --name "My system" --contact you@example.org',
    ),
    (
        "4. Open a pull request",
        "The command above prints the git commands. Reviewers recompute everything:",
        "xlt-bench submissions check submissions/ID",
    ),
    (
        "Plain lm-eval",
        "You can submit its output, too.",
        'lm_eval --include_path "$(xlt-bench stubs --path)" --tasks xlt_massive ... \\\n'
        "  --apply_chat_template --log_samples --output_path OUT\n"
        "xlt-bench submit OUT",
    ),
)

for title, text, command in STEPS:
    st.header(title)
    st.markdown(text)
    # Streamlit's colours for a language have too little contrast.
    st.code(command, language=None, wrap_lines=True)
st.caption("Answers, records and names of a submission are public. Keep secrets out of them.")
