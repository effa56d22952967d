/**
 * The claimed keys of a shard as a log-structured set. Every batch appends a block of keys, held exactly in memory
 * until they are sealed into a run, which is never written again: an index in memory says which of many runs may have
 * a key, and only there it is looked up. Cost stays flat as the set grows. Where memory is short, runs are merged.
 */
import type { ClientBase, Pool } from 'pg';
import { BlockFilter } from './block-filter.ts';
import { KeyTable, wordAt } from './key-table.ts';
import {
  beginMerge,
  discardRuns,
  type Garbage,
  isMerged,
  type Merge,
  mergeSlice,
  publishMerge,
  sweepSlice,
} from './merge.ts';
import { type ClaimStats, type ClaimStore, KEY_BYTES } from './port.ts';
import { probeOf } from './probe.ts';
import { forIndexes, printsOf, RunIndex } from './run-index.ts';
import { type Candidate, findClaimed, insertRun, packByPage, pagesFor, type Run, writePages } from './runs.ts';

/** Memory for indexes and filters, shared by all shards of a process. */
export interface FilterBudget {
  readonly bytes: number;
  used: number;
}
export const openFilterBudget = (bytes: number): FilterBudget => ({ bytes, used: 0 });

export interface KeySetOptions {
  /** recent keys in memory that are sealed together */
  sealKeys: number;
  /** runs of one level, not in an index, that are merged into one of the next */
  fanout?: number;
  /** keys that one transaction of a merge handles */
  sliceKeys?: number;
  /** idempotency window */
  windowMs: number;
  budget: FilterBudget;
  now(): number;
}

const FANOUT = 8;
/** Some 40 ms, and a MB, whatever the size of the runs. */
const SLICE_KEYS = 1 << 14;
/** A merged run may span so much, or expiry would be late. */
const MOST_SPAN_MS = 7 * 86_400_000;
/** Recent keys are sealed after a day even if they are few: memory follows the window, not the history. */
const SEAL_AFTER_MS = 86_400_000;

/** Keys of one index: so many expire together, in the end. */
const MOST_INDEXED = 1 << 24;
/** Runs of the smallest index, where they are full. */
const LEAST_RUNS = 4;

/** Opens the set of a shard: recent keys, indexes and filters come into memory. */
export async function openKeySet(pool: Pool, shard: number, options: KeySetOptions): Promise<ClaimStore> {
  const set = new KeySet(shard, options);
  await set.load(pool);
  return set;
}

class KeySet implements ClaimStore {
  readonly #shard: number;
  readonly #options: Required<KeySetOptions>;
  readonly #recent: KeyTable;
  /** keys of the batch in hand */
  readonly #batch = new KeyTable();
  /** claim time of the oldest and newest recent key, Unix ms */
  #oldest = Number.POSITIVE_INFINITY;
  #newest = Number.NEGATIVE_INFINITY;
  #runs: Run[] = [];
  /** the last one takes further runs */
  #indexes: RunIndex<Run>[] = [];
  #merge: Merge | undefined;
  #garbage: Garbage[] = [];
  #nextRun = 1;
  #lookups = 0;

  constructor(shard: number, options: KeySetOptions) {
    this.#shard = shard;
    this.#options = { fanout: FANOUT, sliceKeys: SLICE_KEYS, ...options };
    // A table of its final size from the start: memory does not move with the traffic.
    this.#recent = new KeyTable(options.sealKeys);
  }

  async load(pool: Pool): Promise<void> {
    const { rows: runs } = await pool.query<{
      run: number;
      level: number;
      keys: number;
      pages: number;
      oldest: Date;
      newest: Date;
      garbage: boolean;
      printed: boolean;
    }>(
      `SELECT run::float8 AS run, level, keys::float8 AS keys, pages, oldest, newest, garbage, prints IS NOT NULL AS printed
       FROM dedupe_runs WHERE shard = $1 ORDER BY run`,
      [this.#shard],
    );
    let toIndex = runs.reduce((sum, { printed, keys }) => sum + (printed ? keys : 0), 0);
    for (const { garbage, printed, ...row } of runs) {
      const { oldest, newest } = row;
      const run: Run = { ...row, oldest: oldest.getTime(), newest: newest.getTime(), filter: null, index: null };
      this.#nextRun = Math.max(this.#nextRun, run.run + 1);
      // Also a merge that was cut off: it begins anew.
      if (garbage) {
        this.#garbage.push({ run: run.run, pages: run.pages, page: 0 });
        continue;
      }
      if (printed) {
        const index = this.#indexFor(run.keys, toIndex);
        if (index !== undefined) this.#index(run, index, await this.#read(pool, 'prints', run));
        toIndex -= run.keys;
      } else if (this.#mayCache(BlockFilter.bytesFor(run.keys)))
        this.#cache(run, BlockFilter.fromBytes(await this.#read(pool, 'filter', run)));
      this.#runs.push(run);
    }
    const { rows: blocks } = await pool.query<{ claimed_at: Date; keys: Buffer }>(
      'SELECT claimed_at, keys FROM dedupe_blocks WHERE shard = $1 ORDER BY block',
      [this.#shard],
    );
    for (const { claimed_at: at, keys } of blocks) this.#remember(keys, keys.length / KEY_BYTES, at.getTime());
  }

  async #read(pool: Pool, column: 'prints' | 'filter', { run }: Run): Promise<Buffer> {
    const { rows } = await pool.query<{ bytes: Buffer }>(
      `SELECT ${column} AS bytes FROM dedupe_runs WHERE shard = $1 AND run = $2`,
      [this.#shard, run],
    );
    if (rows[0] === undefined) throw new Error(`run ${run} of shard ${this.#shard} has gone`);
    return rows[0].bytes;
  }

  async claim(database: Pool | ClientBase, keys: Buffer, count: number): Promise<Uint8Array> {
    const fresh = new Uint8Array(count);
    const batch = this.#batch;
    batch.clear();
    const places = new Int32Array(count);
    let size = 0;
    for (let i = 0; i < count; i++) {
      const a = wordAt(keys, i, 0);
      const b = wordAt(keys, i, 1);
      const c = wordAt(keys, i, 2);
      const d = wordAt(keys, i, 3);
      if (this.#recent.has(a, b, c, d) || !batch.add(a, b, c, d)) continue;
      fresh[i] = 1;
      places[size++] = i;
    }
    // Index by index, not key by key: the reads of one are near each other, and do not wait for each other.
    const probe = probeOf(keys, places.subarray(0, size));
    const candidates: Candidate[] = [];
    const ask = (at: number, run: Run) => candidates.push({ key: probe.places[at] as number, run });
    const coarse = forIndexes(probe);
    for (const index of this.#indexes) index.mayHave(coarse, ask);
    for (const run of this.#runs)
      if (run.index === null) for (const at of run.filter?.mayHave(probe) ?? probe.places.keys()) ask(at, run);
    this.#lookups += candidates.length;
    for (const key of await findClaimed(database, this.#shard, keys, candidates)) fresh[key] = 0;
    return fresh;
  }

  add(keys: Buffer, count: number): void {
    this.#remember(keys, count, this.#options.now());
  }

  #remember(keys: Buffer, count: number, at: number): void {
    if (count === 0) return;
    for (let i = 0; i < count; i++)
      this.#recent.add(wordAt(keys, i, 0), wordAt(keys, i, 1), wordAt(keys, i, 2), wordAt(keys, i, 3));
    this.#oldest = Math.min(this.#oldest, at);
    this.#newest = Math.max(this.#newest, at);
  }

  async persist(client: ClientBase, block: number, keys: Buffer): Promise<void> {
    if (keys.length === 0) return;
    await client.query({
      name: 'append_block',
      text: 'INSERT INTO dedupe_blocks (shard, block, claimed_at, keys) VALUES ($1, $2, $3, $4)',
      values: [this.#shard, block, new Date(this.#options.now()), keys],
    });
  }

  needsMaintenance(): boolean {
    return (
      this.#isFull() ||
      this.#garbage.length > 0 ||
      this.#merge !== undefined ||
      this.#expired().length > 0 ||
      this.#mergeable() !== undefined
    );
  }

  #isFull(): boolean {
    const { size } = this.#recent;
    return size >= this.#options.sealKeys || (size > 0 && this.#options.now() - this.#oldest > SEAL_AFTER_MS);
  }

  #expired(): Run[] {
    const before = this.#options.now() - this.#options.windowMs;
    return this.#runs.filter((run) => run.newest < before && !this.#merge?.from.includes(run));
  }

  /** The oldest runs of the lowest level that has enough of them. */
  #mergeable(): Run[] | undefined {
    const byLevel = Map.groupBy(
      this.#runs.filter((run) => run.index === null),
      (run) => run.level,
    );
    for (const level of [...byLevel.keys()].sort((a, b) => a - b)) {
      const runs = (byLevel.get(level) ?? []).slice(0, this.#options.fanout);
      if (runs.length < this.#options.fanout) continue;
      const span = Math.max(...runs.map((run) => run.newest)) - Math.min(...runs.map((run) => run.oldest));
      if (span <= MOST_SPAN_MS) return runs;
    }
    return undefined;
  }

  async maintain(client: ClientBase, fence: () => Promise<void>, budgetMs: number): Promise<void> {
    const deadline = performance.now() + budgetMs;
    if (this.#isFull()) await this.#inTransaction(client, fence, () => this.#seal(client));
    do {
      const next = this.#nextStep(client);
      if (next === undefined) return;
      await this.#inTransaction(client, fence, next);
    } while (performance.now() < deadline);
  }

  /** The next short transaction of upkeep, if there is any. */
  #nextStep(client: ClientBase): (() => Promise<() => void>) | undefined {
    const expired = this.#expired();
    if (expired.length > 0) return () => this.#discard(client, expired);
    const merge = this.#merge;
    if (merge !== undefined)
      return isMerged(merge) ? () => this.#publish(client, merge) : () => mergeSlice(client, this.#shard, merge);
    const runs = this.#mergeable();
    if (runs !== undefined) return () => this.#begin(client, runs);
    const garbage = this.#garbage[0];
    if (garbage !== undefined) return () => this.#sweep(client, garbage);
    return undefined;
  }

  /** Memory changes only when the transaction has committed; a failure leaves both as they were. */
  async #inTransaction(client: ClientBase, fence: () => Promise<void>, work: () => Promise<() => void>): Promise<void> {
    await client.query('BEGIN');
    await fence();
    const apply = await work();
    await client.query('COMMIT');
    apply();
  }

  async #seal(client: ClientBase): Promise<() => void> {
    const { words, size: keys } = this.#recent;
    const run: Run = {
      run: this.#nextRun++,
      level: 0,
      keys,
      pages: pagesFor(keys),
      oldest: this.#oldest,
      newest: this.#newest,
      filter: null,
      index: null,
    };
    const prints = printsOf(words, keys);
    await writePages(client, this.#shard, run.run, run.pages, packByPage(words, run.pages));
    await insertRun(client, this.#shard, run, prints);
    await client.query('DELETE FROM dedupe_blocks WHERE shard = $1', [this.#shard]);
    return () => {
      const index = this.#indexFor(keys, keys);
      if (index !== undefined) this.#index(run, index, prints);
      this.#runs.push(run);
      this.#recent.clear();
      this.#oldest = Number.POSITIVE_INFINITY;
      this.#newest = Number.NEGATIVE_INFINITY;
    };
  }

  async #begin(client: ClientBase, runs: Run[]): Promise<() => void> {
    const merge = await beginMerge(client, this.#shard, runs, this.#nextRun++, this.#options.sliceKeys);
    return () => {
      this.#merge = merge;
    };
  }

  async #publish(client: ClientBase, merge: Merge): Promise<() => void> {
    await publishMerge(client, this.#shard, merge);
    return () => {
      this.#merge = undefined;
      this.#forget(merge.from);
      this.#cache(merge.into, merge.filter);
      this.#runs.push(merge.into);
    };
  }

  async #discard(client: ClientBase, runs: readonly Run[]): Promise<() => void> {
    await discardRuns(client, this.#shard, runs);
    return () => this.#forget(runs);
  }

  async #sweep(client: ClientBase, garbage: Garbage): Promise<() => void> {
    const apply = await sweepSlice(client, this.#shard, garbage, this.#options.sliceKeys);
    return () => {
      if (apply()) this.#garbage.shift();
    };
  }

  #forget(runs: readonly Run[]): void {
    for (const run of runs) {
      this.#uncache(run);
      this.#garbage.push({ run: run.run, pages: run.pages, page: 0 });
    }
    this.#runs = this.#runs.filter((run) => !runs.includes(run));
  }

  #mayCache(bytes: number): boolean {
    return this.#options.budget.used + bytes <= this.#options.budget.bytes;
  }

  /**
   * The index that takes a run of so many keys: the last one, or a new one as large as all that there are, so that
   * they stay few. Undefined where memory does not allow it.
   * @param expected keys that are known to come to it
   */
  #indexFor(keys: number, expected: number): RunIndex<Run> | undefined {
    const last = this.#indexes.at(-1);
    if (last?.hasRoom(keys)) return last;
    const { budget, sealKeys } = this.#options;
    const indexed = this.#indexes.reduce((sum, index) => sum + index.capacity, 0);
    let capacity = Math.max(keys, Math.min(MOST_INDEXED, Math.max(expected, indexed, sealKeys * LEAST_RUNS)));
    // As much as there is room for.
    while (capacity > keys && !this.#mayCache(RunIndex.bytesFor(capacity)))
      capacity = Math.max(keys, Math.floor(capacity / 2));
    if (!this.#mayCache(RunIndex.bytesFor(capacity))) return undefined;
    const index = new RunIndex<Run>(capacity);
    budget.used += index.byteLength;
    this.#indexes.push(index);
    return index;
  }

  #index(run: Run, index: RunIndex<Run>, prints: Buffer): void {
    index.add(run, prints);
    run.index = index;
  }

  #cache(run: Run, filter: BlockFilter): void {
    if (!this.#mayCache(filter.byteLength)) return;
    run.filter = filter;
    this.#options.budget.used += filter.byteLength;
  }

  #uncache(run: Run): void {
    const { filter, index } = run;
    if (filter !== null) this.#options.budget.used -= filter.byteLength;
    index?.forget(run);
    if (index?.isEmpty) {
      this.#options.budget.used -= index.byteLength;
      this.#indexes = this.#indexes.filter((other) => other !== index);
    }
    run.filter = null;
    run.index = null;
  }

  stats(): ClaimStats {
    return {
      recent: this.#recent.size,
      runs: this.#runs.length,
      sealed: this.#runs.reduce((sum, run) => sum + run.keys, 0),
      filterBytes: [...this.#indexes, ...this.#runs.map((run) => run.filter)].reduce(
        (sum, filter) => sum + (filter?.byteLength ?? 0),
        0,
      ),
      lookups: this.#lookups,
    };
  }

  close(): void {
    for (const run of this.#runs) this.#uncache(run);
  }
}
