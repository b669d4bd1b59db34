"""Names of the folders that trainings keep in the cache, for whoever tidies up there without importing TensorFlow."""

# Trainings that are not finished, features, and what is needed while a training runs.
UNFINISHED_PREFIX, FEATURES_PREFIX, SCRATCH_PREFIX = "training-", "features-", "graft-training-"
# A download of the model that a training begins with.
IN_SERVICE_FOLDER = "in_service"
