import type { ClientBase } from 'pg';
import type { BlockFilter } from './block-filter.ts';
import { wordAt } from './key-table.ts';
import { KEY_BYTES } from './port.ts';
import { pageOf, type Run, writePages } from './runs.ts';

/** Keys of the merged run that are handled at a time: bounds memory to a few MB whatever the size of the runs. */
const KEYS_AT_A_TIME = 1 << 17;
const TWO_32 = 4_294_967_296;

const READ_RANGE = `
  SELECT p.keys FROM unnest($2::bigint[], $3::int[], $4::int[]) AS r(run, first, last)
  JOIN dedupe_pages AS p ON p.shard = $1 AND p.run = r.run AND p.page BETWEEN r.first AND r.last`;

/** Reads old runs slice by slice of the key space and writes the merged run's pages; fills its filter. */
export async function mergeRuns(
  client: ClientBase,
  shard: number,
  runs: readonly Run[],
  merged: Run,
  filter: BlockFilter,
): Promise<void> {
  const slices = Math.max(1, Math.ceil(merged.keys / KEYS_AT_A_TIME));
  for (let slice = 0; slice < slices; slice++) {
    const firstPage = Math.floor((merged.pages * slice) / slices);
    const lastPage = Math.floor((merged.pages * (slice + 1)) / slices) - 1;
    if (lastPage < firstPage) continue;
    // The slice's key space, in leading words; old pages at its edges overlap and are cut below.
    const low = Math.floor((firstPage / merged.pages) * TWO_32);
    const high = Math.min(TWO_32 - 1, Math.ceil(((lastPage + 1) / merged.pages) * TWO_32));
    const { rows } = await client.query<{ keys: Buffer }>(READ_RANGE, [
      shard,
      runs.map((run) => run.run),
      runs.map((run) => Math.max(0, pageOf(low, run.pages) - 1)),
      runs.map((run) => Math.min(run.pages - 1, pageOf(high, run.pages) + 1)),
    ]);
    const keys: Buffer[] = [];
    for (const { keys: page } of rows) {
      for (let i = 0; i < page.length / KEY_BYTES; i++) {
        const target = pageOf(wordAt(page, i, 0), merged.pages);
        if (target < firstPage || target > lastPage) continue;
        keys.push(page.subarray(i * KEY_BYTES, (i + 1) * KEY_BYTES));
        filter.add(wordAt(page, i, 2), wordAt(page, i, 3));
      }
    }
    keys.sort(Buffer.compare);
    await writePages(client, shard, merged.run, merged.pages, Buffer.concat(keys));
  }
}
