package graft.flink;

import org.apache.beam.runners.jobsubmission.JobServerDriver.ServerConfiguration;
import org.kohsuke.args4j.Option;

/** The command: a job server whose engine is a Flink cluster. */
public final class JobServer {

  /** Options of the command, besides Beam's own (`--job-port`, `--artifact-port`, `--artifacts-dir`). */
  public static final class Options extends ServerConfiguration {
    @Option(name = "--flink-master", required = true, usage = "REST address of Flink's job manager, http://HOST:PORT")
    private String master;
  }

  private JobServer() {}

  public static void main(String[] arguments) {
    Options options = graft.beam.JobServer.parsed(new Options(), arguments);
    graft.beam.JobServer.serve(options, new BatchRunner(new Cluster(options.master)));
  }
}
