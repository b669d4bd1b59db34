package graft.spark;

import java.io.Serializable;
import java.util.Arrays;

/** Bytes of a key: equal are those with the same content. */
final class Bytes implements Serializable {
  private static final long serialVersionUID = 1L;

  final byte[] content;

  Bytes(byte[] content) {
    this.content = content;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Bytes && Arrays.equals(content, ((Bytes) other).content);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(content);
  }
}
