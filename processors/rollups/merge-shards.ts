/**
 * Coarse rows that don't tell tenants apart, added up over all shards, so that a question about everybody reads one row
 * instead of one a shard. They hold what the shards' coarse rows hold, whichever shards have some: a reader adds the
 * hours that a shard has none for, and takes the shards' own where one of these is stale (`query-api/meters/plan.ts`).
 *
 * Exact at every commit, under READ COMMITTED: making a shard's coarse rows lists their hours in `unmerged_hours`, or
 * raises the version of those listed, in the same transaction (`foldCoarse`). A merge reads the list with its versions,
 * then the rows, writes, and takes off the list what has the same version still, under a lock of these rows. A fold that
 * committed before the list was read is in the rows; one that commits until the rows of the list are locked has changed
 * their version; one that comes later waits for the merge to commit, and lists the hour anew. So an hour that is not
 * listed has merged rows of its newest coarse rows; that of a listed one nobody reads.
 */
import type { ClientBase, Pool } from 'pg';
import { ALL_SHARDS, LEVEL, LEVELS, NIL_UUID, SketchSums } from '../../metering/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import { CoarseWriter, type RowTexts, Total, VALUE_TEXTS, valuesOf } from './coarse-rows.ts';
import { DAY } from './rollups.ts';

const LOCK = `SELECT FROM control_locks WHERE name = 'merge_shards' FOR UPDATE SKIP LOCKED`;
/** The newest first: they are asked for most. */
const LISTED = `
  SELECT (extract(epoch FROM hour) * 1000)::float8 AS hour, version::text AS version FROM unmerged_hours
  WHERE hour >= (SELECT date_bin('1 day', max(hour), 'epoch') FROM unmerged_hours)`;
/** A version that was just replaced may still be asked for; before its rows are removed (`backfill/retire.ts`), none are made. */
const METERS = `
  SELECT id FROM meter_versions WHERE state IN ('serving', 'next')
    OR (state = 'retired' AND coalesce(retired_at, created_at) > now() - interval '5 minutes')`;

const OF_ALL_TENANTS = LEVELS.filter((level) => !(level & LEVEL.byTenant));
/** Of the meters, the levels and a day: its own rows, and those of some of its hours. The primary key finds them. */
const where = (
  levels: readonly number[],
) => `r.meter_id = ANY ($1::int[]) AND r.level IN (${levels.join(', ')}) AND r.tenant_id = '${NIL_UUID}'
    AND r.bucket >= $2 AND r.bucket < $3 AND (r.level & ${LEVEL.byDay} <> 0 OR r.bucket = ANY ($4::timestamptz[]))`;
const SHARD_ROWS = `
  DECLARE shard_rows NO SCROLL CURSOR FOR
  SELECT r.meter_id, r.level, (extract(epoch FROM r.bucket) * 1000)::float8 AS bucket, r.group_key, r.sketch,
    ${VALUE_TEXTS}
  FROM rollups_coarse AS r WHERE ${where(OF_ALL_TENANTS)}
  ORDER BY r.meter_id, r.level, r.bucket, r.group_key`;
/** As many as the processors' thread adds up within some milliseconds. */
const FETCH = 500;
const FORGET = `DELETE FROM rollups_coarse AS r WHERE ${where(OF_ALL_TENANTS.map((level) => level + LEVEL.merged))}`;
const STILL_LISTED = `
  SELECT (extract(epoch FROM hour) * 1000)::float8 AS hour, version::text AS version FROM unmerged_hours
  WHERE hour = ANY ($1::timestamptz[]) ORDER BY hour FOR UPDATE`;
const UNLIST = 'DELETE FROM unmerged_hours WHERE hour = ANY ($1::timestamptz[])';

interface Listed {
  hour: number;
  version: string;
}

/**
 * Merges the listed hours of one day, in a transaction of its own.
 * @param builtin ids of meters that the database does not list
 * @returns whether there was anything to do; false also where another process is at it
 */
export function mergeShards(
  pool: Pool,
  builtin: readonly number[],
  fault?: () => void | Promise<void>,
): Promise<boolean> {
  return withTransaction(pool, async (client) => {
    const { rowCount } = await client.query(LOCK);
    if (rowCount === 0) return false;
    const { rows: listed } = await client.query<Listed>(LISTED);
    const first = listed[0];
    if (first === undefined) return false;
    // After the list: whoever listed an hour knew these meters.
    const { rows: meters } = await client.query<{ id: number }>(METERS);
    const ids = [...builtin, ...meters.map(({ id }) => id)];
    const day = Math.floor(first.hour / DAY) * DAY;
    await mergeDay(client, [ids, iso(day), iso(day + DAY), listed.map(({ hour }) => iso(hour))]);
    await fault?.();
    const versions = new Map(listed.map(({ hour, version }) => [hour, version]));
    const { rows: still } = await client.query<Listed>(STILL_LISTED, [listed.map(({ hour }) => iso(hour))]);
    const merged = still.filter(({ hour, version }) => versions.get(hour) === version);
    await client.query(UNLIST, [merged.map(({ hour }) => iso(hour))]);
    return true;
  });
}

interface ShardRow extends RowTexts {
  meter_id: number;
  level: number;
  bucket: number;
  group_key: string;
  sketch: string | null;
}

async function mergeDay(client: ClientBase, values: readonly unknown[]): Promise<void> {
  await client.query(SHARD_ROWS, [...values]);
  await client.query(FORGET, [...values]);
  const writer = new CoarseWriter(client);
  const sums = new SketchSums();
  let same: ShardRow[] = [];
  const write = () => {
    const [first] = same;
    if (first === undefined) return;
    const total = new Total();
    for (const row of same) total.add(valuesOf(row));
    writer.add(
      {
        shard: ALL_SHARDS,
        meterId: first.meter_id,
        level: first.level + LEVEL.merged,
        bucket: first.bucket,
        tenantId: NIL_UUID,
        groupKey: first.group_key,
      },
      total,
      mergedSketch(sums, same),
    );
    same = [];
  };
  for (let more = true; more; ) {
    const { rows } = await client.query<ShardRow>(`FETCH ${FETCH} FROM shard_rows`);
    more = rows.length === FETCH;
    for (const row of rows) {
      if (same[0] !== undefined && !isSame(same[0], row)) write();
      same.push(row);
    }
    if (!more) write();
    await writer.send(!more);
  }
  await client.query('CLOSE shard_rows');
}

const isSame = (a: ShardRow, b: ShardRow): boolean =>
  a.meter_id === b.meter_id && a.level === b.level && a.bucket === b.bucket && a.group_key === b.group_key;

function mergedSketch(sums: SketchSums, rows: readonly ShardRow[]): string | null {
  const texts = rows.flatMap(({ sketch }) => (sketch === null ? [] : [sketch]));
  if (texts.length <= 1) return texts[0] ?? null;
  sums.clear();
  for (const text of texts) sums.addText(text);
  return sums.toText();
}

const iso = (ms: number): string => new Date(ms).toISOString();
