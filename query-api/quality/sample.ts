import type { Pool } from 'pg';
import { ATTRIBUTE_COLUMNS } from '../../schemas/index.ts';

/** About so many rows are looked at, however many there are. */
const SAMPLE_ROWS = 200_000;
/** Received so long after its own time, an event is late: its hour has mostly been folded by then. */
export const LATE_MS = 10 * 60_000;
/** Tenants and types that are told apart; beyond it the smallest are left out. */
const MOST_GROUPS = 10_000;

const iso = (ms: number): string => new Date(ms).toISOString();

/** What was found of one tenant's events of one type. */
export interface SampledGroup {
  tenantId: string;
  tenant: string | null;
  type: string;
  events: number;
  late: number;
  /** seconds from receipt to the commit, at the 99th percentile */
  commitLag: number;
  /** Unix ms */
  newest: number;
  /** events without it, by property */
  missing: Map<string, number>;
}
export interface Sample {
  /** share of the rows that was looked at, from 0 to 1 */
  share: number;
  groups: SampledGroup[];
}

/** Rows of chunks that may hold events of the range, as the planner knows them. */
const ESTIMATE = `
  SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::float8 AS n FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
  WHERE i.inhparent = to_regclass('events')`;

/** An attribute: its column, else what `data` holds of that name (nested ones under dotted names). */
function valueIn(name: string, bindPath: () => string): string {
  if (name === 'user_id' || name === 'request_id') return `e.${name}`;
  const path = bindPath();
  const column = ATTRIBUTE_COLUMNS.find((one) => one.name === name)?.name;
  return column === undefined ? `(e.data #>> ${path})` : `coalesce(e.${column}::text, e.data #>> ${path})`;
}

/**
 * Looks at a bounded sample of raw events of [from, to): which properties they lack, and how late they were.
 * @param tenantIds null: all @param properties attribute names, dotted where nested
 */
export async function sampleEvents(
  pool: Pool,
  tenantIds: readonly string[] | null,
  { from, to }: { from: number; to: number },
  properties: readonly string[],
): Promise<Sample> {
  const { rows: estimated } = await pool.query<{ n: number }>(ESTIMATE);
  const percent = Math.min(100, (100 * SAMPLE_ROWS) / Math.max(1, estimated[0]?.n ?? 0));
  const values: unknown[] = [iso(from), iso(to), tenantIds, LATE_MS, MOST_GROUPS];
  const counts = properties.map((name, i) => {
    const value = valueIn(name, () => `$${values.push(name.split('.'))}::text[]`);
    return `count(*) FILTER (WHERE ${value} IS NULL)::float8 AS m${i}`;
  });
  // Everything is read where it is little; the sample's share is a number of ours.
  const sampled = percent >= 100 ? '' : ` TABLESAMPLE SYSTEM (${percent.toFixed(6)})`;
  const { rows } = await pool.query<{ tenant_id: string; customer_id: string | null; type: string } & Numbers>(
    `SELECT s.*, t.customer_id FROM (
       SELECT e.tenant_id, e.type, count(*)::float8 AS events, count(*) FILTER (WHERE e.received_at - e."timestamp" > $4 * interval '1 ms')::float8 AS late,
         extract(epoch FROM percentile_disc(0.99) WITHIN GROUP (ORDER BY e.stored_at - e.received_at))::float8 AS lag,
         (extract(epoch FROM max(e."timestamp")) * 1000)::float8 AS newest${counts.map((one) => `, ${one}`).join('')}
       FROM events AS e${sampled}
       WHERE e."timestamp" >= $1 AND e."timestamp" < $2 AND ($3::uuid[] IS NULL OR e.tenant_id = ANY ($3))
       GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT $5
     ) AS s LEFT JOIN tenants AS t ON t.id = s.tenant_id`,
    values,
  );
  return {
    share: percent / 100,
    groups: rows.map((row) => ({
      tenantId: row.tenant_id,
      tenant: row.customer_id,
      type: row.type,
      events: row.events,
      late: row.late,
      commitLag: row.lag,
      newest: row.newest,
      missing: new Map(properties.map((name, i) => [name, row[`m${i}`] ?? 0])),
    })),
  };
}

interface Numbers {
  events: number;
  late: number;
  lag: number;
  newest: number;
  [missing: `m${number}`]: number;
}
