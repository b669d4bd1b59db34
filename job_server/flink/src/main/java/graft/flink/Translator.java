package graft.flink;

import graft.beam.Grouping;
import graft.beam.Stage;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.sdk.values.KV;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.GroupReduceFunction;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.DataSet;
import org.apache.flink.api.java.ExecutionEnvironment;
import org.apache.flink.api.java.io.DiscardingOutputFormat;
import org.apache.flink.api.java.operators.MapPartitionOperator;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.util.Collector;

/** Makes a Flink program of a fused pipeline: a DataSet of encoded elements for each PCollection. */
final class Translator extends graft.beam.Translator<DataSet<byte[]>> {
  private static final TypeInformation<byte[]> BYTES = PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

  private final ExecutionEnvironment environment;

  Translator(ExecutionEnvironment environment, JobInfo job) {
    super(job);
    this.environment = environment;
  }

  @Override
  protected DataSet<byte[]> impulse(byte[] element, String name) {
    return environment.fromCollection(List.of(element), BYTES).name(name);
  }

  @Override
  protected DataSet<byte[]> union(List<DataSet<byte[]>> parts) {
    return parts.stream().reduce(DataSet::union).orElseGet(this::nothing);
  }

  private DataSet<byte[]> nothing() {
    return environment.fromCollection(List.of(new byte[0]), BYTES).filter(element -> false).name("Nothing");
  }

  @Override
  protected DataSet<byte[]> dealtOut(DataSet<byte[]> elements) {
    return elements.rebalance();
  }

  @Override
  protected DataSet<byte[]> grouped(DataSet<byte[]> pairs, Grouping grouping, String name) {
    return pairs
        .map(new Divide(grouping))
        .name(name + ": keys")
        .groupBy(0)
        .reduceGroup(new Collect(grouping))
        .name(name);
  }

  @Override
  protected Map<String, DataSet<byte[]>> stage(
      Stage stage, DataSet<byte[]> elements, Map<String, DataSet<byte[]>> sideInputs) {
    // Parts of files come in the order of the files; dealt out, every slot reads some.
    MapPartitionOperator<byte[], Tuple2<Integer, byte[]>> results =
        (stage.readsParts() ? elements.rebalance() : elements)
            .mapPartition(new StageFunction(stage))
            .returns(Types.TUPLE(Types.INT, BYTES))
            .name(stage.name());
    sideInputs.forEach((collection, all) -> results.withBroadcastSet(all, collection));
    Map<String, DataSet<byte[]>> outputs = new HashMap<>();
    stage
        .numbers()
        .forEach(
            (collection, number) ->
                outputs.put(collection, results.flatMap(new Only(number)).returns(BYTES).name(collection)));
    if (outputs.isEmpty()) {
      results.output(new DiscardingOutputFormat<>());
    }
    return outputs;
  }

  @Override
  protected void end(DataSet<byte[]> elements) {
    // Flink runs what leads to an end.
    elements.output(new DiscardingOutputFormat<>());
  }

  private static final class Divide implements MapFunction<byte[], Tuple2<byte[], byte[]>> {
    private static final long serialVersionUID = 1L;
    private final Grouping grouping;

    Divide(Grouping grouping) {
      this.grouping = grouping;
    }

    @Override
    public Tuple2<byte[], byte[]> map(byte[] element) throws IOException {
      KV<byte[], byte[]> pair = grouping.divided(element);
      return Tuple2.of(pair.getKey(), pair.getValue());
    }
  }

  private static final class Collect implements GroupReduceFunction<Tuple2<byte[], byte[]>, byte[]> {
    private static final long serialVersionUID = 1L;
    private final Grouping grouping;

    Collect(Grouping grouping) {
      this.grouping = grouping;
    }

    @Override
    public void reduce(Iterable<Tuple2<byte[], byte[]>> pairs, Collector<byte[]> collector) throws IOException {
      byte[] key = null;
      List<byte[]> values = new ArrayList<>();
      for (Tuple2<byte[], byte[]> pair : pairs) {
        key = pair.f0;
        values.add(pair.f1);
      }
      collector.collect(grouping.together(key, values));
    }
  }

  /** The elements of one of a stage's outputs. */
  private static final class Only implements FlatMapFunction<Tuple2<Integer, byte[]>, byte[]> {
    private static final long serialVersionUID = 1L;
    private final int number;

    Only(int number) {
      this.number = number;
    }

    @Override
    public void flatMap(Tuple2<Integer, byte[]> element, Collector<byte[]> collector) {
      if (element.f0 == number) {
        collector.collect(element.f1);
      }
    }
  }
}
