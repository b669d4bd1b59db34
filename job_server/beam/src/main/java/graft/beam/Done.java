package graft.beam;

import org.apache.beam.model.jobmanagement.v1.JobApi;
import org.apache.beam.runners.jobsubmission.PortablePipelineResult;
import org.apache.beam.sdk.metrics.MetricResults;
import org.joda.time.Duration;

/** The result of a job that has ended well: a runner here returns nothing before. */
public final class Done implements PortablePipelineResult {
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
