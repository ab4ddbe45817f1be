"""Stage 2b: hyperparameter search over heads."""
