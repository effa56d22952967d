/**
 * The claimed keys of a shard as a log-structured set. Every batch appends a block of keys, held exactly in memory
 * until they are sealed into a sorted run; runs of one level are merged into the next. A new key costs a probe of a
 * few filters; only keys that a filter may have are looked up. Cost stays flat as the set grows.
 */
import type { ClientBase, Pool } from 'pg';
import { BlockFilter, probeOf } from './block-filter.ts';
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
import { type Candidate, findClaimed, insertRun, pagesFor, type Run, writePages } from './runs.ts';

/** Memory for filters, shared by all shards of a process. */
export interface FilterBudget {
  readonly bytes: number;
  used: number;
}
export const openFilterBudget = (bytes: number): FilterBudget => ({ bytes, used: 0 });

export interface KeySetOptions {
  /** recent keys in memory that are sealed together */
  sealKeys: number;
  /** runs of one level that are merged into one of the next */
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

/** Opens the set of a shard: recent keys and filters come into memory. */
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
    }>(
      'SELECT run::float8 AS run, level, keys::float8 AS keys, pages, oldest, newest, garbage FROM dedupe_runs WHERE shard = $1 ORDER BY run',
      [this.#shard],
    );
    for (const { garbage, ...row } of runs) {
      const run: Run = { ...row, oldest: row.oldest.getTime(), newest: row.newest.getTime(), filter: null };
      this.#nextRun = Math.max(this.#nextRun, run.run + 1);
      // Also a merge that was cut off: it begins anew.
      if (garbage) {
        this.#garbage.push({ run: run.run, pages: run.pages, page: 0 });
        continue;
      }
      if (this.#mayCache(row.keys)) {
        const { rows } = await pool.query<{ filter: Buffer }>(
          'SELECT filter FROM dedupe_runs WHERE shard = $1 AND run = $2',
          [this.#shard, run.run],
        );
        if (rows[0] !== undefined) this.#cache(run, BlockFilter.fromBytes(rows[0].filter));
      }
      this.#runs.push(run);
    }
    const { rows: blocks } = await pool.query<{ claimed_at: Date; keys: Buffer }>(
      'SELECT claimed_at, keys FROM dedupe_blocks WHERE shard = $1 ORDER BY block',
      [this.#shard],
    );
    for (const { claimed_at: at, keys } of blocks) this.#remember(keys, keys.length / KEY_BYTES, at.getTime());
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
    // Run by run, not key by key: the reads of one filter are near each other, and do not wait for each other.
    const probe = probeOf(keys, places.subarray(0, size));
    const candidates: Candidate[] = [];
    for (const run of this.#runs)
      for (const at of run.filter?.mayHave(probe) ?? probe.places.keys())
        candidates.push({ key: probe.places[at] as number, run });
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
    const byLevel = Map.groupBy(this.#runs, (run) => run.level);
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
    const sorted = this.#recent.sorted();
    const keys = sorted.length / KEY_BYTES;
    const run: Run = {
      run: this.#nextRun++,
      level: 0,
      keys,
      pages: pagesFor(keys),
      oldest: this.#oldest,
      newest: this.#newest,
      filter: null,
    };
    const filter = BlockFilter.forKeys(keys);
    for (let i = 0; i < keys; i++) filter.add(wordAt(sorted, i, 2), wordAt(sorted, i, 3));
    await writePages(client, this.#shard, run.run, run.pages, sorted);
    await insertRun(client, this.#shard, run, filter.bytes(), false);
    await client.query('DELETE FROM dedupe_blocks WHERE shard = $1', [this.#shard]);
    return () => {
      this.#cache(run, filter);
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

  #mayCache(keys: number): boolean {
    return this.#options.budget.used + BlockFilter.bytesFor(keys) <= this.#options.budget.bytes;
  }

  #cache(run: Run, filter: BlockFilter): void {
    if (this.#options.budget.used + filter.byteLength > this.#options.budget.bytes) return;
    run.filter = filter;
    this.#options.budget.used += filter.byteLength;
  }

  #uncache(run: Run): void {
    if (run.filter !== null) this.#options.budget.used -= run.filter.byteLength;
    run.filter = null;
  }

  stats(): ClaimStats {
    return {
      recent: this.#recent.size,
      runs: this.#runs.length,
      sealed: this.#runs.reduce((sum, run) => sum + run.keys, 0),
      filterBytes: this.#runs.reduce((sum, run) => sum + (run.filter?.byteLength ?? 0), 0),
      lookups: this.#lookups,
    };
  }

  close(): void {
    for (const run of this.#runs) this.#uncache(run);
  }
}
