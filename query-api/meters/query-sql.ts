import { type Aggregation, isLevel, type Meter } from '../../schemas/index.ts';
import { levelStatement } from './level-sql.ts';
import type { RollupQuery, Statement } from './statement.ts';

export type { RollupQuery, Statement } from './statement.ts';

const ROWS =
  'r.tenant_id, r.group_key, r.bucket, r.count, r.sum, r.min, r.max, r.last, r.last_at, r.last_key, r.bins, r.bin_counts';
const MEMBERS = 'r.tenant_id, r.group_key, r.bucket, r.members';

/**
 * One statement, so one snapshot: whole folded hours from hour rows; hours that are cut, and those not folded yet,
 * from their minutes. Every value is a bound parameter; names are constants and positions.
 */
export function rollupStatement(query: RollupQuery): Statement {
  const { meter, boundaries } = query;
  if (isLevel(meter.aggregation)) return levelStatement(query, (name) => position(meter, name));
  const values: unknown[] = [];
  const bind = (value: unknown, type: string) => `$${values.push(value)}::${type}`;
  const distinct = meter.aggregation === 'UNIQUE_COUNT';
  const [minutes, hours, columns] = distinct
    ? ['members_minute', 'members_hour', MEMBERS]
    : ['rollups_minute', 'rollups_hour', ROWS];
  const single = boundaries.length === 2;
  const times = single ? '' : bind(boundaries.map(iso), 'timestamptz[]');
  const from = bind(iso(boundaries[0] ?? 0), 'timestamptz');
  const to = bind(iso(boundaries.at(-1) ?? 0), 'timestamptz');
  // Bound only where it is used: PostgreSQL must know the type of every parameter.
  const split = query.minutesOnly ? '' : bind(query.splitHours.map(iso), 'timestamptz[]');
  const tenants = query.tenantIds === null ? '' : ` AND r.tenant_id = ANY (${bind(query.tenantIds, 'uuid[]')})`;
  const common = `r.meter_id = ${bind(meter.id, 'int')}${tenants}`;
  const range = `r.bucket >= ${from} AND r.bucket < ${to}`;
  const parts = query.minutesOnly
    ? [`SELECT ${columns} FROM ${minutes} AS r WHERE ${common} AND ${range}`]
    : [
        `SELECT ${columns} FROM ${hours} AS r JOIN log_offsets AS s USING (shard)
         WHERE ${common} AND ${range} AND r.bucket < s.folded_until AND r.bucket <> ALL (${split})`,
        `SELECT ${columns} FROM ${minutes} AS r JOIN log_offsets AS s USING (shard)
         WHERE ${common} AND ${range} AND r.bucket >= s.folded_until AND r.bucket >= (SELECT min(folded_until) FROM log_offsets)`,
        `SELECT ${columns} FROM unnest(${split}) AS h(hour) JOIN ${minutes} AS r ON r.bucket >= h.hour AND r.bucket < h.hour + interval '1 hour'
         JOIN log_offsets AS s USING (shard) WHERE ${common} AND ${range} AND r.bucket < s.folded_until`,
      ];
  const groups = query.groupBy.map((name, i) => `g.values[${position(meter, name)}] AS g${i}`);
  const conditions = [...query.filters].map(
    ([name, any]) => `g.values[${position(meter, name)}] = ANY (${bind(any, 'text[]')})`,
  );
  const needsGroups = groups.length > 0 || conditions.length > 0;
  const dimensions = [...(query.bySubject ? ['t.customer_id AS subject'] : []), ...groups];
  const keys = ['w', ...(query.bySubject ? ['subject'] : []), ...query.groupBy.map((_, i) => `g${i}`)].join(', ');
  // What the answer tells apart; everything else is added up before names are joined to it.
  const w = single ? '1' : `width_bucket(c.bucket, ${times})`;
  const identity = [...(query.bySubject ? ['c.tenant_id'] : []), ...(needsGroups ? ['c.group_key'] : [])];
  const shape = SHAPES[meter.aggregation] ?? SHAPES.COUNT;
  const text = `
    WITH cells AS (${parts.join('\nUNION ALL\n')}),
    added AS (${shape.add(['c.bucket', ...identity], single)}),
    named AS (
      SELECT ${w} AS w${dimensions.map((one) => `, ${one}`).join('')}, c.*
      FROM added AS c
      ${needsGroups ? 'JOIN rollup_groups AS g USING (group_key)' : ''}
      ${query.bySubject ? 'JOIN tenants AS t ON t.id = c.tenant_id' : ''}
      ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''}
    )
    ${aggregate(meter.aggregation, keys)}`;
  return { text, values };
}

interface Shape {
  /** adds cells up by columns of `c`; a single window needs no bucket */
  add(columns: string[], single: boolean): string;
}

const listed = (columns: readonly string[], single: boolean) =>
  single ? columns.filter((name) => name !== 'c.bucket') : columns;
const grouping = (columns: readonly string[]) => (columns.length === 0 ? '' : ` GROUP BY ${columns.join(', ')}`);
const heads = (columns: readonly string[]) => columns.map((name) => `${name}, `).join('');
const AS_THEY_ARE: Shape = { add: () => 'SELECT c.* FROM cells AS c' };
const TOTALS: Shape = {
  add: (columns, single) => {
    const by = listed(columns, single);
    const sums = 'sum(c.count) AS count, sum(c.sum) AS sum, min(c.min) AS min, max(c.max) AS max';
    return `SELECT ${heads(by)}${sums} FROM cells AS c${grouping(by)}${by.length === 0 ? ' HAVING count(*) > 0' : ''}`;
  },
};
const BINS: Shape = {
  add: (columns, single) => {
    const by = listed(columns, single);
    return `SELECT ${heads(by)}b.bin, sum(b.n) AS n FROM cells AS c, unnest(c.bins, c.bin_counts) AS b(bin, n) GROUP BY ${[...by, 'b.bin'].join(', ')}`;
  },
};
const SHAPES: Partial<Record<Aggregation, Shape>> & { COUNT: Shape } = {
  COUNT: TOTALS,
  SUM: TOTALS,
  MIN: TOTALS,
  MAX: TOTALS,
  AVG: TOTALS,
  PERCENTILE: BINS,
  LATEST: AS_THEY_ARE,
  UNIQUE_COUNT: AS_THEY_ARE,
};

const SIMPLE: Partial<Record<Aggregation, string>> = {
  COUNT: 'sum(count)::text',
  SUM: 'sum(sum)::text',
  MIN: 'min(min)::text',
  MAX: 'max(max)::text',
  // 40 decimals here; cut to 20 significant digits when it is shown.
  AVG: '(sum(sum) + 0e-40::numeric) / sum(count)',
  LATEST: '(array_agg(last ORDER BY last_at DESC, last_key DESC) FILTER (WHERE last_at IS NOT NULL))[1]::text',
};

function aggregate(aggregation: Aggregation, keys: string): string {
  const simple = SIMPLE[aggregation];
  if (simple !== undefined) return `SELECT ${keys}, ${simple} AS value FROM named GROUP BY ${keys} ORDER BY ${keys}`;
  switch (aggregation) {
    case 'UNIQUE_COUNT':
      return `SELECT ${keys}, count(DISTINCT m.member)::text AS value FROM named, unnest(members) AS m(member) GROUP BY ${keys} ORDER BY ${keys}`;
    default:
      return `SELECT ${keys}, array_agg(bin ORDER BY bin) AS bins, array_agg(n ORDER BY bin) AS counts FROM (
          SELECT ${keys}, bin, sum(n)::float8 AS n FROM named GROUP BY ${keys}, bin
        ) AS merged GROUP BY ${keys} ORDER BY ${keys}`;
  }
}

/** Position of an attribute in `rollup_groups.values`, from 1. */
function position(meter: Meter, name: string): number {
  const at = meter.groupBy.indexOf(name);
  if (at < 0) throw new RangeError(`${name} is no groupBy of ${meter.slug}`);
  return at + 1;
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** The first and last minute with data of a meter. */
export function extentStatement(meter: Meter, tenantIds: readonly string[] | null): Statement {
  const kind = meter.aggregation === 'UNIQUE_COUNT' ? 'members' : 'rollups';
  const where = `meter_id = $1${tenantIds === null ? '' : ' AND tenant_id = ANY ($2::uuid[])'}`;
  return {
    text: `SELECT (extract(epoch FROM min(low)) * 1000)::float8 AS first, (extract(epoch FROM max(high)) * 1000)::float8 AS last FROM (
        SELECT min(bucket) AS low, max(bucket) AS high FROM ${kind}_minute WHERE ${where}
        UNION ALL SELECT min(bucket), max(bucket) FROM ${kind}_hour WHERE ${where}) AS e`,
    values: tenantIds === null ? [meter.id] : [meter.id, tenantIds],
  };
}
