"""Stage 2b: a search over heads."""
