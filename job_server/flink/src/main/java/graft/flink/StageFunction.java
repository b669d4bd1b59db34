package graft.flink;

import graft.beam.Stage;
import java.util.List;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.flink.api.common.functions.BroadcastVariableInitializer;
import org.apache.flink.api.common.functions.RichMapPartitionFunction;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.util.Collector;

/** Runs a stage in a Beam worker: each element that comes out has the number of its PCollection. */
final class StageFunction extends RichMapPartitionFunction<byte[], Tuple2<Integer, byte[]>> {
  private static final long serialVersionUID = 1L;

  private final Stage stage;
  private transient Stage.Opened opened;

  StageFunction(Stage stage) {
    this.stage = stage;
  }

  @Override
  public void open(Configuration configuration) throws Exception {
    opened =
        stage.open(
            collection ->
                getRuntimeContext()
                    .getBroadcastVariableWithInitializer(collection, new Decode(stage, collection)));
  }

  @Override
  public void mapPartition(Iterable<byte[]> elements, Collector<Tuple2<Integer, byte[]>> collector) throws Exception {
    opened.run(elements.iterator(), (number, element) -> collector.collect(Tuple2.of(number, element)));
  }

  @Override
  public void close() throws Exception {
    try (AutoCloseable last = opened) {
      opened = null;
    }
  }

  /** Makes a broadcast PCollection a list of its elements, once for each task manager. */
  private static final class Decode implements BroadcastVariableInitializer<byte[], List<WindowedValue<Object>>> {
    private final Stage stage;
    private final String collection;

    Decode(Stage stage, String collection) {
      this.stage = stage;
      this.collection = collection;
    }

    @Override
    public List<WindowedValue<Object>> initializeBroadcastVariable(Iterable<byte[]> elements) {
      return stage.decoded(collection, elements);
    }
  }
}
