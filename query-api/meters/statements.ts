import { type Aggregation, isLevel, type Meter, TidemarkError } from '../../schemas/index.ts';
import { levelStatement } from './level-sql.ts';
import type { Piece } from './plan.ts';
import type { RollupQuery, Statement } from './statement.ts';

type Bind = (value: unknown, type: string) => string;

/** What of a query the database must know. */
export interface RowsRequest extends RollupQuery {
  /** highest or lowest values first, instead of by window, subject and groups; only where `ordersByValue` */
  byValue?: 'asc' | 'desc' | undefined;
  limit?: number | undefined;
  /** rows after this one; only where `ordersByValue` */
  after?: { w: number; key: readonly (string | null)[]; value?: string | undefined } | undefined;
  /** only rows of these subjects */
  subjects?: readonly string[] | undefined;
}

/** Whether `byValue` and `limit` are part of the statement; else its rows come by window, all of them. */
export const ordersByValue = (aggregation: Aggregation): boolean => aggregation in FINAL;

/** Columns of rollup rows that an aggregation needs, from hours and minutes; coarse rows differ in their sketch. */
const CELL: Partial<Record<Aggregation, string>> = {
  COUNT: 'r.count',
  SUM: 'r.sum',
  MIN: 'r.min',
  MAX: 'r.max',
  AVG: 'r.sum, r.count',
  LATEST: 'r.last, r.last_at, r.last_key',
  UNIQUE_COUNT: 'r.members',
  PERCENTILE: 'r.bins::text AS bins, r.bin_counts::text AS counts, NULL AS sketch',
};
const COARSE_CELL: Partial<Record<Aggregation, string>> = {
  PERCENTILE: 'NULL AS bins, NULL AS counts, r.sketch',
};
/** How rows of a window and group add up before names are joined to them. */
const ADDED: Partial<Record<Aggregation, string>> = {
  COUNT: 'sum(c.count) AS count',
  SUM: 'sum(c.sum) AS sum',
  MIN: 'min(c.min) AS min',
  MAX: 'max(c.max) AS max',
  AVG: 'sum(c.sum) AS sum, sum(c.count) AS count',
};
const FINAL: Partial<Record<Aggregation, string>> = {
  COUNT: 'sum(count)',
  SUM: 'sum(sum)',
  MIN: 'min(min)',
  MAX: 'max(max)',
  // 40 decimals here; cut to 20 significant digits when it is shown.
  AVG: '(sum(sum) + 0e-40::numeric) / sum(count)',
  LATEST: '(array_agg(last ORDER BY last_at DESC, last_key DESC) FILTER (WHERE last_at IS NOT NULL))[1]',
  UNIQUE_COUNT: 'count(DISTINCT member)',
};

/** Beyond so many pieces of one kind they are a list to join instead of statements of their own. */
const MOST_BRANCHES = 8;

/**
 * The rows of an answer from the pieces of its plan, ordered by window, subject and groups (bytes, nulls first). Columns:
 * window from 1, subject where asked for, groups, then `value`; or, where merging is done here, `bins`, `counts`, `sketch`. Every value is a bound parameter; names are constants and positions.
 */
export function rowsStatement(request: RowsRequest, pieces: readonly Piece[]): Statement {
  const { meter, boundaries, bySubject, groupBy, filters } = request;
  const { aggregation } = meter;
  if (isLevel(aggregation)) return levelStatement(request, (name) => position(meter, name));
  const values: unknown[] = [];
  const bind = (value: unknown, type: string) => `$${values.push(value)}::${type}`;
  const single = boundaries.length <= 2;
  const w = single ? '1' : `width_bucket(r.bucket, ${bind(boundaries.map(iso), 'timestamptz[]')})`;
  const needsGroups = groupBy.length > 0 || filters.size > 0;
  const ids = [...(bySubject ? ['tenant_id'] : []), ...(needsGroups ? ['group_key'] : [])];
  const common = [`r.meter_id = ${bind(meter.id, 'int')}`];
  const tenants = request.tenantIds === null ? null : bind(request.tenantIds, 'uuid[]');
  const cellsOf = (source: Piece['source']) => {
    const columns = typeof source === 'number' ? (COARSE_CELL[aggregation] ?? CELL[aggregation]) : CELL[aggregation];
    return [`${w} AS w`, ...ids.map((id) => `r.${id}`), columns].join(', ');
  };
  const cells = cellStatements(pieces, meter, bind, cellsOf, common, tenants);
  const dimensions = groupBy.map((name, i) => `g.values[${position(meter, name)}] COLLATE "C" AS g${i}`);
  const conditions = [...filters].map(
    ([name, any]) => `g.values[${position(meter, name)}] = ANY (${bind(any, 'text[]')})`,
  );
  if (bySubject && request.subjects !== undefined)
    conditions.push(`t.customer_id = ANY (${bind(request.subjects, 'text[]')})`);
  const added = ADDED[aggregation];
  const keys = ['w', ...(bySubject ? ['subject'] : []), ...groupBy.map((_, i) => `g${i}`)];
  const names = [...(bySubject ? ['t.customer_id COLLATE "C" AS subject'] : []), ...dimensions];
  const named = `SELECT ${[...names, 'c.*'].join(', ')}
      FROM added AS c
      ${needsGroups ? 'JOIN rollup_groups AS g USING (group_key)' : ''}
      ${bySubject ? 'JOIN tenants AS t ON t.id = c.tenant_id' : ''}
      ${conditions.length > 0 ? `WHERE ${conditions.join(' AND ')}` : ''}`;
  const grouping = ['c.w', ...ids.map((id) => `c.${id}`)].join(', ');
  const text = `
    WITH cells AS (${cells}),
    added AS (${added === undefined ? 'SELECT * FROM cells AS c' : `SELECT ${grouping}, ${added} FROM cells AS c GROUP BY ${grouping}`}),
    named AS (${named})
    ${last(request, keys, bind)}${request.limit === undefined || !ordersByValue(aggregation) ? '' : ` LIMIT ${bind(request.limit, 'int')}`}`;
  return { text, values };
}

function last({ meter, byValue, after }: RowsRequest, keys: readonly string[], bind: Bind): string {
  const list = keys.join(', ');
  const order = keys.map((key) => `${key} NULLS FIRST`).join(', ');
  const final = FINAL[meter.aggregation];
  if (final === undefined) {
    return `SELECT ${list}, bins, counts, sketch FROM named ORDER BY ${order}`;
  }
  const from = meter.aggregation === 'UNIQUE_COUNT' ? 'named, unnest(members) AS u(member)' : 'named';
  // Of `answer`: the column of that name that goes out is text.
  const sorted = byValue === undefined ? order : `answer.value ${byValue}, ${order}`;
  return `SELECT ${list}, value::text FROM (SELECT ${list}, ${final} AS value FROM ${from} GROUP BY ${list}) AS answer
    WHERE value IS NOT NULL${after === undefined ? '' : ` AND ${isAfter(after, keys, byValue, bind)}`} ORDER BY ${sorted}`;
}

/** Keyset of a page: what the order puts behind a row. Nulls come first, so they are told apart before their texts. */
function isAfter(
  { w, key, value }: NonNullable<RowsRequest['after']>,
  keys: readonly string[],
  byValue: RowsRequest['byValue'],
  bind: Bind,
): string {
  const columns = keys.slice(1).flatMap((name) => [`${name} IS NOT NULL`, `coalesce(${name}, '')`]);
  const places = key.flatMap((part) => [bind(part !== null, 'bool'), bind(part ?? '', 'text')]);
  const place = `(${['w', ...columns].join(', ')}) > (${[bind(w, 'int'), ...places].join(', ')})`;
  if (byValue === undefined) return place;
  const literal = bind(value, 'numeric');
  return `(value ${byValue === 'asc' ? '>' : '<'} ${literal} OR (value = ${literal} AND ${place}))`;
}

/** Reads every piece: the table of its source, its stretch of time, its shards. */
function cellStatements(
  pieces: readonly Piece[],
  meter: Meter,
  bind: Bind,
  columnsOf: (source: Piece['source']) => string,
  common: readonly string[],
  tenants: string | null,
): string {
  const statements: string[] = [];
  for (const [source, own] of Map.groupBy(pieces, (piece) => piece.source)) {
    const conditions = [...common];
    if (typeof source === 'number') {
      conditions.push(`r.level = ${source}`);
      // Rows of all tenants stand under the nil UUID: with it, the index finds them by time.
      if ((source & 1) === 0) conditions.push(`r.tenant_id = '00000000-0000-0000-0000-000000000000'`);
      else if (tenants !== null) conditions.push(`r.tenant_id = ANY (${tenants})`);
    } else if (tenants !== null) conditions.push(`r.tenant_id = ANY (${tenants})`);
    const where = conditions.join(' AND ');
    const table = tableOf(source, meter);
    if (own.length <= MOST_BRANCHES) {
      for (const piece of own) {
        const shards = piece.shards === null ? '' : ` AND r.shard = ANY (${bind(piece.shards, 'int[]')})`;
        const range = `r.bucket >= ${bind(iso(piece.from), 'timestamptz')} AND r.bucket < ${bind(iso(piece.to), 'timestamptz')}`;
        statements.push(`SELECT ${columnsOf(source)} FROM ${table} AS r WHERE ${where} AND ${range}${shards}`);
      }
      continue;
    }
    const list = own.map((piece) => ({
      from: iso(piece.from),
      to: iso(piece.to),
      shards: piece.shards === null ? null : `{${piece.shards.join(',')}}`,
    }));
    const low = Math.min(...own.map((piece) => piece.from));
    const high = Math.max(...own.map((piece) => piece.to));
    // OFFSET 0 keeps the planner from turning this into a join that reads everything between the pieces.
    statements.push(`
      SELECT r.* FROM unnest(${bind(
        list.map((one) => one.from),
        'timestamptz[]',
      )}, ${bind(
        list.map((one) => one.to),
        'timestamptz[]',
      )}, ${bind(
        list.map((one) => one.shards),
        'text[]',
      )}) AS k(low, high, shards)
      CROSS JOIN LATERAL (
        SELECT ${columnsOf(source)} FROM ${table} AS r
        WHERE ${where} AND r.bucket >= k.low AND r.bucket < k.high AND (k.shards IS NULL OR r.shard = ANY (k.shards::int[]))
          AND r.bucket >= ${bind(iso(low), 'timestamptz')} AND r.bucket < ${bind(iso(high), 'timestamptz')} OFFSET 0
      ) AS r`);
  }
  return statements.join('\nUNION ALL\n');
}

function tableOf(source: Piece['source'], meter: Meter): string {
  if (typeof source === 'number') return 'rollups_coarse';
  const kind = meter.aggregation === 'UNIQUE_COUNT' ? 'members' : 'rollups';
  return source === 'hours' ? `${kind}_hour` : `${kind}_minute`;
}

/** Position of an attribute in `rollup_groups.values`, from 1. */
function position(meter: Meter, name: string): number {
  const at = meter.groupBy.indexOf(name);
  if (at < 0)
    throw new TidemarkError(
      'unknown_group',
      `${meter.slug} has no group-by "${name}"; it has ${['subject', ...meter.groupBy].join(', ')}`,
    );
  return at + 1;
}

/** First and last bucket of the pieces; of `source` rows too, so that the caller knows how long they are. */
export function extentStatement(
  meter: Meter,
  tenantIds: readonly string[] | null,
  pieces: readonly Piece[],
): Statement {
  const values: unknown[] = [];
  const bind = (value: unknown, type: string) => `$${values.push(value)}::${type}`;
  const common = [`r.meter_id = ${bind(meter.id, 'int')}`];
  const tenants = tenantIds === null ? null : bind(tenantIds, 'uuid[]');
  const cells = cellStatements(pieces, meter, bind, () => 'r.bucket', common, tenants);
  return {
    text: `SELECT (extract(epoch FROM min(bucket)) * 1000)::float8 AS first, (extract(epoch FROM max(bucket)) * 1000)::float8 AS last
      FROM (${cells}) AS c`,
    values,
  };
}

const iso = (ms: number): string => new Date(ms).toISOString();
