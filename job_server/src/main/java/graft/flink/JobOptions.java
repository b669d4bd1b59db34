package graft.flink;

import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Struct;
import org.apache.beam.vendor.grpc.v1p69p0.com.google.protobuf.Value;

/** The pipeline options that count here, read from what the client sent. */
final class JobOptions {
  private final Struct options;

  private JobOptions(Struct options) {
    this.options = options;
  }

  static JobOptions of(Struct options) {
    return new JobOptions(options);
  }

  /** The job's name; Flink's page shows it. */
  String name() {
    Value value = option("job_name");
    return value.hasStringValue() && !value.getStringValue().isEmpty() ? value.getStringValue() : "beam-job";
  }

  /** Parts that the work of an operation is divided into; `otherwise` where the client did not say. */
  int parallelism(int otherwise) {
    Value value = option("parallelism");
    // Clients send numbers as numbers or as text.
    double number = value.hasStringValue() ? Double.parseDouble(value.getStringValue()) : value.getNumberValue();
    return number >= 1 ? (int) number : otherwise;
  }

  private Value option(String name) {
    return options.getFieldsOrDefault("beam:option:" + name + ":v1", Value.getDefaultInstance());
  }
}
