/**
 * How an event's Avro body is framed in a Kafka record: Avro single-object encoding by default (C3 01 and the schema's
 * fingerprint), or Confluent's wire format where a schema registry is configured (00 and the registry's id of the
 * schema, 4 bytes big-endian). The body is the same; inside Tidemark it is always single-object encoding.
 */
export interface Framing {
  /** the registry's id of our schema; undefined: single-object encoding is written */
  readonly writeId: number | undefined;
  /** Whether an id is known to stand for our schema (true) or another one (false); undefined: not asked yet. */
  knows(id: number): boolean | undefined;
  /** Asks the registry. @throws {LogUnavailable} when it does not answer */
  learn(ids: Iterable<number>): Promise<void>;
}

/** Without a registry. */
export const SINGLE_OBJECT: Framing = {
  writeId: undefined,
  knows: () => false,
  learn: async () => undefined,
};

export const CONFLUENT_HEADER_BYTES = 5;

/** The id in a record of Confluent's wire format, or -1. */
export function confluentId(bytes: Buffer, from: number, to: number): number {
  return to - from >= CONFLUENT_HEADER_BYTES && bytes[from] === 0 ? bytes.readUInt32BE(from + 1) : -1;
}
