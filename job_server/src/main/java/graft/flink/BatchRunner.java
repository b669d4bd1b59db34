package graft.flink;

import java.util.concurrent.ExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import org.apache.beam.model.jobmanagement.v1.JobApi;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.fnexecution.translation.PipelineTranslatorUtils;
import org.apache.beam.runners.jobsubmission.PortablePipelineResult;
import org.apache.beam.runners.jobsubmission.PortablePipelineRunner;
import org.apache.beam.sdk.metrics.MetricResults;
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.graph.GreedyPipelineFuser;
import org.apache.beam.sdk.util.construction.graph.ProtoOverrides;
import org.apache.beam.sdk.util.construction.graph.SplittableParDoExpander;
import org.apache.beam.sdk.util.construction.graph.TrivialNativeTransformExpander;
import org.apache.flink.api.java.ExecutionEnvironment;
import org.apache.flink.client.ClientUtils;
import org.apache.flink.core.execution.JobClient;
import org.joda.time.Duration;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Runs one pipeline: fuses it into stages, translates those into a Flink program, and waits for its end. */
final class BatchRunner implements PortablePipelineRunner {
  private static final Logger LOG = LoggerFactory.getLogger(BatchRunner.class);

  private final Cluster cluster;

  BatchRunner(Cluster cluster) {
    this.cluster = cluster;
  }

  @Override
  public PortablePipelineResult run(RunnerApi.Pipeline pipeline, JobInfo job) throws Exception {
    if (PipelineTranslatorUtils.hasUnboundedPCollections(pipeline)) {
      throw new UnsupportedOperationException("This job server runs batch pipelines; the pipeline is a streaming one.");
    }
    int parallelism = JobOptions.of(job.pipelineOptions()).parallelism(cluster.slots());
    ExecutionEnvironment environment = cluster.environment(parallelism);
    new Translator(environment, job).translate(fused(pipeline));
    JobClient running = environment.executeAsync(job.jobName());
    LOG.info("{} is Flink's job {}, parallelism {}", job.jobId(), running.getJobID(), parallelism);
    ScheduledExecutorService heartbeats =
        ClientUtils.reportHeartbeatPeriodically(
            running, Cluster.HEARTBEAT_INTERVAL.toMillis(), Cluster.HEARTBEAT_TIMEOUT.toMillis());
    try {
      running.getJobExecutionResult().get();
    } catch (InterruptedException error) {
      // Who asked for it wants it no more.
      running.cancel().get();
      throw error;
    } catch (ExecutionException error) {
      throw error.getCause() instanceof Exception ? (Exception) error.getCause() : error;
    } finally {
      heartbeats.shutdownNow();
    }
    return new Done();
  }

  /** The pipeline as stages that run in Beam's workers, and between them what Flink does itself. */
  static RunnerApi.Pipeline fused(RunnerApi.Pipeline pipeline) {
    RunnerApi.Pipeline splittable =
        ProtoOverrides.updateTransform(
            PTransformTranslation.PAR_DO_TRANSFORM_URN, pipeline, SplittableParDoExpander.createSizedReplacement());
    RunnerApi.Pipeline trimmed = TrivialNativeTransformExpander.forKnownUrns(splittable, Translator.OF_FLINK);
    return GreedyPipelineFuser.fuse(Unions.instead(trimmed)).toPipeline();
  }

  /** Nothing is returned before the end. */
  private static final class Done implements PortablePipelineResult {
    @Override
    public State getState() {
      return State.DONE;
    }

    @Override
    public State cancel() {
      return State.DONE;
    }

    @Override
    public State waitUntilFinish(Duration duration) {
      return State.DONE;
    }

    @Override
    public State waitUntilFinish() {
      return State.DONE;
    }

    @Override
    public MetricResults metrics() {
      throw new UnsupportedOperationException("This job server keeps no metrics.");
    }

    @Override
    public JobApi.MetricResults portableMetrics() {
      return JobApi.MetricResults.getDefaultInstance();
    }
  }
}
