/**
 * The embedded event log: partitions and offsets in one LMDB environment, shared by any number of threads and
 * processes of one machine. A value is one block of records, exactly as a request appended them.
 *
 * Durability: `overlappingSync` is off, so LMDB's commit includes the sync to disk and a transaction's promise
 * resolves only after it. Appends of one event turn, and all that wait while a commit runs, share the next commit.
 */
import { mkdirSync } from 'node:fs';
import { open } from 'lmdb';
import { TidemarkError } from '../../../schemas/index.ts';
import {
  type AssignedPartition,
  type Consumer,
  type EventLog,
  LogUnavailable,
  type PartitionRange,
  type RecordBatch,
} from '../port.ts';
import { type BlockKey, blockSize, encodeBlock } from './blocks.ts';
import { type EmbeddedLogOptions, type Environment, endOf, keyOffset } from './environment.ts';
import { outliveFailedCommits } from './failed-commits.ts';
import { joinGroup } from './membership.ts';
import { PartitionCursor } from './partition-cursor.ts';

const DEFAULTS = {
  topic: 'tidemark.events',
  partitions: 4,
  sessionTimeoutMs: 10_000,
  pollMs: 10,
  retainRecords: 100_000,
};
/** Virtual size only: the file grows as it is used. */
const MAP_SIZE = 1 << 30;
/** Blocks' memory that is used again: at most so many, of at most so many bytes. */
const MOST_KEPT = 16;
const MOST_KEPT_BYTES = 2 << 20;

/**
 * Opens (or makes) the log in a folder.
 * @throws TidemarkError `invalid_setting` when the folder's log has another number of partitions
 */
export async function openEmbeddedLog(options: EmbeddedLogOptions): Promise<EventLog> {
  mkdirSync(options.directory, { recursive: true });
  outliveFailedCommits();
  const settings = { ...DEFAULTS, ...options };
  const root = open({
    path: options.directory,
    mapSize: MAP_SIZE,
    overlappingSync: false,
    maxDbs: 4,
    maxReaders: 256,
  });
  const env: Environment = {
    root,
    blocks: root.openDB({ name: 'blocks', encoding: 'binary' }),
    state: root.openDB({ name: 'state', encoding: 'json' }),
    options: settings,
  };
  const partitions = await root.transaction(() => {
    const stored: unknown = env.state.get('partitions');
    if (typeof stored === 'number') return stored;
    env.state.put('partitions', settings.partitions);
    return settings.partitions;
  });
  if (partitions !== settings.partitions) {
    await root.close();
    throw new TidemarkError(
      'invalid_setting',
      `LOG_PARTITIONS is ${settings.partitions}, but the log in ${options.directory} was made with ${partitions}: a partition is a function of the tenant, so the number stays`,
    );
  }
  return new EmbeddedLog(env);
}

class EmbeddedLog implements EventLog {
  readonly topic: string;
  readonly partitions: number;
  readonly #env: Environment;
  readonly #consumers = new Set<Consumer>();
  /** LMDB reads blocks from our memory until they are committed; new memory for each would keep V8 collecting */
  readonly #free: Buffer[] = [];
  #closed: Promise<void> | undefined;

  constructor(env: Environment) {
    this.#env = env;
    this.topic = env.options.topic;
    this.partitions = env.options.partitions;
  }

  async append(batches: readonly RecordBatch[]): Promise<void> {
    if (this.#closed !== undefined) throw new LogUnavailable('the log is closed');
    const { root, blocks, state } = this.#env;
    const full = batches.filter((batch) => batch.count > 0);
    for (const { partition } of full)
      if (!(partition >= 0 && partition < this.partitions)) throw new RangeError(`no partition ${partition}`);
    if (full.length === 0) return;
    const memory = this.#take(full.reduce((sum, batch) => sum + blockSize(batch), 0));
    let at = 0;
    const encoded = full.map((batch) => {
      const value = encodeBlock(batch, memory.subarray(at));
      at += value.length;
      return { batch, value };
    });
    try {
      await root.transaction(() => {
        for (const { batch, value } of encoded) {
          const base = endOf(this.#env, batch.partition);
          const key: BlockKey = [batch.partition, base];
          blocks.put(key, value);
          state.put(['end', batch.partition], base + batch.count);
        }
      });
    } catch (error) {
      throw new LogUnavailable(`the embedded log can't append: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      });
    }
    if (memory.length <= MOST_KEPT_BYTES && this.#free.length < MOST_KEPT) this.#free.push(memory);
  }

  #take(bytes: number): Buffer {
    const free = this.#free.pop();
    return free !== undefined && free.length >= bytes ? free : Buffer.allocUnsafeSlow(bytes * 2);
  }

  async consume(onAssigned: (partition: AssignedPartition) => Promise<void>): Promise<Consumer> {
    if (this.#closed !== undefined) throw new LogUnavailable('the log is closed');
    const group = await joinGroup(this.#env, (partition, revoked) =>
      onAssigned(new PartitionCursor(this.#env, partition, revoked)),
    );
    const consumer: Consumer = {
      close: async () => {
        this.#consumers.delete(consumer);
        await group.leave();
      },
    };
    this.#consumers.add(consumer);
    return consumer;
  }

  async ranges(): Promise<PartitionRange[]> {
    if (this.#closed !== undefined) throw new LogUnavailable('the log is closed');
    const { root, blocks } = this.#env;
    root.resetReadTxn();
    return Array.from({ length: this.partitions }, (_, partition) => {
      const end = endOf(this.#env, partition);
      const [oldest] = blocks.getRange({ start: [partition, 0], end: [partition + 1, 0], limit: 1 });
      const first = oldest === undefined ? end : keyOffset(oldest.key);
      return { partition, first, end };
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#consumers].map((consumer) => consumer.close()));
    await this.#env.root.close();
  }
}
