package graft.spark;

import graft.beam.Grouping;
import graft.beam.Stage;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.sdk.values.KV;
import org.apache.spark.HashPartitioner;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.api.java.function.FlatMapFunction;
import org.apache.spark.broadcast.Broadcast;
import org.apache.spark.storage.StorageLevel;
import scala.Tuple2;

/**
 * Has Spark run a fused pipeline: an RDD of encoded elements for each PCollection.
 *
 * <p>Spark computes an RDD whenever something reads it. A stage writes files, and may do otherwise a second time: it is
 * run once, where it is translated, and what comes out of it is kept on the executors' disks until the job's end. It is
 * never computed again: what is lost fails the job, but the shuffle service of a worker keeps it when an executor ends.
 */
final class Translator extends graft.beam.Translator<JavaRDD<byte[]>> implements AutoCloseable {
  private final JavaSparkContext context;
  private final int parallelism;
  private final List<JavaRDD<?>> kept = new ArrayList<>();
  private final List<Broadcast<?>> broadcasts = new ArrayList<>();

  /**
   * @param parallelism parts that the work of an operation is divided into
   */
  Translator(JavaSparkContext context, JobInfo job, int parallelism) {
    super(job);
    this.context = context;
    this.parallelism = parallelism;
  }

  @Override
  protected JavaRDD<byte[]> impulse(byte[] element, String name) {
    return context.parallelize(List.of(element), 1).setName(name);
  }

  @Override
  protected JavaRDD<byte[]> union(List<JavaRDD<byte[]>> parts) {
    JavaRDD<byte[]> all = parts.stream().reduce(JavaRDD::union).orElseGet(context::emptyRDD);
    // Parts add up: each would become a bundle, and a file.
    return all.getNumPartitions() > parallelism ? all.coalesce(parallelism) : all;
  }

  @Override
  protected JavaRDD<byte[]> dealtOut(JavaRDD<byte[]> elements) {
    // By numbers, which are the same when a part is dealt out again, as the elements are kept.
    return kept(elements)
        .zipWithIndex()
        .mapToPair(numbered -> new Tuple2<>(numbered._2, numbered._1))
        .partitionBy(new HashPartitioner(parallelism))
        .values();
  }

  @Override
  protected JavaRDD<byte[]> grouped(JavaRDD<byte[]> pairs, Grouping grouping, String name) {
    return pairs
        .mapToPair(
            element -> {
              KV<byte[], byte[]> pair = grouping.divided(element);
              return new Tuple2<>(new Bytes(pair.getKey()), pair.getValue());
            })
        .groupByKey(parallelism)
        .map(group -> grouping.together(group._1.content, group._2))
        .setName(name);
  }

  @Override
  protected Map<String, JavaRDD<byte[]>> stage(
      Stage stage, JavaRDD<byte[]> elements, Map<String, JavaRDD<byte[]>> sideInputs) {
    Map<String, Broadcast<SideInput>> broadcast = new HashMap<>();
    sideInputs.forEach((collection, all) -> broadcast.put(collection, broadcast(all)));
    // Parts of files come in the order of the files; dealt out, every executor reads some.
    JavaRDD<Tuple2<Integer, byte[]>> results =
        kept(
            (stage.readsParts() ? dealtOut(elements) : elements)
                .mapPartitions(new StageFunction(stage, broadcast))
                .setName(stage.name()));
    Map<String, JavaRDD<byte[]>> outputs = new HashMap<>();
    stage
        .numbers()
        .forEach(
            (collection, number) ->
                outputs.put(
                    collection, results.filter(element -> element._1.equals(number)).map(element -> element._2)));
    return outputs;
  }

  @Override
  protected void end(JavaRDD<byte[]> elements) {
    // Stages have run; nobody misses the rest.
  }

  /** Computes all of it now, and never again. */
  private <T> JavaRDD<T> kept(JavaRDD<T> elements) {
    elements.persist(StorageLevel.DISK_ONLY());
    elements.rdd().localCheckpoint();
    kept.add(elements);
    elements.count();
    return elements;
  }

  private Broadcast<SideInput> broadcast(JavaRDD<byte[]> elements) {
    Broadcast<SideInput> broadcast = context.broadcast(new SideInput(elements.collect()));
    broadcasts.add(broadcast);
    return broadcast;
  }

  /** Gives back what was kept. */
  @Override
  public void close() {
    kept.forEach(JavaRDD::unpersist);
    broadcasts.forEach(Broadcast::destroy);
  }

  /** Runs a stage in a Beam worker: each element that comes out has the number of its PCollection. */
  private static final class StageFunction implements FlatMapFunction<Iterator<byte[]>, Tuple2<Integer, byte[]>> {
    private static final long serialVersionUID = 1L;

    private final Stage stage;
    private final Map<String, Broadcast<SideInput>> sideInputs;

    StageFunction(Stage stage, Map<String, Broadcast<SideInput>> sideInputs) {
      this.stage = stage;
      this.sideInputs = sideInputs;
    }

    @Override
    public Iterator<Tuple2<Integer, byte[]>> call(Iterator<byte[]> elements) throws Exception {
      if (!elements.hasNext()) {
        return Collections.emptyIterator();
      }
      List<Tuple2<Integer, byte[]>> results = new ArrayList<>();
      try (Stage.Opened opened = stage.open(name -> sideInputs.get(name).value().decoded(stage, name))) {
        opened.run(elements, (number, element) -> results.add(new Tuple2<>(number, element)));
      }
      return results.iterator();
    }
  }
}
