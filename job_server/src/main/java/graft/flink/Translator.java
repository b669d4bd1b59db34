package graft.flink;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.beam.sdk.util.construction.NativeTransforms;
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.graph.ExecutableStage;
import org.apache.beam.sdk.util.construction.graph.PipelineNode.PCollectionNode;
import org.apache.beam.sdk.util.construction.graph.PipelineNode.PTransformNode;
import org.apache.beam.sdk.util.construction.graph.QueryablePipeline;
import org.apache.beam.sdk.util.construction.graph.SideInputReference;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.DataSet;
import org.apache.flink.api.java.ExecutionEnvironment;
import org.apache.flink.api.java.io.DiscardingOutputFormat;
import org.apache.flink.api.java.operators.DataSource;
import org.apache.flink.api.java.operators.MapPartitionOperator;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.util.Collector;

/** Makes a Flink program of a fused pipeline: a DataSet of encoded elements for each PCollection. */
public final class Translator {
  /** What Flink does itself; everything else happens in Beam's workers. */
  static final Set<String> OF_FLINK =
      Set.of(
          PTransformTranslation.IMPULSE_TRANSFORM_URN,
          PTransformTranslation.FLATTEN_TRANSFORM_URN,
          PTransformTranslation.GROUP_BY_KEY_TRANSFORM_URN,
          PTransformTranslation.RESHUFFLE_URN);

  private static final String GLOBAL_WINDOWS = "beam:window_fn:global_windows:v1";

  private final ExecutionEnvironment environment;
  private final JobInfo job;
  private final Map<String, DataSet<byte[]>> dataSets = new HashMap<>();
  private final Set<String> consumed = new HashSet<>();

  Translator(ExecutionEnvironment environment, JobInfo job) {
    this.environment = environment;
    this.job = job;
  }

  /** Adds the whole pipeline to the environment. */
  void translate(RunnerApi.Pipeline pipeline) throws Exception {
    RunnerApi.Components components = pipeline.getComponents();
    QueryablePipeline graph = QueryablePipeline.forTransforms(pipeline.getRootTransformIdsList(), components);
    for (PTransformNode node : graph.getTopologicallyOrderedTransforms()) {
      translate(node.getTransform(), components);
    }
    // Flink runs what leads to an end.
    dataSets.forEach(
        (id, dataSet) -> {
          if (!consumed.contains(id)) {
            dataSet.output(new DiscardingOutputFormat<>());
          }
        });
  }

  private void translate(RunnerApi.PTransform transform, RunnerApi.Components components) throws Exception {
    String urn = transform.getSpec().getUrn();
    String name = transform.getUniqueName();
    if (urn.equals(ExecutableStage.URN)) {
      stage(transform, components);
    } else if (urn.equals(PTransformTranslation.IMPULSE_TRANSFORM_URN)) {
      put(transform, impulse(only(transform.getOutputsMap()), components).name(name));
    } else if (urn.equals(Unions.URN)) {
      put(transform, flatten(transform));
    } else if (urn.equals(PTransformTranslation.RESHUFFLE_URN)) {
      put(transform, take(only(transform.getInputsMap())).rebalance());
    } else if (urn.equals(PTransformTranslation.GROUP_BY_KEY_TRANSFORM_URN)) {
      put(transform, group(transform, components));
    } else {
      throw new UnsupportedOperationException("This job server does not know " + urn + ", which is " + name + ".");
    }
  }

  /** One empty element, from which every pipeline starts. */
  private DataSource<byte[]> impulse(
      String collection, RunnerApi.Components components) throws Exception {
    byte[] element =
        new ElementCoder(collection, components).encode(WindowedValue.valueInGlobalWindow(new byte[0]));
    return environment.fromCollection(List.of(element), PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
  }

  private DataSet<byte[]> flatten(RunnerApi.PTransform transform) {
    DataSet<byte[]> all = null;
    for (String collection : transform.getInputsMap().values()) {
      DataSet<byte[]> next = take(collection);
      all = all == null ? next : all.union(next);
    }
    return all != null ? all : nothing();
  }

  private DataSet<byte[]> nothing() {
    return environment
        .fromCollection(List.of(new byte[0]), PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
        .filter(element -> false)
        .name("Nothing");
  }

  private DataSet<byte[]> group(RunnerApi.PTransform transform, RunnerApi.Components components) {
    String input = only(transform.getInputsMap());
    RunnerApi.WindowingStrategy windows =
        components.getWindowingStrategiesOrThrow(
            components.getPcollectionsOrThrow(input).getWindowingStrategyId());
    if (!windows.getWindowFn().getUrn().equals(GLOBAL_WINDOWS)) {
      throw new UnsupportedOperationException(
          String.format(
              "This job server groups in the global window only; %s has %s.",
              transform.getUniqueName(), windows.getWindowFn().getUrn()));
    }
    return Grouping.grouped(
        take(input),
        new ElementCoder(input, components),
        new ElementCoder(only(transform.getOutputsMap()), components),
        transform.getUniqueName());
  }

  private void stage(RunnerApi.PTransform transform, RunnerApi.Components components) throws Exception {
    RunnerApi.ExecutableStagePayload payload =
        RunnerApi.ExecutableStagePayload.parseFrom(transform.getSpec().getPayload());
    ExecutableStage stage = ExecutableStage.fromPayload(payload);
    if (!stage.getUserStates().isEmpty() || !stage.getTimers().isEmpty()) {
      throw new UnsupportedOperationException(
          "This job server knows no state and no timers; " + name(stage) + " has some.");
    }
    Map<String, Integer> numbers = new HashMap<>();
    Map<Integer, ElementCoder> outputs = new HashMap<>();
    for (PCollectionNode output : stage.getOutputPCollections()) {
      outputs.put(numbers.size(), new ElementCoder(output.getId(), components));
      numbers.put(output.getId(), numbers.size());
    }
    Map<String, ElementCoder> sideInputs = new HashMap<>();
    for (SideInputReference sideInput : stage.getSideInputs()) {
      sideInputs.put(sideInput.collection().getId(), new ElementCoder(sideInput.collection().getId(), components));
    }
    String input = stage.getInputPCollection().getId();
    DataSet<byte[]> elements = take(input);
    // Parts of files come in the order of the files; dealt out, every slot reads some.
    MapPartitionOperator<byte[], Tuple2<Integer, byte[]>> results =
        (readsParts(stage) ? elements.rebalance() : elements)
            .mapPartition(
                new StageFunction(job, payload, new ElementCoder(input, components), numbers, outputs, sideInputs))
            .returns(Types.TUPLE(Types.INT, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO))
            .name(name(stage));
    for (String collection : sideInputs.keySet()) {
      results.withBroadcastSet(take(collection), collection);
    }
    numbers.forEach(
        (collection, number) ->
            dataSets.put(
                collection,
                results
                    .flatMap(new Only(number))
                    .returns(PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
                    .name(collection)));
    if (numbers.isEmpty()) {
      results.output(new DiscardingOutputFormat<>());
    }
  }

  private static boolean readsParts(ExecutableStage stage) {
    String input = stage.getInputPCollection().getId();
    return stage.getTransforms().stream()
        .map(PTransformNode::getTransform)
        .anyMatch(
            transform ->
                transform.getInputsMap().containsValue(input)
                    && transform
                        .getSpec()
                        .getUrn()
                        .equals(PTransformTranslation.SPLITTABLE_PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS_URN));
  }

  /** The names of the transforms of a stage, as Flink's page shows them. */
  private static String name(ExecutableStage stage) {
    List<String> names = new ArrayList<>();
    for (PTransformNode node : stage.getTransforms()) {
      names.add(node.getTransform().getUniqueName());
    }
    return String.join(", ", names);
  }

  private void put(RunnerApi.PTransform transform, DataSet<byte[]> dataSet) {
    dataSets.put(only(transform.getOutputsMap()), dataSet);
  }

  private DataSet<byte[]> take(String collection) {
    consumed.add(collection);
    return dataSets.get(collection);
  }

  private static String only(Map<String, String> collections) {
    if (collections.size() != 1) {
      throw new IllegalArgumentException("one PCollection expected, there are " + collections.keySet());
    }
    return collections.values().iterator().next();
  }

  /** Tells Beam, which finds it as a service, of the composite transforms that Flink does itself. */
  public static final class Native implements NativeTransforms.IsNativeTransform {
    @Override
    public boolean test(RunnerApi.PTransform transform) {
      String urn = transform.getSpec().getUrn();
      return urn.equals(PTransformTranslation.RESHUFFLE_URN) || urn.equals(Unions.URN);
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
