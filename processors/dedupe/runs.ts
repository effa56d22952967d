import type { ClientBase, Pool } from 'pg';
import { BinaryCopy, copyInto } from '../../sinks/index.ts';
import type { BlockFilter } from './block-filter.ts';
import { wordAt } from './key-table.ts';
import { KEY_BYTES } from './port.ts';
import type { RunIndex } from './run-index.ts';

/** Keys of an average page: 1.8 KB, so that the fullest one (uniform hashes: a Poisson tail) stays far below 8 KB. */
const KEYS_PER_PAGE = 112;
const TWO_32 = 4_294_967_296;

/** A sealed, immutable set of keys in the database; its pages are in order of keys, a page's keys are not. */
export interface Run {
  run: number;
  level: number;
  keys: number;
  pages: number;
  /** claim times of its first and last key, Unix ms */
  oldest: number;
  newest: number;
  /** Where neither is in memory, for want of it, every key is looked up. A merged run has a filter, others stand in an index. */
  filter: BlockFilter | null;
  index: RunIndex<Run> | null;
}

export const pagesFor = (keys: number): number => Math.max(1, Math.ceil(keys / KEYS_PER_PAGE));

/** The page of a key in a run of so many pages. @param high leading word of the key */
export function pageOf(high: number, pages: number): number {
  return Math.floor(((high >>> 0) / TWO_32) * pages);
}

const PAGES = 'COPY dedupe_pages (shard, run, page, keys) FROM STDIN (FORMAT binary)';
/**
 * Pages are searched where they are: a page would be a hundred times the answer. `position` finds the first place of
 * the sixteen bytes; one between two keys is hardly ever seen, and is no answer: then the keys are compared one by one.
 */
const LOOK_UP = `
  SELECT string_agg(asked::text, ',') AS found
  FROM (
    SELECT asked, key, keys, position(key IN keys) AS at
    FROM (
      SELECT asked::int - 1 AS asked, run, page, substr($4::bytea, (asked::int - 1) * ${KEY_BYTES} + 1, ${KEY_BYTES}) AS key
      FROM unnest($2::bigint[], $3::int[]) WITH ORDINALITY AS u(run, page, asked)
    ) AS q
    JOIN dedupe_pages AS p ON p.shard = $1 AND p.run = q.run AND p.page = q.page
    OFFSET 0
  ) AS found
  WHERE at > 0 AND (at % ${KEY_BYTES} = 1 OR EXISTS (
    SELECT FROM generate_series(1, length(keys), ${KEY_BYTES}) AS s(start) WHERE substr(keys, start, ${KEY_BYTES}) = key
  ))`;

/** Packs keys by ascending pages: a page is searched whole, so its keys need no order. @param words four words a key */
export function packByPage(words: Int32Array, pages: number): Buffer {
  const count = words.length / 4;
  const ends = new Int32Array(pages + 1);
  for (let i = 0; i < count; i++) {
    const next = pageOf(words[i * 4] as number, pages) + 1;
    ends[next] = (ends[next] as number) + 1;
  }
  for (let page = 1; page <= pages; page++) ends[page] = (ends[page] as number) + (ends[page - 1] as number);
  const packed = new Int32Array(count * 4);
  for (let i = 0; i < count; i++) {
    const page = pageOf(words[i * 4] as number, pages);
    const at = ends[page] as number;
    ends[page] = at + 1;
    for (let w = 0; w < 4; w++) packed[at * 4 + w] = words[i * 4 + w] as number;
  }
  // Typed arrays are little-endian here, keys are not.
  return Buffer.from(packed.buffer).swap32();
}

/** Writes keys in order of their pages, of which the run has `pages` in all. Only whole pages: the keys of a page come together. */
export async function writePages(
  client: ClientBase,
  shard: number,
  run: number,
  pages: number,
  packed: Buffer,
): Promise<void> {
  const copy = new BinaryCopy(packed.length + 4096);
  const count = packed.length / KEY_BYTES;
  let from = 0;
  while (from < count) {
    const page = pageOf(wordAt(packed, from, 0), pages);
    let to = from + 1;
    while (to < count && pageOf(wordAt(packed, to, 0), pages) === page) to++;
    copy.row(4);
    copy.int4(shard);
    copy.int8(run);
    copy.int4(page);
    copy.range(packed, from * KEY_BYTES, to * KEY_BYTES);
    from = to;
  }
  if (copy.rows > 0) await copyInto(client, PAGES, copy.finish());
}

/** @param prints null: a run yet to be merged, not to be asked before it is published with its filter */
export async function insertRun(client: ClientBase, shard: number, run: Run, prints: Buffer | null): Promise<void> {
  const { oldest, newest } = run;
  await client.query(
    'INSERT INTO dedupe_runs (shard, run, level, keys, pages, oldest, newest, prints, garbage) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)',
    [shard, run.run, run.level, run.keys, run.pages, new Date(oldest), new Date(newest), prints, prints === null],
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
): Promise<number[]> {
  if (candidates.length === 0) return [];
  const asked = Buffer.allocUnsafe(candidates.length * KEY_BYTES);
  candidates.forEach(({ key }, i) => {
    keys.copy(asked, i * KEY_BYTES, key * KEY_BYTES, (key + 1) * KEY_BYTES);
  });
  const { rows } = await (database as Pool).query<{ found: string | null }>({
    name: 'dedupe_look_up',
    text: LOOK_UP,
    values: [
      shard,
      // As text, and answered as text: pg takes longer over arrays and rows of numbers than PostgreSQL over the look-up.
      `{${candidates.map(({ run }) => run.run).join()}}`,
      `{${candidates.map(({ key, run }) => pageOf(wordAt(keys, key, 0), run.pages)).join()}}`,
      asked,
    ],
  });
  const found = rows[0]?.found ?? null;
  return found === null ? [] : found.split(',').flatMap((asked) => candidates[Number(asked)]?.key ?? []);
}
