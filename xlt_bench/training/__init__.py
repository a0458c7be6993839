"""Training by recipe: task and alignment objectives, alternating."""
