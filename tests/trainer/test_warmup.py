"""The warm-up file is what TensorFlow Serving reads, and what the model takes."""

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from trainer import warmup


def test_warm_up_requests_are_images_for_the_default_signature(tmp_path):
    warmup.write(tmp_path, 32)
    records = tf.data.TFRecordDataset(str(tmp_path / "assets.extra" / "tf_serving_warmup_requests"))
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records.as_numpy_iterator()]
    assert [log.WhichOneof("log_type") for log in logs] == ["predict_log"] * 3
    sizes = []
    for log in logs:
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        images = tf.make_ndarray(request.inputs["image_bytes"])
        sizes.append(len(images))
        for image in images:
            assert tf.io.decode_image(image).shape == (64, 96, 3)
    assert sizes == [1, 1, 2]
