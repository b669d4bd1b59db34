package graft.spark;

import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;

/** A Spark cluster, on which this process is one application; its executors get this job server's classes from it. */
final class Cluster {
  private static final long PATIENCE = TimeUnit.SECONDS.toNanos(30);

  private final String master;
  private JavaSparkContext context;

  Cluster(String master) {
    this.master = master;
  }

  /** The application's context, with executors. */
  synchronized JavaSparkContext context() throws IOException, InterruptedException {
    if (context == null || context.sc().isStopped()) {
      context = new JavaSparkContext(configuration());
    }
    long until = System.nanoTime() + PATIENCE;
    // The driver counts itself.
    while (context.sc().getExecutorMemoryStatus().size() < 2) {
      if (System.nanoTime() > until) {
        throw new IOException(
            "Spark at " + master + " gives no executor: see on its page whether it has a worker with free cores and "
                + "memory. If it was started again, start this job server again, too.");
      }
      TimeUnit.MILLISECONDS.sleep(50);
    }
    return context;
  }

  private SparkConf configuration() throws IOException {
    return new SparkConf()
        .setMaster(master)
        .setAppName("graft")
        .setJars(classes())
        .setIfMissing("spark.scheduler.mode", "FAIR")
        // What is done twice at the same time writes the same files twice.
        .set("spark.speculation", "false");
  }

  /** The libraries that lie beside this class's. */
  private static String[] classes() throws IOException {
    Path own;
    try {
      own = Path.of(Cluster.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    } catch (URISyntaxException error) {
      throw new IOException(error);
    }
    try (Stream<Path> files = Files.list(own.getParent())) {
      return files.map(Path::toString).filter(file -> file.endsWith(".jar")).toArray(String[]::new);
    }
  }
}
