/**
 * The event log's port: what Kafka and the embedded log have in common.
 * Offsets are JavaScript numbers (safe integers); bytes are Avro single-object encoded events, one a record.
 */

/** Records of one partition, concatenated. */
export interface RecordBatch {
  partition: number;
  count: number;
  bytes: Uint8Array;
  /** `ends[i]` is where record i ends in `bytes`; record i starts at `ends[i-1]` (0 for the first). Length `count`. */
  ends: Uint32Array;
}

/** Records read back: their offsets run from `firstOffset`, one by one, unless `offsets` says otherwise. */
export interface LogSlice extends RecordBatch {
  firstOffset: number;
  /** offset after the last record: what to read next */
  nextOffset: number;
  /** set only where offsets have gaps (a compacted or transactional Kafka topic); length `count` */
  offsets?: Float64Array;
}

export interface ReadLimit {
  records: number;
  bytes: number;
}

/** A partition that this member owns until `revoked` fires. */
export interface AssignedPartition {
  readonly partition: number;
  /** fires when the group takes the partition away: finish or abandon the batch in hand, commit nothing later */
  readonly revoked: AbortSignal;
  /** The next read starts here. An offset below the oldest kept one reads from the oldest kept one. */
  seek(offset: number): void;
  /**
   * Reads what is there, waiting at most `waitMs` for the first record. Its bytes are valid until the next read.
   * @returns undefined when nothing came in that time, or the partition was revoked
   * @throws {LogUnavailable}
   */
  read(limit: ReadLimit, waitMs: number): Promise<LogSlice | undefined>;
  /** Tells lag tools and retention that everything below `offset` is in the database. A hint: correctness never depends on it. */
  committed(offset: number): void;
}

export interface Consumer {
  /** Leaves the group; resolves when every `onAssigned` has returned. */
  close(): Promise<void>;
}

/** Where a partition begins and ends. */
export interface PartitionRange {
  partition: number;
  /** oldest offset kept */
  first: number;
  /** offset that the next record will get */
  end: number;
}

export interface EventLog {
  readonly topic: string;
  readonly partitions: number;
  /**
   * Appends; resolves when all of it is durable (fsync, acks=all). All or nothing for the embedded log;
   * with Kafka a failure may leave a part behind, which a retry repeats: the claim drops the repeats.
   * @throws {LogUnavailable} nothing may be acknowledged
   */
  append(batches: readonly RecordBatch[]): Promise<void>;
  /**
   * Joins the group. `onAssigned` runs for as long as the partition is owned; it returns soon after `revoked` fires.
   * A partition is handed to another member when `onAssigned` has returned or the session timed out.
   */
  consume(onAssigned: (partition: AssignedPartition) => Promise<void>): Promise<Consumer>;
  /** @throws {LogUnavailable} */
  ranges(): Promise<PartitionRange[]>;
  close(): Promise<void>;
}

/** The log can't take or give records now: retry later. */
export class LogUnavailable extends Error {
  override name = 'LogUnavailable';
}
