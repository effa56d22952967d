import type { ClientBase, Pool } from 'pg';
import { BinaryCopy, copyInto } from '../../sinks/index.ts';
import type { BlockFilter } from './block-filter.ts';
import { wordAt } from './key-table.ts';
import { KEY_BYTES } from './port.ts';

/** Keys of an average page: 1.8 KB, so that the fullest one (uniform hashes: a Poisson tail) stays far below 8 KB. */
const KEYS_PER_PAGE = 112;
const TWO_32 = 4_294_967_296;

/** A sealed, sorted, immutable set of keys in the database. */
export interface Run {
  run: number;
  level: number;
  keys: number;
  pages: number;
  /** claim times of its first and last key, Unix ms */
  oldest: number;
  newest: number;
  /** null where memory does not allow it: every key is then looked up */
  filter: BlockFilter | null;
}

export const pagesFor = (keys: number): number => Math.max(1, Math.ceil(keys / KEYS_PER_PAGE));

/** The page of a key in a run of so many pages. @param high leading word of the key */
export function pageOf(high: number, pages: number): number {
  return Math.floor(((high >>> 0) / TWO_32) * pages);
}

const PAGES = 'COPY dedupe_pages (shard, run, page, keys) FROM STDIN (FORMAT binary)';
const LOOK_UP = `
  SELECT p.run::float8 AS run, p.page, p.keys
  FROM (SELECT DISTINCT run, page FROM unnest($2::bigint[], $3::int[]) AS u(run, page)) AS k
  JOIN dedupe_pages AS p ON p.shard = $1 AND p.run = k.run AND p.page = k.page`;

/** Writes sorted keys as pages of a run that has `pages` pages in all. Only whole pages: the keys of a page come together. */
export async function writePages(
  client: ClientBase,
  shard: number,
  run: number,
  pages: number,
  sorted: Buffer,
): Promise<void> {
  const copy = new BinaryCopy(sorted.length + 4096);
  const count = sorted.length / KEY_BYTES;
  let from = 0;
  while (from < count) {
    const page = pageOf(wordAt(sorted, from, 0), pages);
    let to = from + 1;
    while (to < count && pageOf(wordAt(sorted, to, 0), pages) === page) to++;
    copy.row(4);
    copy.int4(shard);
    copy.int8(run);
    copy.int4(page);
    copy.range(sorted, from * KEY_BYTES, to * KEY_BYTES);
    from = to;
  }
  if (copy.rows > 0) await copyInto(client, PAGES, copy.finish());
}

/** @param garbage not to be asked yet */
export async function insertRun(
  client: ClientBase,
  shard: number,
  run: Run,
  filter: Buffer,
  garbage: boolean,
): Promise<void> {
  await client.query(
    'INSERT INTO dedupe_runs (shard, run, level, keys, pages, oldest, newest, filter, garbage) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)',
    [shard, run.run, run.level, run.keys, run.pages, new Date(run.oldest), new Date(run.newest), filter, garbage],
  );
}

/** One question: is key `key` (index into packed keys) in run `run`? */
export interface Candidate {
  key: number;
  run: Run;
}

/** Asks the database about all candidates at once. @returns indexes of keys that are in their run */
export async function findClaimed(
  database: Pool | ClientBase,
  shard: number,
  keys: Buffer,
  candidates: readonly Candidate[],
): Promise<Set<number>> {
  const claimed = new Set<number>();
  if (candidates.length === 0) return claimed;
  const pages = candidates.map(({ key, run }) => pageOf(wordAt(keys, key, 0), run.pages));
  const { rows } = await (database as Pool).query<{ run: number; page: number; keys: Buffer }>({
    name: 'dedupe_look_up',
    text: LOOK_UP,
    values: [shard, candidates.map(({ run }) => run.run), pages],
  });
  const found = new Map(rows.map((row) => [`${row.run}/${row.page}`, row.keys]));
  candidates.forEach(({ key, run }, i) => {
    const page = found.get(`${run.run}/${pages[i]}`);
    if (page !== undefined && holds(page, keys, key)) claimed.add(key);
  });
  return claimed;
}

/** Binary search of a sorted page. */
function holds(page: Buffer, keys: Buffer, key: number): boolean {
  let low = 0;
  let high = page.length / KEY_BYTES - 1;
  const at = key * KEY_BYTES;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const order = page.compare(keys, at, at + KEY_BYTES, middle * KEY_BYTES, middle * KEY_BYTES + KEY_BYTES);
    if (order === 0) return true;
    if (order < 0) low = middle + 1;
    else high = middle - 1;
  }
  return false;
}
