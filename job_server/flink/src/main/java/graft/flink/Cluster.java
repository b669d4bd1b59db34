package graft.flink;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.api.common.ExecutionMode;
import org.apache.flink.api.java.ExecutionEnvironment;
import org.apache.flink.client.cli.ClientOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.DeploymentOptions;

/** A Flink cluster with this job server on its class path, known by the REST address of its job manager. */
final class Cluster {
  private static final Pattern SLOTS = Pattern.compile("\"slots-total\"\\s*:\\s*(\\d+)");
  private static final Duration PATIENCE = Duration.ofSeconds(10);
  static final Duration HEARTBEAT_INTERVAL = Duration.ofSeconds(10);
  static final Duration HEARTBEAT_TIMEOUT = Duration.ofSeconds(60);

  private final URI master;
  private final HttpClient client = HttpClient.newBuilder().connectTimeout(PATIENCE).build();

  Cluster(String master) {
    this.master = URI.create(master.contains("://") ? master : "http://" + master);
  }

  /** How many slots the task managers have together. */
  int slots() throws IOException, InterruptedException {
    HttpRequest request = HttpRequest.newBuilder(master.resolve("/overview")).timeout(PATIENCE).build();
    String overview;
    try {
      overview = client.send(request, HttpResponse.BodyHandlers.ofString()).body();
    } catch (IOException error) {
      throw new IOException("Flink's job manager does not answer at " + master + " (" + error + ").", error);
    }
    Matcher matcher = SLOTS.matcher(overview);
    if (!matcher.find()) {
      throw new IOException("What answers at " + master + " is not Flink's job manager.");
    }
    int slots = Integer.parseInt(matcher.group(1));
    if (slots == 0) {
      throw new IOException("The Flink cluster at " + master + " has no slot: start a task manager.");
    }
    return slots;
  }

  /**
   * An environment whose programs run on the cluster.
   *
   * @param parallelism parts that the work of an operation is divided into
   */
  ExecutionEnvironment environment(int parallelism) {
    Configuration configuration = new Configuration();
    // Flink ends a job whose job server reports no heartbeat any more: nobody could be told of its end.
    configuration.set(DeploymentOptions.ATTACHED, true);
    configuration.set(DeploymentOptions.SHUTDOWN_IF_ATTACHED, true);
    configuration.set(ClientOptions.CLIENT_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT);
    ExecutionEnvironment environment =
        ExecutionEnvironment.createRemoteEnvironment(master.getHost(), master.getPort(), configuration);
    environment.setParallelism(parallelism);
    // Exchanges are whole before anybody reads them: a job goes on with fewer slots than parts when a task manager is
    // lost, and does again only what was lost with it.
    environment.getConfig().setExecutionMode(ExecutionMode.BATCH);
    return environment;
  }
}
