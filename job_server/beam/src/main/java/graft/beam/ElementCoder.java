package graft.beam;

import java.io.IOException;
import java.io.Serializable;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.wire.WireCoders;
import org.apache.beam.sdk.coders.Coder;
import org.apache.beam.sdk.coders.KvCoder;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.beam.sdk.util.WindowedValue.FullWindowedValueCoder;
import org.apache.beam.sdk.util.construction.graph.PipelineNode;

/**
 * The bytes of a PCollection's elements, with window and time: what an engine moves between operations.
 *
 * <p>Coders that only the workers know are length-prefixed bytes here.
 */
final class ElementCoder implements Serializable {
  private static final long serialVersionUID = 1L;

  private final String collection;
  private final RunnerApi.Components components;
  private transient FullWindowedValueCoder<Object> coder;

  /**
   * @param collection id of the PCollection
   * @param components of the pipeline; what says nothing of elements is left behind
   */
  ElementCoder(String collection, RunnerApi.Components components) {
    this.collection = collection;
    this.components = components.toBuilder().clearTransforms().clearEnvironments().build();
  }

  byte[] encode(WindowedValue<?> element) throws IOException {
    @SuppressWarnings("unchecked")
    WindowedValue<Object> value = (WindowedValue<Object>) element;
    return CoderUtils.encodeToByteArray(coder(), value);
  }

  WindowedValue<Object> decode(byte[] element) throws IOException {
    return CoderUtils.decodeFromByteArray(coder(), element);
  }

  /** The coder of keys and values, where the elements are pairs. */
  @SuppressWarnings("unchecked")
  KvCoder<Object, Object> pairs() throws IOException {
    return (KvCoder<Object, Object>) (Coder<?>) coder().getValueCoder();
  }

  @SuppressWarnings("unchecked")
  private FullWindowedValueCoder<Object> coder() throws IOException {
    if (coder == null) {
      RunnerApi.PCollection described = components.getPcollectionsOrThrow(collection);
      coder =
          (FullWindowedValueCoder<Object>)
              (Coder<?>)
                  WireCoders.instantiateRunnerWireCoder(PipelineNode.pCollection(collection, described), components);
    }
    return coder;
  }
}
