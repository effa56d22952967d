import type { Pool, PoolClient } from 'pg';
import { ALL_SHARDS } from '../../metering/index.ts';
import type { RollupBounds, ShardBounds } from './plan.ts';
import type { Statement } from './statement.ts';

/** Rows fetched at a time: what a reader holds in memory, times two. */
const FETCH = 2_000;
/** A reader that takes longer over what it fetched loses its connection. */
const PATIENCE = '60s';

/** Every column as PostgreSQL sent it. */
const AS_SENT = { getTypeParser: () => (text: string) => text };
export type TextRow = readonly (string | null)[];

const BEGIN = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
  SET LOCAL cursor_tuple_fraction = 1; SET LOCAL idle_in_transaction_session_timeout = '${PATIENCE}';
  SELECT o.shard, CASE WHEN isfinite(o.folded_until) THEN extract(epoch FROM o.folded_until) * 1000 ELSE '-infinity' END AS folded,
    CASE WHEN isfinite(o.coarse_until) THEN extract(epoch FROM o.coarse_until) * 1000 ELSE '-infinity' END AS coarse,
    ARRAY(SELECT (extract(epoch FROM h.hour) * 1000)::int8 FROM stale_hours AS h WHERE h.shard = o.shard ORDER BY h.hour) AS stale
  FROM log_offsets AS o
  UNION ALL SELECT ${ALL_SHARDS}, '-infinity', '-infinity', ARRAY(SELECT (extract(epoch FROM hour) * 1000)::int8 FROM unmerged_hours ORDER BY hour)
  ORDER BY shard`;

/** One snapshot of the rollups: everything read in it belongs to the same commit. */
export interface Snapshot extends RollupBounds {
  all(statement: Statement): Promise<TextRow[]>;
  /** Rows in chunks, so that no answer has to fit into memory; one at a time. */
  chunks(statement: Statement): AsyncGenerator<TextRow[]>;
  /** Ends it; the connection goes back to the pool. Safe to call twice. */
  close(): Promise<void>;
}

/** Begins a snapshot. The caller must close it. */
export async function openSnapshot(pool: Pool): Promise<Snapshot> {
  const client = await pool.connect();
  let open = true;
  // A server that ends the connection between two statements must not end the process; the next statement fails.
  let lost: Error | undefined;
  const onLost = (error: Error) => {
    lost = error;
  };
  client.on('error', onLost);
  const close = async (broken?: Error) => {
    if (!open) return;
    open = false;
    try {
      if (broken === undefined && lost === undefined) await client.query('COMMIT');
    } catch (error) {
      broken = error instanceof Error ? error : new Error(String(error));
    }
    client.off('error', onLost);
    client.release(broken ?? lost);
  };
  try {
    const bounds = await boundsOf(client);
    return {
      shards: bounds.filter(({ shard }) => shard !== ALL_SHARDS),
      unmerged: bounds.find(({ shard }) => shard === ALL_SHARDS)?.stale ?? [],
      all: async ({ text, values }) => {
        const { rows } = await client.query<string[]>({ text, values, rowMode: 'array', types: AS_SENT });
        return rows;
      },
      chunks: (statement) => fetchChunks(client, statement),
      close: () => close(),
    };
  } catch (error) {
    await close(error instanceof Error ? error : new Error(String(error)));
    throw error;
  }
}

async function boundsOf(client: PoolClient): Promise<ShardBounds[]> {
  // Several statements in one message: the last one's rows.
  const results: unknown = await client.query({ text: BEGIN, rowMode: 'array', types: AS_SENT });
  const last: unknown = Array.isArray(results) ? results.at(-1) : results;
  const rows = (last as { rows: string[][] }).rows;
  return rows.map(([shard, folded, coarse, stale]) => ({
    shard: Number(shard),
    foldedUntil: timeOf(folded),
    coarseUntil: timeOf(coarse),
    stale: (stale ?? '{}').slice(1, -1).split(',').filter(Boolean).map(Number),
  }));
}

const timeOf = (text: string | undefined): number =>
  text === undefined || text === '-Infinity' ? Number.NEGATIVE_INFINITY : Number(text);

async function* fetchChunks(client: PoolClient, { text, values }: Statement): AsyncGenerator<TextRow[]> {
  const fetch = () => client.query<string[]>({ text: `FETCH ${FETCH} FROM answer`, rowMode: 'array', types: AS_SENT });
  await client.query(`DECLARE answer NO SCROLL CURSOR FOR ${text}`, values);
  let next = fetch();
  try {
    for (;;) {
      const { rows } = await next;
      // The database is at work on the next rows while these are read.
      if (rows.length === FETCH) {
        next = fetch();
        // Awaited above or below; a failure that comes before is no unhandled rejection.
        next.catch(() => undefined);
      }
      if (rows.length > 0) yield rows;
      if (rows.length < FETCH) return;
    }
  } finally {
    // Also where the reader leaves early: the snapshot may be asked something else. Whatever fails here, that will too.
    await next.catch(() => undefined);
    await client.query('CLOSE answer').catch(() => undefined);
  }
}
