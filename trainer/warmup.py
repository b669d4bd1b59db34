"""The requests with which TensorFlow Serving warms a model up before it takes it into service.

https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import io
from pathlib import Path

import tensorflow as tf

FILE = Path("assets.extra", "tf_serving_warmup_requests")


def write(model: Path, size: int) -> None:
    """Adds the file to an exported model: a JPEG and a PNG, alone and together.

    The pictures are drawn. Photographs of the data set would leave it with every copy of the model.

    Args:
      model: folder of the SavedModel.
      size: side in pixels of what the network sees; the pictures are larger, as photographs are.
    """
    from PIL import Image
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    picture = Image.linear_gradient("L").resize((size * 3, size * 2)).convert("RGB")
    files = []
    for kind in ("JPEG", "PNG"):
        content = io.BytesIO()
        picture.save(content, kind)
        files.append(content.getvalue())
    (model / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(model / FILE)) as writer:
        for batch in ([files[0]], [files[1]], files):
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "serving_default"
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(batch, tf.string))
            log = prediction_log_pb2.PredictLog(request=request)
            writer.write(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
