package graft.spark;

import java.util.List;
import java.util.concurrent.CountDownLatch;
import org.apache.spark.SparkConf;
import org.apache.spark.network.TransportContext;
import org.apache.spark.network.netty.SparkTransportConf;
import org.apache.spark.network.server.TransportServer;
import org.apache.spark.network.shuffle.ExternalBlockHandler;
import org.apache.spark.network.util.TransportConf;
import scala.Option;

/**
 * The command: Spark's external shuffle service on one address.
 *
 * <p>The one of a worker listens on all addresses, and two workers on one machine would want the same port.
 */
public final class ShuffleService {
  private ShuffleService() {}

  /**
   * @param arguments host and port
   */
  public static void main(String[] arguments) throws Exception {
    TransportConf configuration = SparkTransportConf.fromSparkConf(new SparkConf(), "shuffle", 0, Option.empty());
    ExternalBlockHandler handler = new ExternalBlockHandler(configuration, null);
    try (TransportContext transport = new TransportContext(configuration, handler, true);
        TransportServer server = transport.createServer(arguments[0], Integer.parseInt(arguments[1]), List.of())) {
      new CountDownLatch(1).await();
    }
  }
}
