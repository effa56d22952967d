import type { Pool, PoolClient } from 'pg';
import { claimKeyOf, type RawEventRow, VOID_TYPE, VOIDED } from '../../schemas/index.ts';
import { archivedDays, type DayRow } from '../archive/day-state.ts';
import { HOT_DATA } from '../archive/row-sql.ts';
import { dayOf } from '../layout.ts';
import type { ArchivedEvent, ArchiveReader } from './reader.ts';

/** Rows fetched at once. */
const PAGE = 2_000;

/** [from, to) in Unix ms; `positions`: only records below them, by shard. */
export interface RawEventQuery {
  tenantId: string;
  from: number;
  to: number;
  positions: readonly { shard: number; next: number }[];
}

// What is archived already may still stand in the database, in a chunk that a late event brought back.
const DECLARE = `
  DECLARE raw NO SCROLL CURSOR FOR
  SELECT (extract(epoch FROM e."timestamp") * 1000)::float8 AS timestamp, e.key::text AS key, e.shard, e.log_offset::float8 AS log_offset,
    e.tenant_id, e.type, e.user_id, e.request_id, ${HOT_DATA} AS data
  FROM events AS e JOIN unnest($4::int[], $5::bigint[]) AS p(shard, next) ON e.shard = p.shard AND e.log_offset < p.next
  LEFT JOIN archive_positions AS a ON a.shard = e.shard AND a.day = (e."timestamp" AT TIME ZONE 'UTC')::date
  WHERE e.tenant_id = $1 AND e."timestamp" >= $2 AND e."timestamp" < $3 AND (a.next IS NULL OR e.log_offset >= a.next)
    AND e.type <> '${VOID_TYPE}'
    AND NOT EXISTS (SELECT FROM withdrawals AS w WHERE w.shard = e.shard AND w.key = e.key AND w.log_offset < p.next)`;
/** What was voided or replaced below the positions counts no more; a later withdrawal changes nothing here. */
const WITHDRAWN = `
  SELECT w.shard, w.key::text AS key FROM withdrawals AS w
  JOIN unnest($2::int[], $3::bigint[]) AS p(shard, next) ON w.shard = p.shard AND w.log_offset < p.next
  WHERE w.tenant_id = $1`;

/**
 * A tenant's raw events that count, each once, in any order, from the database and the archive. The cursor's lock on the table keeps
 * days from moving while it is open, so that a day is read in one place.
 * @throws TidemarkError `archive_frozen` | {ObjectStoreUnavailable}
 */
export async function* readRawEvents(
  pool: Pool,
  reader: ArchiveReader,
  query: RawEventQuery,
): AsyncIterable<RawEventRow[]> {
  const { tenantId, from, to, positions } = query;
  const client = await pool.connect();
  let broken: Error | undefined;
  let days: DayRow[] = [];
  try {
    await client.query('BEGIN READ ONLY');
    await client.query(DECLARE, [
      tenantId,
      new Date(from).toISOString(),
      new Date(to).toISOString(),
      positions.map((one) => one.shard),
      positions.map((one) => one.next),
    ]);
    yield* pagesOf(client);
    days = await archivedDays(client, dayOf(from), dayOf(to - 1));
  } finally {
    await client.query('ROLLBACK').catch((error: Error) => {
      broken = error;
    });
    client.release(broken);
  }
  if (days.length === 0) return;
  const below = new Map(positions.map(({ shard, next }) => [shard, next]));
  const { rows: gone } = await pool.query<{ shard: number; key: string }>(WITHDRAWN, [
    tenantId,
    positions.map((one) => one.shard),
    positions.map((one) => one.next),
  ]);
  const withdrawn = new Set(gone.map(({ shard, key }) => `${shard} ${key}`));
  for await (const rows of reader.scan({ tenantIds: [tenantId], from, to }, days))
    yield rows
      .filter((row) => row.log_offset < (below.get(row.shard) ?? 0) && row.type !== VOID_TYPE)
      .map(toRaw)
      .filter((row) => !withdrawn.has(`${row.shard} ${row.key}`));
}

async function* pagesOf(client: PoolClient): AsyncIterable<RawEventRow[]> {
  for (;;) {
    const { rows } = await client.query<RawEventRow>(`FETCH ${PAGE} FROM raw`);
    if (rows.length > 0) yield rows;
    if (rows.length < PAGE) return;
  }
}

export const toRaw = (row: ArchivedEvent): RawEventRow => ({
  timestamp: row.at,
  key: keyOfArchived(row),
  shard: row.shard,
  log_offset: row.log_offset,
  tenant_id: row.tenant_id,
  type: row.type,
  user_id: row.user_id,
  request_id: row.request_id,
  data: row.data,
});

/** What the processors claimed an archived event by; a void by the key of the event that it voids. */
export const keyOfArchived = (event: ArchivedEvent): string =>
  claimKeyOf({
    tenant: event.customer_id,
    source: event.source,
    keyedBySource: event.keyed_by_source,
    key: event.type === VOID_TYPE ? `${event.idempotency_key}${VOIDED}` : event.idempotency_key,
  });
