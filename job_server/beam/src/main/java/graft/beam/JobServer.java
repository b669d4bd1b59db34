package graft.beam;

import java.util.UUID;
import org.apache.beam.model.pipeline.v1.RunnerApi;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.jobsubmission.JobInvocation;
import org.apache.beam.runners.jobsubmission.JobInvoker;
import org.apache.beam.runners.jobsubmission.JobServerDriver;
import org.apache.beam.runners.jobsubmission.PortablePipelineRunner;
import org.apache.beam.sdk.io.FileSystems;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;
import org.apache.beam.vendor.guava.v32_1_2_jre.com.google.common.util.concurrent.ListeningExecutorService;
import org.kohsuke.args4j.CmdLineException;
import org.kohsuke.args4j.CmdLineParser;

/** Takes batch pipelines by Beam's Job API and has an engine run them. */
public final class JobServer extends JobServerDriver {

  private JobServer(ServerConfiguration options, PortablePipelineRunner runner) {
    super(
        options, createJobServerFactory(options), createArtifactServerFactory(options), () -> new Invoker(runner));
  }

  /**
   * Fills in the options of a command, and ends it with a word about them where they are wrong.
   *
   * @param options Beam's (`--job-port`, `--artifact-port`, `--artifacts-dir`), and those of the engine
   */
  public static <T extends ServerConfiguration> T parsed(T options, String[] arguments) {
    CmdLineParser parser = new CmdLineParser(options);
    try {
      parser.parseArgument(arguments);
    } catch (CmdLineException error) {
      System.err.println(error.getMessage());
      parser.printUsage(System.err);
      System.exit(2);
    }
    return options;
  }

  /** Serves until the process is ended. */
  public static void serve(ServerConfiguration options, PortablePipelineRunner runner) {
    FileSystems.setDefaultPipelineOptions(PipelineOptionsFactory.create());
    new JobServer(options, runner).run();
  }

  private static final class Invoker extends JobInvoker {
    private final PortablePipelineRunner runner;

    Invoker(PortablePipelineRunner runner) {
      super("job-%d");
      this.runner = runner;
    }

    @Override
    protected JobInvocation invokeWithExecutor(
        RunnerApi.Pipeline pipeline, Struct options, String retrievalToken, ListeningExecutorService executor) {
      String name = JobOptions.of(options).name();
      JobInfo job = JobInfo.create(name + "-" + UUID.randomUUID(), name, retrievalToken, options);
      return new JobInvocation(job, executor, pipeline, runner);
    }
  }
}
