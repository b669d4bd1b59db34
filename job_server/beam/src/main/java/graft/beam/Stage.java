package graft.beam;

import java.io.IOException;
import java.io.Serializable;
import java.io.UncheckedIOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import org.apache.beam.model.pipeline.v1.RunnerApi;
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
import org.apache.beam.sdk.util.construction.PTransformTranslation;
import org.apache.beam.sdk.util.construction.graph.ExecutableStage;
import org.apache.beam.sdk.util.construction.graph.PipelineNode.PCollectionNode;
import org.apache.beam.sdk.util.construction.graph.PipelineNode.PTransformNode;
import org.apache.beam.sdk.util.construction.graph.SideInputReference;

/**
 * A stage of the pipeline, which runs in a Beam worker: elements of one PCollection in, elements of several out, each
 * with the number of its PCollection.
 */
public final class Stage implements Serializable {
  private static final long serialVersionUID = 1L;
  // A worker serves all stages of a job in one process of the engine, and ends with the last of them.
  private static final ExecutableStageContext.Factory CONTEXTS =
      ReferenceCountingExecutableStageContextFactory.create(DefaultExecutableStageContext::create, caller -> false);

  private final JobInfo job;
  private final ExecutableStagePayload payload;
  private final String name;
  private final boolean readsParts;
  private final ElementCoder input;
  private final Map<String, Integer> numbers = new HashMap<>();
  private final Map<Integer, ElementCoder> outputs = new HashMap<>();
  private final Map<String, ElementCoder> sideInputs = new HashMap<>();

  Stage(JobInfo job, RunnerApi.PTransform transform, RunnerApi.Components components) throws IOException {
    this.job = job;
    payload = ExecutableStagePayload.parseFrom(transform.getSpec().getPayload());
    ExecutableStage stage = ExecutableStage.fromPayload(payload);
    name = name(stage);
    if (!stage.getUserStates().isEmpty() || !stage.getTimers().isEmpty()) {
      throw new UnsupportedOperationException(
          "This job server knows no state and no timers; " + name + " has some.");
    }
    readsParts = readsParts(stage);
    input = new ElementCoder(stage.getInputPCollection().getId(), components);
    for (PCollectionNode output : stage.getOutputPCollections()) {
      outputs.put(numbers.size(), new ElementCoder(output.getId(), components));
      numbers.put(output.getId(), numbers.size());
    }
    for (SideInputReference sideInput : stage.getSideInputs()) {
      sideInputs.put(sideInput.collection().getId(), new ElementCoder(sideInput.collection().getId(), components));
    }
  }

  /** The names of its transforms. */
  public String name() {
    return name;
  }

  /** Whether its elements are parts of files, which it reads. */
  public boolean readsParts() {
    return readsParts;
  }

  /** Numbers of its output PCollections by id. */
  public Map<String, Integer> numbers() {
    return numbers;
  }

  /** Ids of the PCollections that every part of its work needs whole. */
  public Set<String> sideInputs() {
    return sideInputs.keySet();
  }

  String input() {
    return payload.getInput();
  }

  /** Elements of a side input from their bytes. */
  public List<WindowedValue<Object>> decoded(String sideInput, Iterable<byte[]> elements) {
    ElementCoder coder = sideInputs.get(sideInput);
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

  /** Has a worker ready for it; to be closed. */
  public Opened open(SideInputs given) throws Exception {
    FileSystems.setDefaultPipelineOptions(PipelineOptionsFactory.create());
    return new Opened(given);
  }

  /** Where the elements of side inputs are. */
  public interface SideInputs {
    /** Those of one PCollection, as {@link Stage#decoded} gives them. */
    List<WindowedValue<Object>> of(String collection);
  }

  /** Takes the bytes of an element that came out, with the number of its PCollection; of one thread at a time. */
  public interface Output {
    void take(int number, byte[] element);
  }

  /** A stage with a worker. */
  public final class Opened implements AutoCloseable {
    private final ExecutableStageContext context;
    private final StageBundleFactory bundles;
    private final StateRequestHandler sideInputHandler;

    private Opened(SideInputs given) throws Exception {
      ExecutableStage stage = ExecutableStage.fromPayload(payload);
      context = CONTEXTS.get(job);
      bundles = context.getStageBundleFactory(stage);
      sideInputHandler =
          sideInputs.isEmpty()
              ? StateRequestHandler.unsupported()
              : StateRequestHandlers.forSideInputHandlerFactory(
                  bundles.getProcessBundleDescriptor().getSideInputSpecs(),
                  BatchSideInputHandlerFactory.forStage(stage, new Getter(given)));
    }

    /** Has the worker do a part of the work as one bundle. */
    public void run(Iterator<byte[]> elements, Output output) throws Exception {
      // A bundle of nothing would still write files.
      if (!elements.hasNext()) {
        return;
      }
      BundleFinalizationHandler finalizer =
          BundleFinalizationHandlers.inMemoryFinalizer(bundles.getInstructionRequestHandler());
      try (RemoteBundle bundle =
          bundles.getBundle(new Receivers(output), sideInputHandler, BundleProgressHandler.ignored(), finalizer)) {
        @SuppressWarnings("unchecked")
        FnDataReceiver<WindowedValue<?>> receiver = bundle.getInputReceivers().values().iterator().next();
        while (elements.hasNext()) {
          receiver.accept(input.decode(elements.next()));
        }
      }
    }

    @Override
    public void close() throws Exception {
      try (AutoCloseable second = context;
          AutoCloseable first = bundles) {
        // Closed in any case.
      }
    }
  }

  private static final class Getter implements BatchSideInputHandlerFactory.SideInputGetter {
    private final SideInputs given;

    Getter(SideInputs given) {
      this.given = given;
    }

    @Override
    @SuppressWarnings("unchecked")
    public <T> List<T> getSideInput(String collection) {
      return (List<T>) given.of(collection);
    }
  }

  /** Takes what comes out of the worker; several threads bring it. */
  private final class Receivers implements OutputReceiverFactory {
    private final Output output;

    Receivers(Output output) {
      this.output = output;
    }

    @Override
    public <T> FnDataReceiver<T> create(String collection) {
      int number = Objects.requireNonNull(numbers.get(collection), collection);
      ElementCoder coder = outputs.get(number);
      return element -> {
        synchronized (output) {
          output.take(number, coder.encode((WindowedValue<?>) element));
        }
      };
    }
  }

  private static boolean readsParts(ExecutableStage stage) {
    String input = stage.getInputPCollection().getId();
    return stage.getTransforms().stream()
        .map(PTransformNode::getTransform)
        .anyMatch(
            transform ->
                transform.getInputsMap().containsValue(input)
                    && transform
                        .getSpec()
                        .getUrn()
                        .equals(PTransformTranslation.SPLITTABLE_PROCESS_SIZED_ELEMENTS_AND_RESTRICTIONS_URN));
  }

  private static String name(ExecutableStage stage) {
    List<String> names = new ArrayList<>();
    for (PTransformNode node : stage.getTransforms()) {
      names.add(node.getTransform().getUniqueName());
    }
    return String.join(", ", names);
  }
}
