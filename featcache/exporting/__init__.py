"""A model in the formats of other runtimes, each compared with the model on photos before it is kept."""
