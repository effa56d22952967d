/**
 * PEAK and TIME_WEIGHTED_AVG: a level lasts until it changes, so a window begins with what was carried into it.
 * Gauges become steps first (each report against the one before of its group), so that levels of several groups,
 * tenants and shards add up at every moment.
 */
import type { RollupQuery, Statement } from './statement.ts';

const HOUR = 3_600_000;
const iso = (ms: number): string => new Date(ms).toISOString();

/**
 * One statement, one snapshot; every value is a bound parameter.
 * Rows: `w`, `subject`, `g0…`, `value`. Absent: of a gauge, windows before its first report; of deltas, windows in
 * which nothing happened while the level was 0.
 * @param position of a dimension in `rollup_groups.values`, from 1
 */
export function levelStatement(query: RollupQuery, position: (name: string) => number): Statement {
  const { meter, boundaries } = query;
  const values: unknown[] = [];
  const bind = (value: unknown, type: string) => `$${values.push(value)}::${type}`;
  const start = boundaries[0] ?? 0;
  const from = bind(iso(start), 'timestamptz');
  const to = bind(iso(boundaries.at(-1) ?? 0), 'timestamptz');
  const times = bind(boundaries.map(iso), 'timestamptz[]');
  const tenants = query.tenantIds === null ? '' : ` AND r.tenant_id = ANY (${bind(query.tenantIds, 'uuid[]')})`;
  const meterRows = `r.meter_id = ${bind(meter.id, 'int')}${tenants}`;
  const cutHour = start % HOUR === 0 ? [] : [start - (start % HOUR)];
  const before = cells(`${meterRows} AND r.bucket < ${from}`, bind(cutHour.map(iso), 'timestamptz[]'));
  const within = query.minutesOnly
    ? `SELECT r.* FROM rollups_minute AS r WHERE ${meterRows} AND r.bucket >= ${from} AND r.bucket < ${to}`
    : cells(
        `${meterRows} AND r.bucket >= ${from} AND r.bucket < ${to}`,
        bind(query.splitHours.map(iso), 'timestamptz[]'),
      );
  const gauge = meter.valueKind === 'gauge';
  const groups = query.groupBy.map((name, i) => `g.values[${position(name)}] COLLATE "C" AS g${i}`);
  const conditions = [...query.filters].map(
    ([name, any]) => `g.values[${position(name)}] = ANY (${bind(any, 'text[]')})`,
  );
  const needsGroups = groups.length > 0 || conditions.length > 0;
  const names = [...(query.bySubject ? ['subject'] : []), ...query.groupBy.map((_, i) => `g${i}`)];
  const heads = names.map((name) => `${name}, `).join('');
  const same = names.length === 0 ? '' : `PARTITION BY ${names.join(', ')} `;
  const text = `
    WITH before AS MATERIALIZED (${before}), within AS MATERIALIZED (${within}),
    steps AS (${gauge ? gaugeSteps(from) : deltaSteps(from)}),
    merged AS (
      SELECT ${[...(query.bySubject ? ['t.customer_id COLLATE "C" AS subject'] : []), ...groups].map((one) => `${one}, `).join('')}s.at, sum(s.step) AS step, bool_or(s.happened) AS happened
      FROM steps AS s
      ${needsGroups ? 'JOIN rollup_groups AS g USING (group_key)' : ''}
      ${query.bySubject ? 'JOIN tenants AS t ON t.id = s.tenant_id' : ''}
      ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''}
      GROUP BY ${heads}s.at
    ),
    known AS (SELECT ${heads}min(at) AS since FROM merged ${names.length === 0 ? 'HAVING count(*) > 0' : `GROUP BY ${names.join(', ')}`}),
    marked AS (
      SELECT ${heads}at, sum(step) AS step, bool_or(happened) AS happened, min(since) AS since FROM (
        SELECT ${heads}at, step, happened, NULL::timestamptz AS since FROM merged
        UNION ALL SELECT ${heads}b.at, 0, false, k.since FROM known AS k, unnest(${times}) AS b(at) WHERE b.at < ${to}
      ) AS every GROUP BY ${heads}at
    ),
    lasting AS (
      SELECT ${heads}at, happened, sum(step) OVER (${same}ORDER BY at) AS level, min(since) OVER (${same}) AS since,
        extract(epoch FROM lead(at, 1, ${to}) OVER (${same}ORDER BY at) - at) AS seconds
      FROM marked
    )
    SELECT width_bucket(at, ${times}) AS w, ${heads}${meter.aggregation === 'PEAK' ? PEAK : AVERAGE} AS value
    FROM lasting ${gauge ? 'WHERE at >= since' : ''}
    GROUP BY ${['w', ...names].join(', ')}
    ${gauge ? '' : 'HAVING bool_or(happened) OR max(abs(level)) > 0'}
    ORDER BY ${['w', ...names].map((name) => `${name} NULLS FIRST`).join(', ')}`;
  return { text, values };
}

const PEAK = 'trim_scale(max(level))::text';
/** 40 decimals here; cut to 20 significant digits when it is shown. */
const AVERAGE = '((sum(level * seconds) + 0e-40::numeric) / sum(seconds))::text';

/** Rows of the meter: whole folded hours, minutes of hours not folded yet, minutes of the hours that are cut. */
function cells(where: string, split: string): string {
  return `SELECT r.* FROM rollups_hour AS r JOIN log_offsets AS s USING (shard)
      WHERE ${where} AND r.bucket < s.folded_until AND r.bucket <> ALL (${split})
    UNION ALL SELECT r.* FROM rollups_minute AS r JOIN log_offsets AS s USING (shard)
      WHERE ${where} AND r.bucket >= s.folded_until
    UNION ALL SELECT r.* FROM unnest(${split}) AS h(hour)
      JOIN rollups_minute AS r ON r.bucket >= h.hour AND r.bucket < h.hour + interval '1 hour'
      JOIN log_offsets AS s USING (shard) WHERE ${where} AND r.bucket < s.folded_until`;
}

function gaugeSteps(from: string): string {
  return `SELECT tenant_id, group_key, at,
      level - coalesce(lag(level) OVER (PARTITION BY tenant_id, group_key ORDER BY at, carried DESC), 0) AS step, true AS happened
    FROM (
      SELECT * FROM (
        SELECT DISTINCT ON (tenant_id, group_key) tenant_id, group_key, ${from} AS at, last AS level, true AS carried
        FROM before WHERE last IS NOT NULL ORDER BY tenant_id, group_key, last_at DESC, last DESC
      ) AS carried_in
      UNION ALL
      SELECT tenant_id, group_key, bucket + v.at * interval '1 millisecond', max(v.level), false
      FROM within, unnest(bins, levels) AS v(at, level) GROUP BY 1, 2, 3
    ) AS reports`;
}

function deltaSteps(from: string): string {
  // What is carried in has happened before.
  return `SELECT tenant_id, group_key, ${from} AS at, sum(sum) AS step, false AS happened FROM before GROUP BY 1, 2
    UNION ALL
    SELECT tenant_id, group_key, bucket + v.at * interval '1 millisecond', v.level, true
    FROM within, unnest(bins, levels) AS v(at, level)`;
}
