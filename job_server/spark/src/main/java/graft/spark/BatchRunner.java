package graft.spark;

import graft.beam.Done;
import graft.beam.Fusing;
import graft.beam.JobOptions;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.jobsubmission.PortablePipelineResult;
import org.apache.beam.runners.jobsubmission.PortablePipelineRunner;
import org.apache.spark.SparkException;
import org.apache.spark.api.java.JavaSparkContext;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Runs one pipeline: fuses it into stages, and has Spark run them one after the other. */
final class BatchRunner implements PortablePipelineRunner {
  private static final Logger LOG = LoggerFactory.getLogger(BatchRunner.class);
  // Between two stages of a job an executor may have nothing to do: its Beam workers wait for so long.
  private static final int WORKERS_WAIT_MILLIS = 5_000;

  private final Cluster cluster;

  BatchRunner(Cluster cluster) {
    this.cluster = cluster;
  }

  @Override
  public PortablePipelineResult run(RunnerApi.Pipeline pipeline, JobInfo given) throws Exception {
    JobInfo job =
        JobInfo.create(
            given.jobId(),
            given.jobName(),
            given.retrievalToken(),
            JobOptions.of(given.pipelineOptions()).with("environment_cache_millis", WORKERS_WAIT_MILLIS));
    RunnerApi.Pipeline fused = Fusing.fused(pipeline);
    JavaSparkContext context = cluster.context();
    int parallelism = JobOptions.of(job.pipelineOptions()).parallelism(context.defaultParallelism());
    LOG.info("{} is a job group of Spark's, parallelism {}", job.jobId(), parallelism);
    context.setJobGroup(job.jobId(), job.jobName(), true);
    // A small job does not wait for the end of a large one: between pools cores are shared.
    context.setLocalProperty("spark.scheduler.pool", job.jobId());
    try (Translator translator = new Translator(context, job, parallelism)) {
      translator.translate(fused);
    } catch (InterruptedException error) {
      // Who asked for it wants it no more.
      context.cancelJobGroup(job.jobId());
      throw error;
    } catch (SparkException error) {
      // What Spark says then is of its own insides.
      if (error.getMessage().contains("Checkpoint block")) {
        LOG.error("{} cannot go on", job.jobId(), error);
        throw new IllegalStateException(
            "What an executor had on its disk is lost, and is not computed a second time; the job has to be done anew.");
      }
      throw error;
    } finally {
      context.clearJobGroup();
      context.setLocalProperty("spark.scheduler.pool", null);
    }
    return new Done();
  }
}
