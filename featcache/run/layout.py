"""The names of a run's files: every other module asks here."""

FEATURE_FILE = "features.h5"
HEADS_FILE = "heads.json"
MODELS_FOLDER = "models"
MODEL_FILE = "model.json"
