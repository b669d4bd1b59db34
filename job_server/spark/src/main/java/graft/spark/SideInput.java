package graft.spark;

import graft.beam.Stage;
import java.io.Serializable;
import java.util.List;
import org.apache.beam.sdk.util.WindowedValue;

/** A PCollection as it is broadcast: decoded once in each executor. */
final class SideInput implements Serializable {
  private static final long serialVersionUID = 1L;

  private final List<byte[]> elements;
  private transient List<WindowedValue<Object>> decoded;

  SideInput(List<byte[]> elements) {
    this.elements = elements;
  }

  synchronized List<WindowedValue<Object>> decoded(Stage stage, String collection) {
    if (decoded == null) {
      decoded = stage.decoded(collection, elements);
    }
    return decoded;
  }
}
