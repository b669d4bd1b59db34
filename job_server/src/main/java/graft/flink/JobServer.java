package graft.flink;

import java.util.UUID;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.jobsubmission.JobInvocation;
import org.apache.beam.runners.jobsubmission.JobInvoker;
import org.apache.beam.runners.jobsubmission.JobServerDriver;
import org.apache.beam.sdk.io.FileSystems;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;
import org.apache.beam.vendor.guava.v32_1_2_jre.com.google.common.util.concurrent.ListeningExecutorService;
import org.kohsuke.args4j.CmdLineException;
import org.kohsuke.args4j.CmdLineParser;
import org.kohsuke.args4j.Option;

/** The command: takes batch pipelines by Beam's Job API and has a Flink cluster run them. */
public final class JobServer extends JobServerDriver {

  /** Options of the command, besides Beam's own (`--job-port`, `--artifact-port`, `--artifacts-dir`). */
  public static final class Options extends ServerConfiguration {
    @Option(name = "--flink-master", required = true, usage = "REST address of Flink's job manager, http://HOST:PORT")
    private String master;
  }

  private JobServer(Options options) {
    super(
        options,
        createJobServerFactory(options),
        createArtifactServerFactory(options),
        () -> new Invoker(new Cluster(options.master)));
  }

  public static void main(String[] arguments) {
    Options options = new Options();
    CmdLineParser parser = new CmdLineParser(options);
    try {
      parser.parseArgument(arguments);
    } catch (CmdLineException error) {
      System.err.println(error.getMessage());
      parser.printUsage(System.err);
      System.exit(2);
    }
    FileSystems.setDefaultPipelineOptions(PipelineOptionsFactory.create());
    new JobServer(options).run();
  }

  private static final class Invoker extends JobInvoker {
    private final Cluster cluster;

    Invoker(Cluster cluster) {
      super("flink-job-%d");
      this.cluster = cluster;
    }

    @Override
    protected JobInvocation invokeWithExecutor(
        RunnerApi.Pipeline pipeline, Struct options, String retrievalToken, ListeningExecutorService executor) {
      String name = JobOptions.of(options).name();
      JobInfo job = JobInfo.create(name + "-" + UUID.randomUUID(), name, retrievalToken, options);
      return new JobInvocation(job, executor, pipeline, new BatchRunner(cluster));
    }
  }
}
