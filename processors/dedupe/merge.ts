import type { ClientBase } from 'pg';
import { BlockFilter } from './block-filter.ts';
import { wordAt } from './key-table.ts';
import { KEY_BYTES } from './port.ts';
import { insertRun, packByPage, pageOf, pagesFor, type Run, writePages } from './runs.ts';

/** Keys that a sweep deletes with one page: pages are cheaper to delete than to merge. */
const KEYS_PER_SWEPT_PAGE = 16;
const TWO_32 = 4_294_967_296;

const READ_RANGE = `
  SELECT p.keys FROM unnest($2::bigint[], $3::int[], $4::int[]) AS r(run, first, last)
  JOIN dedupe_pages AS p ON p.shard = $1 AND p.run = r.run AND p.page BETWEEN r.first AND r.last`;
const PUBLISH = 'UPDATE dedupe_runs SET garbage = false, filter = $3 WHERE shard = $1 AND run = $2';
const DISCARD =
  'UPDATE dedupe_runs SET garbage = true, filter = NULL, prints = NULL WHERE shard = $1 AND run = ANY ($2::bigint[])';
const DELETE_PAGES = 'DELETE FROM dedupe_pages WHERE shard = $1 AND run = $2 AND page >= $3 AND page < $4';
const DELETE_RUN = 'DELETE FROM dedupe_runs WHERE shard = $1 AND run = $2';

/** A merge under way: slice by slice of the key space, so that the stream is never held up for long. */
export interface Merge {
  readonly from: readonly Run[];
  readonly into: Run;
  readonly filter: BlockFilter;
  /** keys of the merged run in one slice */
  readonly sliceKeys: number;
  /** first page of `into` that is not written yet */
  page: number;
}

/** A run whose pages are to be deleted. */
export interface Garbage {
  readonly run: number;
  readonly pages: number;
  /** first page that may still be there */
  page: number;
}

/** Begins a merge; until it is published, the new run is garbage to whoever opens the set. */
export async function beginMerge(
  client: ClientBase,
  shard: number,
  from: readonly Run[],
  run: number,
  sliceKeys: number,
): Promise<Merge> {
  const keys = from.reduce((sum, one) => sum + one.keys, 0);
  const into: Run = {
    run,
    level: Math.max(...from.map((one) => one.level)) + 1,
    keys,
    pages: pagesFor(keys),
    oldest: Math.min(...from.map((one) => one.oldest)),
    newest: Math.max(...from.map((one) => one.newest)),
    filter: null,
    index: null,
  };
  await insertRun(client, shard, into, null);
  return { from, into, filter: BlockFilter.forKeys(keys), sliceKeys, page: 0 };
}

export const isMerged = ({ page, into }: Merge): boolean => page >= into.pages;

/** Writes the next pages of the merged run, and fills its filter. @returns what to do when it is committed */
export async function mergeSlice(client: ClientBase, shard: number, merge: Merge): Promise<() => void> {
  const { from, into, filter, sliceKeys } = merge;
  const firstPage = merge.page;
  const lastPage = Math.min(into.pages, firstPage + Math.max(1, Math.floor((sliceKeys / into.keys) * into.pages))) - 1;
  // The slice's key space, in leading words; old pages at its edges overlap and are cut below.
  const low = Math.floor((firstPage / into.pages) * TWO_32);
  const high = Math.min(TWO_32 - 1, Math.ceil(((lastPage + 1) / into.pages) * TWO_32));
  const { rows } = await client.query<{ keys: Buffer }>({
    name: 'dedupe_read_range',
    text: READ_RANGE,
    values: [
      shard,
      from.map((run) => run.run),
      from.map((run) => Math.max(0, pageOf(low, run.pages) - 1)),
      from.map((run) => Math.min(run.pages - 1, pageOf(high, run.pages) + 1)),
    ],
  });
  const words = new Int32Array(rows.reduce((sum, row) => sum + row.keys.length, 0) / 4);
  let count = 0;
  for (const { keys: page } of rows)
    for (let i = 0; i < page.length / KEY_BYTES; i++) {
      const target = pageOf(wordAt(page, i, 0), into.pages);
      if (target < firstPage || target > lastPage) continue;
      for (let w = 0; w < 4; w++) words[count * 4 + w] = wordAt(page, i, w);
      filter.add(words[count * 4 + 2] as number, words[count * 4 + 3] as number);
      count++;
    }
  await writePages(client, shard, into.run, into.pages, packByPage(words.subarray(0, count * 4), into.pages));
  return () => {
    merge.page = lastPage + 1;
  };
}

/** Puts the merged run in the place of those that it came from. */
export async function publishMerge(client: ClientBase, shard: number, { from, into, filter }: Merge): Promise<void> {
  await client.query(PUBLISH, [shard, into.run, filter.bytes()]);
  await discardRuns(client, shard, from);
}

/** Makes runs garbage: they are asked nothing any more. */
export async function discardRuns(client: ClientBase, shard: number, runs: readonly Run[]): Promise<void> {
  await client.query(DISCARD, [shard, runs.map((run) => run.run)]);
}

/** Deletes some pages of a run that is garbage, at last the run. @returns what to do when it is committed; true: all is gone */
export async function sweepSlice(
  client: ClientBase,
  shard: number,
  garbage: Garbage,
  sliceKeys: number,
): Promise<() => boolean> {
  const to = garbage.page + Math.max(1, Math.floor(sliceKeys / KEYS_PER_SWEPT_PAGE));
  await client.query(DELETE_PAGES, [shard, garbage.run, garbage.page, to]);
  if (to >= garbage.pages) await client.query(DELETE_RUN, [shard, garbage.run]);
  return () => {
    garbage.page = to;
    return to >= garbage.pages;
  };
}
