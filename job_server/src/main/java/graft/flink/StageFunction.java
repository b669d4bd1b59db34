package graft.flink;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.apache.beam.model.pipeline.v1.RunnerApi.ExecutableStagePayload;
import org.apache.beam.runners.fnexecution.control.BundleFinalizationHandler;
import org.apache.beam.runners.fnexecution.control.BundleFinalizationHandlers;
import org.apache.beam.runners.fnexecution.control.BundleProgressHandler;
import org.apache.beam.runners.fnexecution.control.DefaultExecutableStageContext;
import org.apache.beam.runners.fnexecution.control.ExecutableStageContext;
import org.apache.beam.runners.fnexecution.control.OutputReceiverFactory;
import org.apache.beam.runners.fnexecution.control.ReferenceCountingExecutableStageContextFactory;
import org.apache.beam.runners.fnexecution.control.RemoteBundle;
import org.apache.beam.runners.fnexecution.control.StageBundleFactory;
import org.apache.beam.runners.fnexecution.provisioning.JobInfo;
import org.apache.beam.runners.fnexecution.state.StateRequestHandler;
import org.apache.beam.runners.fnexecution.state.StateRequestHandlers;
import org.apache.beam.runners.fnexecution.translation.BatchSideInputHandlerFactory;
import org.apache.beam.sdk.fn.data.FnDataReceiver;
import org.apache.beam.sdk.io.FileSystems;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.util.WindowedValue;
import org.apache.beam.sdk.util.construction.graph.ExecutableStage;
import org.apache.flink.api.common.functions.BroadcastVariableInitializer;
import org.apache.flink.api.common.functions.RichMapPartitionFunction;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.util.Collector;
import org.apache.flink.util.Preconditions;

/**
 * Runs a stage of the pipeline in a Beam worker: elements of one PCollection in, elements of several out, each with the
 * number of its PCollection.
 */
final class StageFunction extends RichMapPartitionFunction<byte[], Tuple2<Integer, byte[]>> {
  private static final long serialVersionUID = 1L;
  // A worker serves all stages of a job in one task manager, and ends with the last of them.
  private static final ExecutableStageContext.Factory CONTEXTS =
      ReferenceCountingExecutableStageContextFactory.create(DefaultExecutableStageContext::create, caller -> false);

  private final JobInfo job;
  private final ExecutableStagePayload payload;
  private final ElementCoder input;
  private final Map<String, Integer> numbers;
  private final Map<Integer, ElementCoder> outputs;
  private final Map<String, ElementCoder> sideInputs;

  private transient ExecutableStageContext context;
  private transient StageBundleFactory bundles;
  private transient StateRequestHandler sideInputHandler;

  /**
   * @param numbers of the output PCollections by id
   * @param sideInputs of the PCollections that are broadcast, by id
   */
  StageFunction(
      JobInfo job,
      ExecutableStagePayload payload,
      ElementCoder input,
      Map<String, Integer> numbers,
      Map<Integer, ElementCoder> outputs,
      Map<String, ElementCoder> sideInputs) {
    this.job = job;
    this.payload = payload;
    this.input = input;
    this.numbers = numbers;
    this.outputs = outputs;
    this.sideInputs = sideInputs;
  }

  @Override
  public void open(Configuration configuration) throws Exception {
    FileSystems.setDefaultPipelineOptions(PipelineOptionsFactory.create());
    ExecutableStage stage = ExecutableStage.fromPayload(payload);
    context = CONTEXTS.get(job);
    bundles = context.getStageBundleFactory(stage);
    sideInputHandler =
        stage.getSideInputs().isEmpty()
            ? StateRequestHandler.unsupported()
            : StateRequestHandlers.forSideInputHandlerFactory(
                bundles.getProcessBundleDescriptor().getSideInputSpecs(),
                BatchSideInputHandlerFactory.forStage(stage, this::sideInput));
  }

  @SuppressWarnings("unchecked")
  private <T> List<T> sideInput(String collection) {
    return (List<T>)
        getRuntimeContext()
            .getBroadcastVariableWithInitializer(collection, new Decode(sideInputs.get(collection)));
  }

  @Override
  public void mapPartition(Iterable<byte[]> elements, Collector<Tuple2<Integer, byte[]>> collector) throws Exception {
    Iterator<byte[]> left = elements.iterator();
    // A bundle of nothing would still write files.
    if (!left.hasNext()) {
      return;
    }
    BundleFinalizationHandler finalizer =
        BundleFinalizationHandlers.inMemoryFinalizer(bundles.getInstructionRequestHandler());
    try (RemoteBundle bundle =
        bundles.getBundle(
            new Receivers(collector), sideInputHandler, BundleProgressHandler.ignored(), finalizer)) {
      @SuppressWarnings("unchecked")
      FnDataReceiver<WindowedValue<?>> receiver = bundle.getInputReceivers().values().iterator().next();
      while (left.hasNext()) {
        receiver.accept(input.decode(left.next()));
      }
    }
  }

  @Override
  public void close() throws Exception {
    try (AutoCloseable second = context;
        AutoCloseable first = bundles) {
      // Closed in any case.
    } finally {
      context = null;
      bundles = null;
    }
  }

  /** Takes what comes out of the worker; several threads bring it. */
  private final class Receivers implements OutputReceiverFactory {
    private final Collector<Tuple2<Integer, byte[]>> collector;

    Receivers(Collector<Tuple2<Integer, byte[]>> collector) {
      this.collector = collector;
    }

    @Override
    public <T> FnDataReceiver<T> create(String collection) {
      Integer number = Preconditions.checkNotNull(numbers.get(collection), "no output %s", collection);
      ElementCoder coder = outputs.get(number);
      return element -> {
        synchronized (collector) {
          collector.collect(Tuple2.of(number, coder.encode((WindowedValue<?>) element)));
        }
      };
    }
  }

  /** Makes a broadcast PCollection a list of its elements, once for each task manager. */
  private static final class Decode implements BroadcastVariableInitializer<byte[], List<WindowedValue<Object>>> {
    private final ElementCoder coder;

    Decode(ElementCoder coder) {
      this.coder = coder;
    }

    @Override
    public List<WindowedValue<Object>> initializeBroadcastVariable(Iterable<byte[]> elements) {
      List<WindowedValue<Object>> decoded = new ArrayList<>();
      try {
        for (byte[] element : elements) {
          decoded.add(coder.decode(element));
        }
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      return decoded;
    }
  }
}
