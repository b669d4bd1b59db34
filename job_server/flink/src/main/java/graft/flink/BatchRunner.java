package graft.flink;

import graft.beam.Done;
import graft.beam.Fusing;
import graft.beam.JobOptions;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.jobsubmission.PortablePipelineResult;
import org.apache.beam.runners.jobsubmission.PortablePipelineRunner;
import org.apache.flink.api.java.ExecutionEnvironment;
import org.apache.flink.client.ClientUtils;
import org.apache.flink.core.execution.JobClient;
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
    int parallelism = JobOptions.of(job.pipelineOptions()).parallelism(cluster.slots());
    ExecutionEnvironment environment = cluster.environment(parallelism);
    new Translator(environment, job).translate(Fusing.fused(pipeline));
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
}
