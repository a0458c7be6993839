"""The pages: their titles, and what search engines and previews of links say about them."""

QUESTION = "Which training carries a skill from a few languages over to the others?"
"""The heading of the first page."""
TITLES = {
    "overview": "Overview",
    "systems": "Systems",
    "gains": "Gains",
    "transfer": "Transfer",
    "families": "Families",
    "size": "Size",
    "layers": "Layers",
    "correlation": "Correlation",
    "compare": "Compare",
    "submission": "Submission",
    "how_to_submit": "How to submit",
    "about": "About",
}
DESCRIPTIONS = {
    "overview": "Trainings for cross-lingual transfer of LLMs, with their gains by language.",
    "systems": "Every submitted system with its scores in supervised and transfer languages.",
    "gains": "The gain of a system over its baseline in every language, with intervals.",
    "transfer": "What a gain consists of, and how far scores carry over between languages.",
    "families": "Mean gains by language family and by script.",
    "size": "Scores against the number of parameters of the base model.",
    "layers": "Translation retrieval by layer: how alike the hidden states of translations are.",
    "correlation": "Retrieval accuracy against task score, a point for each language.",
    "compare": "The answers of two systems side by side, item by item.",
    "submission": "The record of a submission, the command that repeats it, and its files.",
    "how_to_submit": "From an adapter to a row of the leaderboard.",
    "about": "What xlt-bench measures, what its data are, and how to cite it.",
}
