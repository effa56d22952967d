/**
 * Fetches ahead for the partitions that this member owns: one request at a time to each leader, for the partitions that
 * have room. What is not asked for is not sent, so memory is bounded however far processing lags (P13).
 */
import type Cluster from 'kafkajs/src/cluster/index.js';
import { createErrorFromCode } from 'kafkajs/src/protocol/error.js';
import type { KafkaClient } from './client.ts';
import type { LogCounters } from './counters.ts';
import { type FetchedPartition, fetchRequest, type WantedPartition } from './fetch-request.ts';
import { Leaders } from './leaders.ts';
import type { KafkaOptions } from './options.ts';
import { type RecordSet, wholeBatches } from './read-batches.ts';

/** What a partition tells its fetcher, and gets from it. */
export interface FetchTarget {
  readonly partition: number;
  /** offset to fetch next; undefined: not to be fetched */
  readonly fetchOffset: number | undefined;
  /** bytes waiting to be read */
  readonly waiting: number;
  /** Records from `fetchOffset`; the next fetch is from `nextOffset`. */
  deliver(set: RecordSet, nextOffset: number): void;
  /** The oldest kept record is at `first`, past the offset asked for. */
  skipTo(first: number): void;
  /** The log ends before the offset asked for. */
  beyondEnd(end: number): void;
}

/** Long enough not to spin when there is nothing, short enough for a partition that has found room meanwhile. */
const WAIT_MS = 100;
const MOST_BYTES = 4 << 20;
const LEAST_BYTES = 64 << 10;
const BACKOFF_MS = [50, 100, 250, 500, 1_000];
const OFFSET_OUT_OF_RANGE = 1;

export class Fetcher {
  readonly #client: KafkaClient;
  readonly #options: KafkaOptions;
  readonly #counters: LogCounters;
  readonly #leaders: Leaders;
  readonly #targets = new Map<number, FetchTarget>();
  readonly #busy = new Set<number>();
  #failures = 0;
  #pausedUntil = 0;
  #timer: NodeJS.Timeout | undefined;
  #asking = false;
  #closed = false;

  constructor(client: KafkaClient, options: KafkaOptions, counters: LogCounters) {
    this.#client = client;
    this.#options = options;
    this.#counters = counters;
    this.#leaders = new Leaders(options.topic);
  }

  add(target: FetchTarget): void {
    this.#targets.set(target.partition, target);
  }

  remove(target: FetchTarget): void {
    if (this.#targets.get(target.partition) === target) this.#targets.delete(target.partition);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#targets.clear();
  }

  /** To be called when a partition has room, or another offset. */
  pump(): void {
    if (this.#closed) return;
    const pause = this.#pausedUntil - performance.now();
    if (pause > 0) {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.pump();
      }, pause);
      return;
    }
    const share = this.#options.prefetchBytes / Math.max(1, this.#targets.size);
    const wanted = new Map<number, WantedPartition[]>();
    let leaderless = false;
    for (const target of this.#targets.values()) {
      if (target.fetchOffset === undefined || target.waiting > share / 2) continue;
      const leader = this.#leaders.of(target.partition);
      if (leader === undefined) {
        leaderless = true;
        continue;
      }
      if (this.#busy.has(leader)) continue;
      const room = Math.min(MOST_BYTES, Math.max(LEAST_BYTES, share - target.waiting));
      const one = { partition: target.partition, offset: target.fetchOffset, maxBytes: Math.floor(room) };
      wanted.set(leader, [...(wanted.get(leader) ?? []), one]);
    }
    for (const [leader, partitions] of wanted) void this.#fetch(leader, partitions);
    if (leaderless && !this.#asking) void this.#ask();
  }

  async #ask(): Promise<void> {
    this.#asking = true;
    try {
      await this.#client.run(async (cluster) => this.#leaders.learn(cluster), this.#options.requestTimeoutMs);
      if ([...this.#targets.keys()].some((partition) => this.#leaders.of(partition) === undefined))
        this.#backOff('a partition has no leader');
    } catch (error) {
      this.#backOff(error instanceof Error ? error.message : String(error));
    }
    this.#asking = false;
    this.pump();
  }

  async #fetch(leader: number, wanted: WantedPartition[]): Promise<void> {
    this.#busy.add(leader);
    this.#counters.fetchRequests++;
    // Another first one each time, for the broker fills its answer in this order.
    const turned = wanted.map((_, i) => wanted[(i + this.#counters.fetchRequests) % wanted.length] ?? wanted[i]);
    const ordered = turned.filter((one) => one !== undefined);
    try {
      const { topic, requestTimeoutMs } = this.#options;
      const found = await this.#client.run(async (cluster) => {
        this.#leaders.learn(cluster);
        const broker = await cluster.findBroker({ nodeId: leader });
        return broker.connectionPool.send(fetchRequest(topic, ordered, WAIT_MS, requestTimeoutMs));
      }, requestTimeoutMs + WAIT_MS);
      let failed = false;
      for (const one of found) failed = (await this.#deliver(one, ordered)) || failed;
      if (!failed) this.#failures = 0;
    } catch (error) {
      this.#backOff(error instanceof Error ? error.message : String(error));
    }
    this.#busy.delete(leader);
    this.pump();
  }

  /** @returns whether the partition could not be fetched */
  async #deliver(found: FetchedPartition, wanted: readonly WantedPartition[]): Promise<boolean> {
    const target = this.#targets.get(found.partition);
    const offset = wanted.find((one) => one.partition === found.partition)?.offset;
    // It was revoked, or is somewhere else by now.
    if (target === undefined || offset === undefined || target.fetchOffset !== offset) return false;
    if (found.code === OFFSET_OUT_OF_RANGE) {
      await this.#findOffset(target, offset);
      return false;
    }
    if (found.code !== 0) {
      this.#client.markStale();
      this.#backOff(createErrorFromCode(found.code).message);
      return true;
    }
    const whole = wholeBatches(found.records);
    if (whole === undefined) return false;
    const records = found.records.subarray(0, whole.length);
    this.#counters.fetchedBytes += records.length;
    // A view keeps the whole response alive, other partitions' records too: only a large one is worth that.
    const bytes = records.length * 2 > found.responseBytes ? records : Buffer.from(records);
    target.deliver({ bytes, aborted: found.aborted }, whole.nextOffset);
    return false;
  }

  async #findOffset(target: FetchTarget, offset: number): Promise<void> {
    const { first, end } = await this.#client.run(
      (cluster) => rangeOf(cluster, this.#options.topic, target.partition),
      this.#options.requestTimeoutMs,
    );
    if (target.fetchOffset !== offset) return;
    if (offset < first) {
      this.#counters.removedRecords += first - offset;
      this.#options.logger.error(
        { partition: target.partition, from: offset, to: first },
        'Kafka no longer has records that were not counted: they are lost',
      );
      target.skipTo(first);
    } else if (offset > end) target.beyondEnd(end);
  }

  #backOff(why: string): void {
    this.#counters.fetchFailures++;
    if (this.#failures === 0) this.#options.logger.warn({ err: why }, 'Kafka gives no records: trying again');
    const wait = BACKOFF_MS[Math.min(this.#failures++, BACKOFF_MS.length - 1)] ?? 1_000;
    this.#pausedUntil = performance.now() + wait;
  }
}

async function rangeOf(cluster: Cluster, topic: string, partition: number): Promise<{ first: number; end: number }> {
  const at = async (fromBeginning: boolean) => {
    const [found] = await cluster.fetchTopicsOffset([{ topic, partitions: [{ partition }], fromBeginning }]);
    return Number(found?.partitions[0]?.offset ?? 0);
  };
  return { first: await at(true), end: await at(false) };
}
