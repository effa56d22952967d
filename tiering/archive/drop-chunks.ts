import type { ClientBase } from 'pg';
import { TIME_TABLES, TidemarkError } from '../../schemas/index.ts';
import { type Chunk, quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import { type Day, dayOf, endOf, startOf } from '../layout.ts';
import { addTenants, type Manifest, scaled, type TenantTotals, unscaled } from '../manifest.ts';
import type { TieringDeps } from '../ports.ts';
import { type DayRow, rowsOf, setDetached } from './day-state.ts';

/** How long a lock on the table may be waited for: writers queue behind us meanwhile. */
export const LOCK_TIMEOUT_MS = 250;
/** Tries for it, and the pause between them. */
export const MOST_TRIES = 40;
export const RETRY_MS = 250;
const DAY_MS = 86_400_000;

/** Why a day is still in the database; `late`: events came since it was planned; `busy`: try again soon. */
export type DropOutcome = 'dropped' | 'nothing' | 'late' | 'busy' | 'incomplete';

/**
 * Takes the chunks of a verified day out of the table (P9). In one transaction: writers of these chunks are kept out, every
 * row of them is counted against the manifests, the chunks are detached, and readers see the archive from the commit on.
 * A chunk wider than a day waits until all its days are verified. A day that was back in the database is counted as a whole.
 */
export async function dropChunks(deps: TieringDeps, day: Day): Promise<DropOutcome> {
  const { pool, engine } = deps;
  const chunks = await engine.listChunks(pool, TIME_TABLES.events);
  const { from, to, inside } = reachOf(chunks, day);
  try {
    return await withTransaction(pool, async (tx) => {
      await tx.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
      for (const chunk of inside) await tx.query(`LOCK TABLE ${quoteIdentifier(chunk.name)} IN SHARE MODE`);
      const rows = await rowsOf(tx, dayOf(from), dayOf(to - 1));
      if (inside.length === 0 && rows.every((row) => row.recalled === undefined)) return 'nothing';
      const counts = await countChunks(tx, inside, rows);
      for (const one of counts) if (one.late > 0) return 'late';
      const ready: DayRow[] = [];
      for (const one of counts.filter(({ fresh }) => fresh > 0)) {
        const row = rows.find((known) => known.day === one.day);
        if (row === undefined || !mayLeave(row, deps.now())) return 'incomplete';
        requireCounted(deps, row, one.tenants);
        ready.push(row);
      }
      // A day that is back, without rows of its own: nothing leaves but the note of it.
      const gone = rows.filter((row) => row.recalled !== undefined && !ready.includes(row));
      if (gone.some((row) => row.recalled !== undefined && row.recalled.until > deps.now())) return 'incomplete';
      ready.push(...gone);
      // A verified day without rows of its own here was planned from chunks that have gone: it cannot be.
      deps.fault?.('checked');
      await tx.query('LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
      const kept: string[] = [];
      for (const chunk of inside) {
        // A compressed chunk would be unpacked by detaching it, under the lock.
        if (chunk.compressed) await engine.dropChunk(tx, chunk);
        else {
          await engine.detachChunk(tx, chunk);
          kept.push(chunk.name);
        }
      }
      const [owner = rows.find((row) => row.day === day)] = ready;
      for (const row of ready) await setDetached(tx, row, row === owner ? kept : []);
      if (ready.length === 0 && owner !== undefined)
        await tx.query('UPDATE archive_days SET chunks = chunks || $2::text[] WHERE day = $1', [owner.day, kept]);
      return 'dropped';
    });
  } catch (error) {
    engine.forget();
    if (isLockFailure(error)) return 'busy';
    // Rows were deleted since (an erasure): the next run compares files and rows anew, and writes the day again.
    if (error instanceof TidemarkError)
      await pool.query(`UPDATE archive_days SET state = 'written' WHERE day = $1 AND state = 'verified'`, [day]);
    throw error;
  }
}

/** What is new of it was read back; what is back stays as long as it was asked for. */
function mayLeave({ state, pending, recalled }: DayRow, now: number): boolean {
  if (pending !== undefined) return state === 'verified' && (recalled === undefined || recalled.until <= now);
  return recalled !== undefined && recalled.until <= now;
}

/** The days and chunks that hang together with `day`: as far as chunks reach over the ends of days. */
function reachOf(chunks: readonly Chunk[], day: Day): { from: number; to: number; inside: Chunk[] } {
  let [from, to] = [startOf(day), endOf(day)];
  for (;;) {
    const inside = chunks.filter((chunk) => chunk.from < to && chunk.to > from);
    const first = Math.min(from, ...inside.map((chunk) => Math.floor(chunk.from / DAY_MS) * DAY_MS));
    const last = Math.max(to, ...inside.map((chunk) => Math.ceil(chunk.to / DAY_MS) * DAY_MS));
    if (first === from && last === to) return { from, to, inside };
    [from, to] = [first, last];
  }
}

interface DayCount {
  day: Day;
  /** rows that the pending manifest adds */
  fresh: number;
  /** rows that no manifest has */
  late: number;
  tenants: Record<string, TenantTotals>;
}

/** Every row of the chunks is in exactly one of: archived before, pending, late. */
async function countChunks(client: ClientBase, chunks: readonly Chunk[], rows: readonly DayRow[]): Promise<DayCount[]> {
  const bounds = rows.flatMap((row) => {
    const archived = row.recalled === undefined ? row.current?.manifest.positions : [];
    const before = new Map(archived?.map(({ shard, next }) => [shard, next]));
    const after = new Map(newestOf(row)?.positions.map(({ shard, next }) => [shard, next]));
    return [...new Set([...before.keys(), ...after.keys()])].map((shard) => {
      const start = before.get(shard) ?? 0;
      return { day: row.day, shard, start, next: Math.max(start, after.get(shard) ?? 0) };
    });
  });
  const stretches = bounds.flatMap(({ day, shard, start, next }) => [
    { at: new Date(startOf(day)), shard, first: 0, next: start, fresh: false },
    { at: new Date(startOf(day)), shard, first: start, next, fresh: true },
  ]);
  const days = new Map<Day, DayCount>();
  for (const chunk of chunks) {
    // Grouped by columns of `p` and of the table only: so the planner knows how few groups there are, and counts in parallel.
    const { rows: found } = await client.query<{
      at: number | null;
      fresh: boolean;
      tenant_id: string;
      rows: number;
      tokens_consumed: string;
      duration_ms: string;
    }>(
      `SELECT (extract(epoch FROM p.at) * 1000)::float8 AS at, p.fresh, e.tenant_id, count(*)::float8 AS rows,
         coalesce(sum(e.tokens_consumed), 0)::text AS tokens_consumed, coalesce(sum(e.duration_ms), 0)::text AS duration_ms
       FROM (SELECT date_bin('1 day', "timestamp", 'epoch') AS at, tenant_id, shard, log_offset, tokens_consumed, duration_ms FROM ${quoteIdentifier(chunk.name)}) AS e
       LEFT JOIN unnest($1::timestamptz[], $2::int[], $3::bigint[], $4::bigint[], $5::boolean[]) AS p(at, shard, first, next, fresh)
         ON p.at = e.at AND p.shard = e.shard AND e.log_offset >= p.first AND e.log_offset < p.next
       GROUP BY p.at, p.fresh, e.tenant_id`,
      [
        stretches.map((one) => one.at),
        stretches.map((one) => one.shard),
        stretches.map((one) => one.first),
        stretches.map((one) => one.next),
        stretches.map((one) => one.fresh),
      ],
    );
    for (const { at, fresh, tenant_id: id, ...totals } of found) {
      const day = dayOf(at ?? chunk.from);
      const known = days.get(day) ?? { day, fresh: 0, late: 0, tenants: {} };
      if (at === null) days.set(day, { ...known, late: known.late + totals.rows });
      else if (fresh)
        days.set(day, {
          ...known,
          fresh: known.fresh + totals.rows,
          tenants: addTenants(known.tenants, { [id]: { customer_id: '', ...totals } }),
        });
    }
  }
  return [...days.values()];
}

const newestOf = ({ pending, current, recalled }: DayRow): Manifest | undefined =>
  (pending ?? (recalled === undefined ? undefined : current))?.manifest;

/** What leaves is what the pending manifest has more than the one before, or all that it has: rows and sums, tenant by tenant. */
function requireCounted({ logger }: TieringDeps, row: DayRow, counted: Record<string, TenantTotals>): void {
  const all = newestOf(row)?.tenants ?? {};
  const expected = row.recalled === undefined ? addTenants(all, row.current?.manifest.tenants ?? {}, -1) : all;
  requireEqualTotals(row.day, expected, counted, logger);
}

/** @throws TidemarkError `archive_damaged` */
export function requireEqualTotals(
  day: Day,
  expected: Readonly<Record<string, TenantTotals>>,
  counted: Readonly<Record<string, TenantTotals>>,
  logger: TieringDeps['logger'],
): void {
  for (const id of new Set([...Object.keys(expected), ...Object.keys(counted)])) {
    const [a, b] = [expected[id], counted[id]];
    if (a !== undefined && b !== undefined && a.rows === b.rows && same(a, b)) continue;
    logger.error({ day, tenant: id, manifest: a, database: b }, 'the manifest does not match the rows');
    throw new TidemarkError(
      'archive_damaged',
      `${day}: the manifest does not match the rows of tenant ${id}; nothing was dropped`,
    );
  }
}

const same = (a: TenantTotals, b: TenantTotals): boolean =>
  (['tokens_consumed', 'duration_ms'] as const).every(
    (name) => unscaled(scaled(a[name])) === unscaled(scaled(b[name])),
  );

/** lock_not_available, deadlock_detected */
export const isLockFailure = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === '55P03' || error.code === '40P01');

/** A late event may have brought the chunk back into the table: then it is archived like any other. */
export async function dropDetached({ pool, engine }: TieringDeps, name: string): Promise<void> {
  await withTransaction(pool, async (tx) => {
    // Whoever makes or attaches a chunk holds this row.
    await tx.query(`SELECT FROM control_locks WHERE name = 'chunks' FOR UPDATE`);
    const attached = await engine.listChunks(tx, TIME_TABLES.events);
    if (!attached.some((chunk) => chunk.name === name)) await tx.query(`DROP TABLE IF EXISTS ${quoteIdentifier(name)}`);
  });
  engine.forget();
}
