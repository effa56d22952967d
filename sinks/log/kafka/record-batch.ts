/**
 * Kafka's record batch, magic 2 (Kafka protocol guide, "Record Batch"), straight between our `RecordBatch` and the
 * bytes of the wire: no object a record. All integers are big-endian; lengths and deltas of a record are zigzag varints.
 *
 *   0 base offset (8) · 8 length of what follows (4) · 12 leader epoch (4) · 16 magic (1) · 17 CRC-32C of what follows (4)
 *   21 attributes (2) · 23 last offset delta (4) · 27 base timestamp (8) · 35 max timestamp (8) · 43 producer id (8)
 *   51 producer epoch (2) · 53 base sequence (4) · 57 records (4) · 61 the records
 */
export const AT = {
  baseOffset: 0,
  length: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  baseTimestamp: 27,
  maxTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  baseSequence: 53,
  count: 57,
  records: 61,
} as const;

export const MAGIC = 2;
/** Attribute bits: the batch belongs to a transaction; it holds a transaction's marker instead of records. */
export const TRANSACTIONAL = 0x10;
export const CONTROL = 0x20;
/** What precedes the part that `length` counts. */
export const PREFIX = 12;

/** Whether `bytes` are one whole record batch: the reader gives on as it came what it can't unpack. */
export function isRecordBatch(bytes: Uint8Array): boolean {
  const { length } = bytes;
  if (length < AT.records || bytes[AT.magic] !== MAGIC) return false;
  return new DataView(bytes.buffer, bytes.byteOffset, length).getInt32(AT.length) === length - PREFIX;
}
