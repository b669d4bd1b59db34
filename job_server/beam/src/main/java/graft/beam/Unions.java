package graft.beam;

import java.util.Map;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.sdk.util.construction.PTransformTranslation;

/**
 * Takes Flattens out of the hands of Beam's fuser (2.65.0).
 *
 * <p>It takes one into a stage, and leaves it to the runner as well where another input of it is read outside of the
 * stage, too: then an element is there twice, or the graph is no graph. Under a name that the fuser does not know it is
 * the runner's alone. What a worker did besides is still the workers' affair: to give elements the coder of the output,
 * each input has a Flatten of its own.
 */
final class Unions {
  /** Flatten by the runner: all inputs have the coder of the output. */
  static final String URN = "graft:transform:union:v1";

  private Unions() {}

  static RunnerApi.Pipeline instead(RunnerApi.Pipeline pipeline) {
    RunnerApi.Components.Builder components = pipeline.getComponents().toBuilder();
    pipeline
        .getComponents()
        .getTransformsMap()
        .forEach(
            (id, transform) -> {
              // One of a single PCollection never has another input.
              if (transform.getSpec().getUrn().equals(PTransformTranslation.FLATTEN_TRANSFORM_URN)
                  && transform.getInputsCount() > 1) {
                replace(id, transform, components);
              }
            });
    return pipeline.toBuilder().setComponents(components).build();
  }

  private static void replace(String id, RunnerApi.PTransform flatten, RunnerApi.Components.Builder components) {
    String coder = components.getPcollectionsOrThrow(flatten.getOutputsMap().values().iterator().next()).getCoderId();
    RunnerApi.PTransform.Builder union = flatten.toBuilder().clearEnvironmentId();
    union.getSpecBuilder().setUrn(URN);
    for (Map.Entry<String, String> input : flatten.getInputsMap().entrySet()) {
      RunnerApi.PCollection elements = components.getPcollectionsOrThrow(input.getValue());
      if (!elements.getCoderId().equals(coder)) {
        String place = id + "/" + input.getKey();
        components.putPcollections(place, elements.toBuilder().setUniqueName(place).setCoderId(coder).build());
        components.putTransforms(
            place,
            flatten.toBuilder()
                .clearInputs()
                .clearOutputs()
                .setUniqueName(flatten.getUniqueName() + "/" + input.getKey())
                .putInputs("in", input.getValue())
                .putOutputs("out", place)
                .setEnvironmentId(components.getEnvironmentsMap().keySet().iterator().next())
                .build());
        union.putInputs(input.getKey(), place);
      }
    }
    components.putTransforms(id, union.build());
  }
}
