package graft.beam;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.graph.ExecutableStage;
import org.apache.beam.sdk.util.construction.graph.PipelineNode.PTransformNode;
import org.apache.beam.sdk.util.construction.graph.QueryablePipeline;

/**
 * Makes an engine's program of a fused pipeline: a collection of encoded elements for each PCollection.
 *
 * @param <C> what the engine has for a collection of bytes
 */
public abstract class Translator<C> {
  private final JobInfo job;
  private final Map<String, C> collections = new HashMap<>();
  private final Set<String> consumed = new HashSet<>();

  protected Translator(JobInfo job) {
    this.job = job;
  }

  /** A collection of one element, from which every pipeline starts. */
  protected abstract C impulse(byte[] element, String name) throws Exception;

  /** All elements of several collections; of none, too. */
  protected abstract C union(List<C> collections) throws Exception;

  /** The same elements, divided among all parts. */
  protected abstract C dealtOut(C elements) throws Exception;

  /** Each key with all of its values. */
  protected abstract C grouped(C pairs, Grouping grouping, String name) throws Exception;

  /** What comes out of a stage, by the ids of its outputs. */
  protected abstract Map<String, C> stage(Stage stage, C elements, Map<String, C> sideInputs) throws Exception;

  /** Told of each collection that nothing reads. */
  protected abstract void end(C elements) throws Exception;

  /** Translates the whole pipeline. */
  public final void translate(RunnerApi.Pipeline pipeline) throws Exception {
    RunnerApi.Components components = pipeline.getComponents();
    QueryablePipeline graph = QueryablePipeline.forTransforms(pipeline.getRootTransformIdsList(), components);
    for (PTransformNode node : graph.getTopologicallyOrderedTransforms()) {
      translate(node.getTransform(), components);
    }
    for (Map.Entry<String, C> collection : collections.entrySet()) {
      if (!consumed.contains(collection.getKey())) {
        end(collection.getValue());
      }
    }
  }

  private void translate(RunnerApi.PTransform transform, RunnerApi.Components components) throws Exception {
    String urn = transform.getSpec().getUrn();
    String name = transform.getUniqueName();
    if (urn.equals(ExecutableStage.URN)) {
      stage(new Stage(job, transform, components));
    } else if (urn.equals(PTransformTranslation.IMPULSE_TRANSFORM_URN)) {
      ElementCoder coder = new ElementCoder(only(transform.getOutputsMap()), components);
      put(transform, impulse(coder.encode(WindowedValue.valueInGlobalWindow(new byte[0])), name));
    } else if (urn.equals(Unions.URN)) {
      List<C> parts = new ArrayList<>();
      transform.getInputsMap().values().forEach(collection -> parts.add(take(collection)));
      put(transform, union(parts));
    } else if (urn.equals(PTransformTranslation.RESHUFFLE_URN)) {
      put(transform, dealtOut(take(only(transform.getInputsMap()))));
    } else if (urn.equals(PTransformTranslation.GROUP_BY_KEY_TRANSFORM_URN)) {
      String input = only(transform.getInputsMap());
      Grouping grouping = new Grouping(input, only(transform.getOutputsMap()), transform, components);
      put(transform, grouped(take(input), grouping, name));
    } else {
      throw new UnsupportedOperationException("This job server does not know " + urn + ", which is " + name + ".");
    }
  }

  private void stage(Stage stage) throws Exception {
    Map<String, C> sideInputs = new HashMap<>();
    for (String collection : stage.sideInputs()) {
      sideInputs.put(collection, take(collection));
    }
    collections.putAll(stage(stage, take(stage.input()), sideInputs));
  }

  private void put(RunnerApi.PTransform transform, C collection) {
    collections.put(only(transform.getOutputsMap()), collection);
  }

  private C take(String collection) {
    consumed.add(collection);
    return collections.get(collection);
  }

  private static String only(Map<String, String> collections) {
    if (collections.size() != 1) {
      throw new IllegalArgumentException("one PCollection expected, there are " + collections.keySet());
    }
    return collections.values().iterator().next();
  }
}
