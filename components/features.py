"""Names of what travels between the steps: features, splits, files."""

SPLITS = ("train", "eval", "test")

# Raw examples, as ImageExampleGen writes them.
ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
CHANNELS = "image/channels"
FILENAME = "image/filename"
SHA256 = "image/key/sha256"
CLASS_NAME = "image/class/text"
# In the metadata examples only: what statistics and validation look at besides the above.
BYTES = "image/bytes"
BRIGHTNESS = "image/brightness"

# Transformed examples.
IMAGE = "image"
LABEL = "label"
KEY = "key"
CHANNEL_ORDER = "normalise/channel_order"
SCALE = "normalise/scale"
OFFSET = "normalise/offset"

# What StatisticsGen leaves in the folder of a split.
STATISTICS_FILE = "FeatureStats.pb"

# What the Trainer leaves besides the model.
TRAINING_FILE = "training.json"
ANSWERS_FILE = "answers.json"
TENSORBOARD_FOLDER = "tensorboard"
CLASSIFIER_FILE = "classifier.keras"

# What the gate leaves, and the Pusher: a custom property that says why a model that was blessed was not pushed.
DECISION_FILE = "decision.json"
REFUSAL = "refusal"
