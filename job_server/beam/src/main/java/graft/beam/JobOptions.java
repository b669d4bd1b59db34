package graft.beam;

import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Value;

/** The pipeline options that count here, read from what the client sent. */
public final class JobOptions {
  private final Struct options;

  private JobOptions(Struct options) {
    this.options = options;
  }

  public static JobOptions of(Struct options) {
    return new JobOptions(options);
  }

  /** The job's name; the engine's page shows it. */
  public String name() {
    Value value = option("job_name");
    return value.hasStringValue() && !value.getStringValue().isEmpty() ? value.getStringValue() : "beam-job";
  }

  /** Parts that the work of an operation is divided into; `otherwise` where the client did not say. */
  public int parallelism(int otherwise) {
    return number("parallelism", otherwise);
  }

  /** The options with a number for one, where the client left it at zero. */
  public Struct with(String name, int number) {
    Value value = Value.newBuilder().setNumberValue(number(name, number)).build();
    return options.toBuilder().putFields(key(name), value).build();
  }

  private int number(String name, int otherwise) {
    Value value = option(name);
    // Clients send numbers as numbers or as text.
    double number = value.hasStringValue() ? Double.parseDouble(value.getStringValue()) : value.getNumberValue();
    return number >= 1 ? (int) number : otherwise;
  }

  private Value option(String name) {
    return options.getFieldsOrDefault(key(name), Value.getDefaultInstance());
  }

  private static String key(String name) {
    return "beam:option:" + name + ":v1";
  }
}
