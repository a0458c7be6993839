"""How to submit: from an adapter to a row of the leaderboard."""

from __future__ import annotations

import streamlit as st

STEPS = (
    (
        "1. Evaluate the bare model and your adapter",
        "The gains of your adapter are counted from the bare model on the same items.",
        "xlt-bench evaluate --model MODEL --output runs/bare\n"
        "xlt-bench evaluate --model MODEL --adapter ADAPTER --output runs/mine",
    ),
    (
        "2. Look at the gains before anybody else does",
        "Each language with a paired bootstrap, and what it loses.",
        "xlt-bench compare runs/mine runs/bare",
    ),
    (
        "3. Submit",
        "Every score is computed again from the answers. The same answers are recognised and "
        "written once; a newer run of the same system supersedes the older one. Some tasks, some "
        "languages or a limit make a submission partial: it is shown, and has no place.",
        'xlt-bench submit runs/bare --name "MODEL, bare"\n'
        'xlt-bench submit runs/mine --name "My system" --contact you@example.org',
    ),
    (
        "4. Open a pull request",
        "The command above prints the git commands. Whoever reviews it computes everything again:",
        "xlt-bench submissions check submissions/ID",
    ),
    (
        "Plain lm-eval",
        "Its output can be submitted, too.",
        'lm_eval --include_path "$(xlt-bench stubs --path)" --tasks xlt_massive ... \\\n'
        "  --apply_chat_template --log_samples --output_path OUT\n"
        "xlt-bench submit OUT",
    ),
)

for title, text, command in STEPS:
    st.subheader(title)
    st.markdown(text)
    st.code(command, language="sh", wrap_lines=True)
st.caption("Answers, records and names of a submission are public; do not put secrets in them.")
