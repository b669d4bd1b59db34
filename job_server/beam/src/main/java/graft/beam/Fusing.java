package graft.beam;

import java.util.Set;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.translation.PipelineTranslatorUtils;
import org.apache.beam.sdk.util.construction.NativeTransforms;
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.graph.GreedyPipelineFuser;
import org.apache.beam.sdk.util.construction.graph.ProtoOverrides;
import org.apache.beam.sdk.util.construction.graph.SplittableParDoExpander;
import org.apache.beam.sdk.util.construction.graph.TrivialNativeTransformExpander;

/** Makes stages of a pipeline's transforms. */
public final class Fusing {
  /** What the engine does itself; everything else happens in Beam's workers. */
  private static final Set<String> OF_THE_ENGINE =
      Set.of(
          PTransformTranslation.IMPULSE_TRANSFORM_URN,
          PTransformTranslation.FLATTEN_TRANSFORM_URN,
          PTransformTranslation.GROUP_BY_KEY_TRANSFORM_URN,
          PTransformTranslation.RESHUFFLE_URN);

  private Fusing() {}

  /**
   * The pipeline as stages that run in Beam's workers, and between them what the engine does itself.
   *
   * @throws UnsupportedOperationException it is a streaming pipeline
   */
  public static RunnerApi.Pipeline fused(RunnerApi.Pipeline pipeline) {
    if (PipelineTranslatorUtils.hasUnboundedPCollections(pipeline)) {
      throw new UnsupportedOperationException("This job server runs batch pipelines; the pipeline is a streaming one.");
    }
    RunnerApi.Pipeline splittable =
        ProtoOverrides.updateTransform(
            PTransformTranslation.PAR_DO_TRANSFORM_URN, pipeline, SplittableParDoExpander.createSizedReplacement());
    RunnerApi.Pipeline trimmed = TrivialNativeTransformExpander.forKnownUrns(splittable, OF_THE_ENGINE);
    return GreedyPipelineFuser.fuse(Unions.instead(trimmed)).toPipeline();
  }

  /** Tells Beam, which finds it as a service, of the composite transforms that the engine does itself. */
  public static final class Native implements NativeTransforms.IsNativeTransform {
    @Override
    public boolean test(RunnerApi.PTransform transform) {
      String urn = transform.getSpec().getUrn();
      return urn.equals(PTransformTranslation.RESHUFFLE_URN) || urn.equals(Unions.URN);
    }
  }
}
