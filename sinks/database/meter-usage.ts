import type { Aggregation, Meter } from '../../schemas/index.ts';
import type { Queryable } from './queryable.ts';

/** What of a meter is read, for many tenants at once. Times are Unix ms at whole minutes, `from` < `to`. */
export interface MeterUsageQuery {
  meter: Meter;
  tenantIds: readonly string[];
  from: number;
  to: number;
  /** by dimension: any of these values */
  filters: ReadonlyMap<string, readonly string[]>;
  groupBy: readonly string[];
  /** whether events are counted too; for a COUNT or SUM */
  withEvents: boolean;
}

export interface MeterUsageRow {
  customerId: string;
  group: Readonly<Record<string, string | null>>;
  /** decimal literal */
  quantity: string;
  /** '0' where they were not asked for */
  events: string;
}

/** Aggregations whose value over any range is exact, and plain to recompute from raw events. */
export const EXACT_AGGREGATIONS: readonly Aggregation[] = ['COUNT', 'SUM', 'MIN', 'MAX', 'LATEST', 'UNIQUE_COUNT'];

const HOUR = 3_600_000;
const VALUE: Partial<Record<Aggregation, string>> = {
  COUNT: 'sum(c.count)::text',
  SUM: 'coalesce(sum(c.sum), 0)::text',
  MIN: 'min(c.min)::text',
  MAX: 'max(c.max)::text',
  LATEST: '(array_agg(c.last ORDER BY c.last_at DESC, c.last_key DESC) FILTER (WHERE c.last_at IS NOT NULL))[1]::text',
};
/** Added up before names are joined to it: a group has a row an hour. */
const ADDED = `
  SELECT tenant_id, group_key, sum(count) AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max FROM cells GROUP BY 1, 2`;
const CELLS = 'r.tenant_id, r.group_key, r.count, r.sum, r.min, r.max, r.last, r.last_at, r.last_key';

/**
 * Values of one meter over one range, by tenant and group, in the caller's snapshot: whole folded hours from hour rows,
 * the edges and what is not folded yet from minute rows.
 */
export async function readMeterUsage(database: Queryable, query: MeterUsageQuery): Promise<MeterUsageRow[]> {
  const { meter, from, to } = query;
  const values: unknown[] = [meter.id, query.tenantIds];
  const bind = (value: unknown, type: string) => `$${values.push(value)}::${type}`;
  const time = (ms: number) => bind(new Date(ms).toISOString(), 'timestamptz');
  const isDistinct = meter.aggregation === 'UNIQUE_COUNT';
  const isAdditive = !isDistinct && meter.aggregation !== 'LATEST';
  const [minutes, hours] = isDistinct ? ['members_minute', 'members_hour'] : ['rollups_minute', 'rollups_hour'];
  const columns = isDistinct ? 'r.tenant_id, r.group_key, r.members' : CELLS;
  const firstHour = Math.min(Math.ceil(from / HOUR) * HOUR, to);
  const lastHour = Math.max(Math.floor(to / HOUR) * HOUR, firstHour);
  const [start, wholeFrom, wholeTo, end] = [time(from), time(firstHour), time(lastHour), time(to)];
  const own = 'r.shard = s.shard AND r.meter_id = $1 AND r.tenant_id = ANY ($2::uuid[])';
  // A shard at a time, so that where its hours begin to hold bounds the scan of the index.
  const part = (table: string, low: string, high: string) =>
    `SELECT ${columns} FROM ${table} AS r WHERE ${own} AND r.bucket >= ${low} AND r.bucket < ${high}`;
  const cells = `
    SELECT r.* FROM log_offsets AS s CROSS JOIN LATERAL (
      ${part(hours, wholeFrom, `least(${wholeTo}, s.folded_until)`)}
      UNION ALL ${part(minutes, `greatest(${start}, s.folded_until)`, end)}
      UNION ALL ${part(minutes, start, `least(${wholeFrom}, s.folded_until)`)}
      UNION ALL ${part(minutes, wholeTo, `least(${end}, s.folded_until)`)}
    ) AS r`;
  const place = (name: string) => `g.values[${meter.groupBy.indexOf(name) + 1}]`;
  const conditions = [...query.filters].map(([name, any]) => `${place(name)} = ANY (${bind(any, 'text[]')})`);
  const groups = query.groupBy.map((name, i) => `${place(name)} AS g${i}`);
  const needsGroups = groups.length > 0 || conditions.length > 0;
  const keys = ['tenant_id', ...query.groupBy.map((_, i) => `g${i}`)].join(', ');
  const value = isDistinct ? 'count(DISTINCT m.member)::text' : VALUE[meter.aggregation];
  if (value === undefined) throw new RangeError(`${meter.aggregation} is not exact`);
  const { rows } = await database.query<{
    customer_id: string;
    value: string | null;
    events: string;
    g: (string | null)[];
  }>(
    `WITH cells AS (${cells}),
      added AS (${isAdditive ? ADDED : 'SELECT * FROM cells'}),
      named AS (
        SELECT c.*${groups.map((one) => `, ${one}`).join('')} FROM added AS c
        ${needsGroups ? 'JOIN rollup_groups AS g USING (group_key)' : ''}
        ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''}
      ),
      totals AS (
        SELECT ${keys}, ${value} AS value, ${query.withEvents ? 'sum(c.count)::text' : `'0'`} AS events
        FROM named AS c${isDistinct ? ', unnest(c.members) AS m(member)' : ''} GROUP BY ${keys}
      )
      SELECT t.customer_id, c.value, c.events, ARRAY[${query.groupBy.map((_, i) => `c.g${i}`).join(', ')}]::text[] AS g
      FROM totals AS c JOIN tenants AS t ON t.id = c.tenant_id`,
    values,
  );
  return rows.flatMap((row) =>
    row.value === null
      ? []
      : [
          {
            customerId: row.customer_id,
            group: Object.fromEntries(query.groupBy.map((name, i) => [name, row.g[i] ?? null])),
            quantity: row.value,
            events: row.events,
          },
        ],
  );
}
