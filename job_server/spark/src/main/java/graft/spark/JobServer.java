package graft.spark;

import org.apache.beam.runners.jobsubmission.JobServerDriver.ServerConfiguration;
import org.kohsuke.args4j.Option;

/** The command: a job server whose engine is a Spark cluster. Java's `-Dspark.KEY=VALUE` configures Spark. */
public final class JobServer {

  /** Options of the command, besides Beam's own (`--job-port`, `--artifact-port`, `--artifacts-dir`). */
  public static final class Options extends ServerConfiguration {
    @Option(name = "--spark-master", required = true, usage = "address of Spark's master, spark://HOST:PORT")
    private String master;
  }

  private JobServer() {}

  public static void main(String[] arguments) throws Exception {
    Options options = graft.beam.JobServer.parsed(new Options(), arguments);
    Cluster cluster = new Cluster(options.master);
    // Executors are there before the first job asks how many cores there are.
    cluster.context();
    graft.beam.JobServer.serve(options, new BatchRunner(cluster));
  }
}
