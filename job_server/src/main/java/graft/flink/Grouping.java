package graft.flink;

import java.io.IOException;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.transforms.windowing.GlobalWindow;
import org.apache.beam.sdk.transforms.windowing.PaneInfo;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.beam.sdk.values.KV;
import org.apache.flink.api.common.functions.GroupReduceFunction;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.java.DataSet;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.util.Collector;

/** GroupByKey in the global window: equal are keys whose bytes are equal, as Beam has it. */
final class Grouping {
  private Grouping() {}

  static DataSet<byte[]> grouped(DataSet<byte[]> pairs, ElementCoder input, ElementCoder output, String name) {
    return pairs
        .map(new Divide(input))
        .name(name + ": keys")
        .groupBy(0)
        .reduceGroup(new Collect(input, output))
        .name(name);
  }

  /** A pair's bytes -> the bytes of its key and of its value. */
  private static final class Divide implements MapFunction<byte[], Tuple2<byte[], byte[]>>, Serializable {
    private static final long serialVersionUID = 1L;
    private final ElementCoder input;

    Divide(ElementCoder input) {
      this.input = input;
    }

    @Override
    public Tuple2<byte[], byte[]> map(byte[] element) throws IOException {
      KV<?, ?> pair = (KV<?, ?>) input.decode(element).getValue();
      return Tuple2.of(
          CoderUtils.encodeToByteArray(input.pairs().getKeyCoder(), pair.getKey()),
          CoderUtils.encodeToByteArray(input.pairs().getValueCoder(), pair.getValue()));
    }
  }

  /** All of one key -> the bytes of the key with the list of its values, which must fit into memory. */
  private static final class Collect implements GroupReduceFunction<Tuple2<byte[], byte[]>, byte[]>, Serializable {
    private static final long serialVersionUID = 1L;
    private final ElementCoder input;
    private final ElementCoder output;

    Collect(ElementCoder input, ElementCoder output) {
      this.input = input;
      this.output = output;
    }

    @Override
    public void reduce(Iterable<Tuple2<byte[], byte[]>> pairs, Collector<byte[]> collector) throws IOException {
      Coder<Object> valueCoder = input.pairs().getValueCoder();
      byte[] key = null;
      List<Object> values = new ArrayList<>();
      for (Tuple2<byte[], byte[]> pair : pairs) {
        key = pair.f0;
        values.add(CoderUtils.decodeFromByteArray(valueCoder, pair.f1));
      }
      Object decoded = CoderUtils.decodeFromByteArray(input.pairs().getKeyCoder(), key);
      collector.collect(
          output.encode(
              WindowedValue.of(
                  KV.of(decoded, values),
                  GlobalWindow.INSTANCE.maxTimestamp(),
                  GlobalWindow.INSTANCE,
                  PaneInfo.NO_FIRING)));
    }
  }
}
