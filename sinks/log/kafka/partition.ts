import { type AssignedPartition, type LogSlice, LogUnavailable, type ReadLimit } from '../port.ts';
import type { Fetcher, FetchTarget } from './fetcher.ts';
import type { Framing } from './framing.ts';
import { BatchReader, type RecordSet } from './read-batches.ts';

/** A partition of the topic while this member owns it. */
export class KafkaPartition implements AssignedPartition, FetchTarget {
  readonly partition: number;
  readonly revoked: AbortSignal;
  readonly #fetcher: Fetcher;
  readonly #reader: BatchReader;
  readonly #onCommitted: (offset: number) => void;
  #fetchOffset: number | undefined;
  #beyond: string | undefined;
  #wake: (() => void) | undefined;

  constructor(
    partition: number,
    revoked: AbortSignal,
    fetcher: Fetcher,
    framing: Framing,
    onCommitted: (offset: number) => void,
  ) {
    this.partition = partition;
    this.revoked = revoked;
    this.#fetcher = fetcher;
    this.#reader = new BatchReader(framing);
    this.#onCommitted = onCommitted;
    fetcher.add(this);
    revoked.addEventListener('abort', () => {
      fetcher.remove(this);
      this.#fetchOffset = undefined;
      this.#wake?.();
    });
  }

  seek(offset: number): void {
    if (this.revoked.aborted) return;
    this.#reader.reset(offset);
    this.#fetchOffset = offset;
    this.#beyond = undefined;
    this.#fetcher.pump();
  }

  async read(limit: ReadLimit, waitMs: number): Promise<LogSlice | undefined> {
    const deadline = performance.now() + waitMs;
    for (;;) {
      if (this.revoked.aborted) return undefined;
      if (this.#reader.hasMore) {
        const slice = await this.#reader.take(this.partition, limit);
        this.#fetcher.pump();
        if (slice !== undefined) return this.revoked.aborted ? undefined : slice;
        if (this.#reader.hasMore) continue;
      }
      if (this.#beyond !== undefined) throw new LogUnavailable(this.#beyond);
      const left = deadline - performance.now();
      if (left <= 0) return undefined;
      await this.#arrival(left);
    }
  }

  committed(offset: number): void {
    this.#onCommitted(offset);
  }

  get fetchOffset(): number | undefined {
    return this.#fetchOffset;
  }

  get waiting(): number {
    return this.#reader.waiting;
  }

  deliver(set: RecordSet, nextOffset: number): void {
    this.#reader.push(set);
    this.#fetchOffset = nextOffset;
    this.#wake?.();
  }

  skipTo(first: number): void {
    this.#fetchOffset = first;
  }

  beyondEnd(end: number): void {
    this.#beyond =
      `partition ${this.partition} ends at ${end}, before the offset ${this.#fetchOffset} that the database has counted up to: ` +
      'the topic was made anew or lost its tail. See docs/kafka.md';
    this.#fetchOffset = undefined;
    this.#wake?.();
  }

  /** Resolves when something has happened, or after `ms`. */
  #arrival(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.#wake = done;
    });
  }
}
