package graft.beam;

import java.io.IOException;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.transforms.windowing.GlobalWindow;
import org.apache.beam.sdk.transforms.windowing.PaneInfo;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.beam.sdk.values.KV;

/** GroupByKey in the global window: equal are keys whose bytes are equal, as Beam has it. */
public final class Grouping implements Serializable {
  private static final long serialVersionUID = 1L;
  private static final String GLOBAL_WINDOWS = "beam:window_fn:global_windows:v1";

  private final ElementCoder input;
  private final ElementCoder output;

  Grouping(String input, String output, RunnerApi.PTransform transform, RunnerApi.Components components) {
    RunnerApi.WindowingStrategy windows =
        components.getWindowingStrategiesOrThrow(
            components.getPcollectionsOrThrow(input).getWindowingStrategyId());
    if (!windows.getWindowFn().getUrn().equals(GLOBAL_WINDOWS)) {
      throw new UnsupportedOperationException(
          String.format(
              "This job server groups in the global window only; %s has %s.",
              transform.getUniqueName(), windows.getWindowFn().getUrn()));
    }
    this.input = new ElementCoder(input, components);
    this.output = new ElementCoder(output, components);
  }

  /** A pair's bytes -> the bytes of its key and of its value. */
  public KV<byte[], byte[]> divided(byte[] element) throws IOException {
    KV<?, ?> pair = (KV<?, ?>) input.decode(element).getValue();
    return KV.of(
        CoderUtils.encodeToByteArray(input.pairs().getKeyCoder(), pair.getKey()),
        CoderUtils.encodeToByteArray(input.pairs().getValueCoder(), pair.getValue()));
  }

  /** All of one key -> the bytes of the key with the list of its values, which must fit into memory. */
  public byte[] together(byte[] key, Iterable<byte[]> values) throws IOException {
    Coder<Object> valueCoder = input.pairs().getValueCoder();
    List<Object> decoded = new ArrayList<>();
    for (byte[] value : values) {
      decoded.add(CoderUtils.decodeFromByteArray(valueCoder, value));
    }
    return output.encode(
        WindowedValue.of(
            KV.of(CoderUtils.decodeFromByteArray(input.pairs().getKeyCoder(), key), decoded),
            GlobalWindow.INSTANCE.maxTimestamp(),
            GlobalWindow.INSTANCE,
            PaneInfo.NO_FIRING));
  }
}
