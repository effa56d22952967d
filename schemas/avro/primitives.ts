/**
 * Avro binary primitives on plain byte arrays (Apache Avro specification 1.12, "Binary Encoding").
 * Longs are zigzag varints of at most 2^52 in magnitude, so that doubling them stays exact. Hot paths: no allocation.
 */

/** Writes a long; returns the position after it. Needs up to 10 bytes. */
export function writeLong(out: Uint8Array, at: number, value: number): number {
  if (value >= -1073741824 && value <= 1073741823) {
    let zigzag = (value << 1) ^ (value >> 31);
    while (zigzag & ~0x7f) {
      out[at++] = (zigzag & 0x7f) | 0x80;
      zigzag >>>= 7;
    }
    out[at++] = zigzag;
    return at;
  }
  // Up to 2^52, doubling stays exact in a double; 28 bits at a time are integers.
  const zigzag = value >= 0 ? value * 2 : -value * 2 - 1;
  const high = Math.floor(zigzag / 0x10000000);
  let low = zigzag - high * 0x10000000;
  for (let i = 0; i < 4; i++) {
    out[at++] = low | 0x80;
    low >>>= 7;
  }
  let rest = high | 0;
  while (rest >= 128) {
    out[at++] = rest | 0x80;
    rest >>>= 7;
  }
  out[at++] = rest;
  return at;
}

/** Reads longs and strings one after another; `fail` is set, and 0 returned, when the bytes end early or a long is unsafe. */
export class AvroCursor {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  fail = false;

  reset(bytes: Uint8Array, from: number, to: number): void {
    this.bytes = bytes;
    this.at = from;
    this.end = to;
    this.fail = false;
  }

  long(): number {
    const { bytes, end } = this;
    let at = this.at;
    let shift = 0;
    let low = 0;
    while (at < end && shift < 28) {
      const byte = bytes[at++] as number;
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        this.at = at;
        return (low >>> 1) ^ -(low & 1);
      }
      shift += 7;
    }
    let value = low;
    let scale = 2 ** shift;
    while (at < end && shift < 63) {
      const byte = bytes[at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        this.at = at;
        const odd = value % 2 === 1;
        const magnitude = Math.floor(value / 2);
        if (value > 2 * Number.MAX_SAFE_INTEGER) break;
        return odd ? -magnitude - 1 : magnitude;
      }
      scale *= 128;
      shift += 7;
    }
    this.fail = true;
    return 0;
  }

  byte(): number {
    if (this.at >= this.end) {
      this.fail = true;
      return 0;
    }
    return this.bytes[this.at++] as number;
  }

  /** Skips over a string (or bytes); afterwards it stands in [start, at). Returns its start. */
  string(): number {
    const length = this.long();
    const start = this.at;
    if (length < 0 || length > this.end - start) {
      this.fail = true;
      return start;
    }
    this.at = start + length;
    return start;
  }
}
