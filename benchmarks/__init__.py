"""Side-by-side measurements against what a user would otherwise run; README.md says how to read them."""
