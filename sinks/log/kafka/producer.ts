/**
 * Appends: records wait at most `lingerMs` or until a batch is full, then go to their partition's leader, several
 * requests in flight, acks=all. A batch that is not acknowledged is sent again until its deadline: it may then be on
 * the log twice, or in another order, and neither matters (claims, and no result depends on order within a partition).
 */
import { createErrorFromCode } from 'kafkajs/src/protocol/error.js';
import { LogUnavailable, type RecordBatch } from '../port.ts';
import type { KafkaClient } from './client.ts';
import type { LogCounters } from './counters.ts';
import type { Framing } from './framing.ts';
import { Leaders } from './leaders.ts';
import type { KafkaOptions } from './options.ts';
import { produceRequest } from './produce-request.ts';
import { type Piece, sizeOf, writeBatch } from './write-batch.ts';

const RETRY_FIRST_MS = 50;
const RETRY_MOST_MS = 1_000;
const SWEEP_MS = 250;

/** One call of `append`, until all its pieces are acknowledged. */
interface Append {
  left: number;
  /** performance.now() */
  deadline: number;
  done: boolean;
  resolve(): void;
  reject(error: LogUnavailable): void;
}

interface QueuedPiece extends Piece {
  append: Append;
  size: number;
}

/** A batch on its way; encoded once. */
interface Sending {
  partition: number;
  pieces: QueuedPiece[];
  encoded: Buffer | undefined;
  tries: number;
  /** not to be sent before, performance.now() */
  notBefore: number;
}

interface Queue {
  pieces: QueuedPiece[];
  bytes: number;
  /** when the oldest piece came, performance.now() */
  since: number;
  resend: Sending[];
}

export class Producer {
  readonly #client: KafkaClient;
  readonly #options: KafkaOptions;
  readonly #framing: Framing;
  readonly #counters: LogCounters;
  readonly #leaders: Leaders;
  readonly #queues = new Map<number, Queue>();
  readonly #inFlight = new Map<number, number>();
  #pendingBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #sweeper: NodeJS.Timeout | undefined;
  #asking = false;
  #askedWithoutLuck = 0;
  #closed = false;

  constructor(client: KafkaClient, options: KafkaOptions, framing: Framing, counters: LogCounters) {
    this.#client = client;
    this.#options = options;
    this.#framing = framing;
    this.#counters = counters;
    this.#leaders = new Leaders(options.topic);
  }

  /** Resolves when every record is on all in-sync replicas. @throws {LogUnavailable} */
  append(batches: readonly RecordBatch[]): Promise<void> {
    if (this.#closed) return Promise.reject(new LogUnavailable('the log is closed'));
    const pieces = batches.flatMap((batch) => this.#split(batch));
    if (pieces.length === 0) return Promise.resolve();
    const size = pieces.reduce((sum, piece) => sum + sizeOf(piece), 0);
    if (this.#pendingBytes > 0 && this.#pendingBytes + size > this.#options.bufferBytes)
      return Promise.reject(
        new LogUnavailable('Kafka does not keep up: too many bytes are waiting to be acknowledged'),
      );
    return new Promise((resolve, reject) => {
      const append: Append = {
        left: pieces.length,
        deadline: performance.now() + this.#options.deliveryTimeoutMs,
        done: false,
        resolve,
        reject,
      };
      for (const piece of pieces) this.#enqueue({ ...piece, append, size: sizeOf(piece) });
      this.#sweeper ??= setInterval(() => this.#sweep(), SWEEP_MS);
      this.#pump();
    });
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    const error = new LogUnavailable('the log was closed');
    for (const queue of this.#queues.values())
      for (const piece of [...queue.pieces.splice(0), ...queue.resend.splice(0).flatMap((one) => one.pieces)])
        this.#settle(piece, error);
    clearInterval(this.#sweeper);
  }

  /** Pieces of at most a record batch each. */
  #split(batch: RecordBatch): Piece[] {
    const pieces: Piece[] = [];
    let from = 0;
    while (from < batch.count) {
      const piece = { batch, from, to: batch.count };
      if (sizeOf(piece) > this.#options.batchBytes) piece.to = this.#cut(batch, from);
      pieces.push(piece);
      from = piece.to;
    }
    return pieces;
  }

  #cut(batch: RecordBatch, from: number): number {
    let low = from + 1;
    let high = batch.count;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (sizeOf({ batch, from, to: middle }) <= this.#options.batchBytes) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #queueOf(partition: number): Queue {
    let queue = this.#queues.get(partition);
    if (queue === undefined) {
      queue = { pieces: [], bytes: 0, since: 0, resend: [] };
      this.#queues.set(partition, queue);
    }
    return queue;
  }

  #enqueue(piece: QueuedPiece): void {
    const queue = this.#queueOf(piece.batch.partition);
    if (queue.pieces.length === 0) queue.since = performance.now();
    queue.pieces.push(piece);
    queue.bytes += piece.size;
    this.#pendingBytes += piece.size;
  }

  /** Sends what is ready wherever a request may go; sets the clock for what is not. */
  #pump(): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    const now = performance.now();
    let next = Number.POSITIVE_INFINITY;
    const ready = new Map<number, number[]>();
    let leaderless = false;
    for (const [partition, queue] of this.#queues) {
      const at = this.#readyAt(queue);
      if (at > now) {
        next = Math.min(next, at);
        continue;
      }
      const leader = this.#leaders.of(partition);
      if (leader === undefined) leaderless = true;
      else if ((this.#inFlight.get(leader) ?? 0) < this.#options.inFlight)
        ready.set(leader, [...(ready.get(leader) ?? []), partition]);
    }
    for (const [leader, partitions] of ready)
      void this.#send(
        leader,
        partitions.map((partition) => this.#take(partition, now)),
      );
    if (leaderless) this.#askForLeaders();
    if (next < Number.POSITIVE_INFINITY) this.#timer = setTimeout(() => this.#pump(), Math.max(1, next - now));
  }

  /** performance.now() from which the queue has a batch to send; Infinity when there is none. */
  #readyAt(queue: Queue): number {
    let at = Number.POSITIVE_INFINITY;
    for (const one of queue.resend) at = Math.min(at, one.notBefore);
    if (queue.bytes >= this.#options.batchBytes) return 0;
    if (queue.pieces.length > 0) at = Math.min(at, queue.since + this.#options.lingerMs);
    return at;
  }

  #take(partition: number, now: number): Sending {
    const queue = this.#queueOf(partition);
    const again = queue.resend.findIndex((one) => one.notBefore <= now);
    const [resent] = again >= 0 ? queue.resend.splice(again, 1) : [];
    if (resent !== undefined) return resent;
    let count = 0;
    let bytes = 0;
    for (const piece of queue.pieces) {
      if (count > 0 && bytes + piece.size > this.#options.batchBytes) break;
      bytes += piece.size;
      count++;
    }
    queue.bytes -= bytes;
    return { partition, pieces: queue.pieces.splice(0, count), encoded: undefined, tries: 0, notBefore: 0 };
  }

  async #send(leader: number, batches: readonly Sending[]): Promise<void> {
    this.#inFlight.set(leader, (this.#inFlight.get(leader) ?? 0) + 1);
    const began = performance.now();
    try {
      const codes = await this.#request(leader, batches);
      for (const batch of batches) this.#conclude(batch, codes.get(batch.partition) ?? -1);
    } catch (error) {
      for (const batch of batches) this.#retry(batch, error instanceof Error ? error.message : String(error));
    } finally {
      this.#inFlight.set(leader, (this.#inFlight.get(leader) ?? 1) - 1);
      this.#counters.produceSeconds += (performance.now() - began) / 1000;
    }
    this.#pump();
  }

  async #request(leader: number, batches: readonly Sending[]): Promise<Map<number, number>> {
    const { topic, compression, requestTimeoutMs } = this.#options;
    const partitions = await Promise.all(
      batches.map(async (one) => {
        one.encoded ??= await writeBatch(one.pieces, this.#framing, compression, Date.now());
        return { partition: one.partition, batch: one.encoded };
      }),
    );
    this.#counters.produceRequests++;
    return this.#client.run(async (cluster) => {
      this.#leaders.learn(cluster);
      const broker = await cluster.findBroker({ nodeId: leader });
      return broker.connectionPool.send(produceRequest(topic, partitions, Math.max(500, requestTimeoutMs - 500)));
    }, requestTimeoutMs + 500);
  }

  #conclude(batch: Sending, code: number): void {
    if (code === 0) {
      this.#counters.producedBatches++;
      this.#counters.producedBytes += batch.encoded?.length ?? 0;
      for (const piece of batch.pieces) {
        this.#counters.producedRecords += piece.to - piece.from;
        this.#settle(piece);
      }
      return;
    }
    const error = createErrorFromCode(code);
    if (error.retriable) {
      this.#client.markStale();
      this.#retry(batch, error.message);
      return;
    }
    this.#options.logger.error(
      { partition: batch.partition, code: error.type },
      `Kafka refused records: ${error.message}`,
    );
    const refusal = new LogUnavailable(`Kafka refused the records: ${error.type}`, { cause: error });
    for (const piece of batch.pieces) this.#settle(piece, refusal);
  }

  #retry(batch: Sending, why: string): void {
    const now = performance.now();
    if (this.#closed || batch.pieces.every(({ append }) => append.done || append.deadline <= now)) {
      const error = new LogUnavailable(`Kafka did not acknowledge in time: ${why}`);
      for (const piece of batch.pieces) this.#settle(piece, error);
      return;
    }
    if (batch.tries === 0)
      this.#options.logger.warn({ partition: batch.partition, err: why }, 'Kafka did not take records: trying again');
    this.#counters.produceRetries++;
    batch.notBefore = now + Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** batch.tries++);
    this.#queueOf(batch.partition).resend.push(batch);
  }

  #settle(piece: QueuedPiece, error?: LogUnavailable): void {
    this.#pendingBytes -= piece.size;
    const { append } = piece;
    append.left--;
    if (append.done) return;
    if (error !== undefined) {
      append.done = true;
      append.reject(error);
    } else if (append.left === 0) {
      append.done = true;
      append.resolve();
    }
  }

  /** What has waited until its deadline, in a queue or to be sent again, is given up. */
  #sweep(): void {
    const now = performance.now();
    const error = new LogUnavailable('Kafka did not acknowledge in time');
    for (const queue of this.#queues.values()) {
      const late = queue.pieces.filter(({ append }) => append.done || append.deadline <= now);
      if (late.length > 0) {
        queue.pieces = queue.pieces.filter(({ append }) => !append.done && append.deadline > now);
        queue.bytes = queue.pieces.reduce((sum, piece) => sum + piece.size, 0);
      }
      const dead = queue.resend.filter((one) =>
        one.pieces.every(({ append }) => append.done || append.deadline <= now),
      );
      if (dead.length > 0) queue.resend = queue.resend.filter((one) => !dead.includes(one));
      for (const piece of [...late, ...dead.flatMap((one) => one.pieces)]) this.#settle(piece, error);
    }
    if (this.#pendingBytes > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  #askForLeaders(): void {
    if (this.#asking) return;
    this.#asking = true;
    if (this.#askedWithoutLuck > 0) this.#client.markStale();
    const wait = Math.min(RETRY_MOST_MS, this.#askedWithoutLuck * RETRY_FIRST_MS);
    setTimeout(async () => {
      try {
        await this.#client.run(async (cluster) => this.#leaders.learn(cluster), this.#options.requestTimeoutMs);
      } catch (error) {
        this.#options.logger.debug({ err: error }, 'Kafka: no metadata');
      }
      this.#asking = false;
      this.#askedWithoutLuck++;
      if (this.#pendingBytes === 0) return;
      this.#pump();
      if (!this.#asking) this.#askedWithoutLuck = 0;
    }, wait);
  }
}
