/**
 * An event as a row of the archive. PostgreSQL sends its columns as they are (that is as fast as COPY of the table);
 * DuckDB makes the archive's columns of them, for a vector of rows at a time.
 */
import { ATTRIBUTE_COLUMNS, type AttributeColumn } from '../../schemas/index.ts';
import { COLUMNS } from '../layout.ts';
import { exactSum } from './exact-sum.ts';

interface SpoolColumn {
  name: string;
  /** PostgreSQL's expression, of event `e`, tenant `t` and partition `p` */
  source: string;
  /** may hold what COPY escapes */
  isText?: boolean;
}

/** Columns of the spool, in order. Attributes are `a_…`; what has no column of its own is `rest`, a JSON object. */
const SPOOLED: readonly SpoolColumn[] = [
  { name: 'tenant_id', source: 'e.tenant_id' },
  { name: 'customer_id', source: 'coalesce(t.customer_id, e.tenant_id::text)', isText: true },
  { name: 'idempotency_key', source: 'e.idempotency_key', isText: true },
  { name: 'source', source: 'e.source', isText: true },
  { name: 'type', source: 'e.type', isText: true },
  { name: 'timestamp', source: `e."timestamp" AT TIME ZONE 'UTC'` },
  { name: 'received_at', source: `e.received_at AT TIME ZONE 'UTC'` },
  { name: 'user_id', source: 'e.user_id', isText: true },
  { name: 'request_id', source: 'e.request_id', isText: true },
  ...ATTRIBUTE_COLUMNS.map(({ name, holds }) => ({ name: `a_${name}`, source: `e.${name}`, isText: holds === 'text' })),
  { name: 'rest', source: 'e.data::text', isText: true },
  { name: 'log_partition', source: 'p.partition' },
  { name: 'log_offset', source: 'e.log_offset' },
];
/** Columns of the spool as DuckDB reads them; the first is the row's length, as PostgreSQL's message has it. */
export const SPOOL_COLUMNS: Readonly<Record<string, string>> = Object.fromEntries([
  ['row_bytes', 'INTEGER'],
  ...SPOOLED.map(({ name }) => [name, 'VARCHAR']),
]);

const SUMS = ['tokens_consumed', 'duration_ms'] as const;

/** DuckDB: bytes of a row of which these columns were read: theirs, two for each NULL (`\\N`), one after each column. */
const READ_BYTES = `${SPOOLED.map(({ name }) => `coalesce(strlen("${name}"), 2)`).join(' + ')} + ${SPOOLED.length}`;

/**
 * PostgreSQL: rows in the order of SPOOL_COLUMNS, for COPY's text format.
 * @param source FROM and WHERE, made of constants and numbers, with events `e`, `p.partition` and `t.customer_id`
 */
export const exportedRows = (source: string): string =>
  `SELECT ${SPOOLED.map((column) => column.source).join(', ')} ${source}`;

/** DuckDB: a text as it was before PostgreSQL escaped it (manual: COPY, "Text Format"). */
function unescaped(column: string): string {
  const controls = { n: 10, t: 9, r: 13, b: 8, f: 12, v: 11 };
  const part = Object.entries(controls).reduce(
    (text, [name, code]) => `replace(${text}, '\\${name}', chr(${code}))`,
    'p',
  );
  const parts = `list_transform(string_split(${column}, '\\\\'), lambda p: ${part})`;
  return `CASE WHEN contains(${column}, '\\') THEN array_to_string(${parts}, '\\') ELSE ${column} END AS ${column}`;
}
const PLAIN = SPOOLED.filter(({ isText }) => isText)
  .map(({ name }) => unescaped(name))
  .join(', ');

/** `concat_ws` leaves out what is NULL, `||` is NULL then. */
const dataOf = (attribute: (column: AttributeColumn) => string, rest: string): string =>
  `concat('{', concat_ws(',', ${ATTRIBUTE_COLUMNS.map((column) => `'"${column.name}":' || ${attribute(column)}`).join(', ')},
    nullif(substr(${rest}, 2, length(${rest}) - 2), '')), '}')`;
const SPOOL_DATA = dataOf(({ name, holds }) => (holds === 'text' ? `to_json(a_${name})` : `a_${name}`), 'rest');
/** PostgreSQL: the same `data` of a row that is still in the database. */
export const HOT_DATA = dataOf(
  ({ name, holds }) => (holds === 'text' ? `to_json(e.${name})::text` : `e.${name}::text`),
  'e.data::text',
);

/** The same numbers in a row's `data`, where the attributes stand first, in order: groups of these names. */
export const SUMMED = new RegExp(
  `^{${ATTRIBUTE_COLUMNS.map(({ name, holds }) => `(?:"${name}":${holds === 'text' ? '"(?:[^"\\\\]|\\\\.)*"' : `(?<${name}>[-0-9.]+)`},?)?`).join('')}`,
);
export const DIFFERS = 'what was spooled is not what the database sent';

/**
 * DuckDB: the archive's rows of a spool, with the attributes that are summed beside them.
 * A row that is not as long as it was sent ends the statement.
 */
export const archivedRows = (spool: string): string => `
  SELECT ${Object.entries(COLUMNS)
    .map(([name, type]) => `CAST(${columnOf(name)} AS ${type}) AS "${name}"`)
    .join(', ')}, ${SUMS.map((name) => `a_${name}`).join(', ')}
  FROM (SELECT * REPLACE (${PLAIN}) FROM (SELECT *, row_bytes = ${READ_BYTES} AS is_whole FROM ${spool}))`;
/** The order of a file's rows. */
export const IN_ORDER = 'ORDER BY tenant_id, "timestamp", log_partition, log_offset';

function columnOf(column: string): string {
  if (column === 'data') return SPOOL_DATA;
  return column === 'log_offset' ? `CASE WHEN is_whole THEN log_offset ELSE error('${DIFFERS}') END` : `"${column}"`;
}
/** DuckDB: the columns of a file. */
export const FILE_COLUMNS = Object.keys(COLUMNS)
  .map((name) => `"${name}"`)
  .join(', ');

/** DuckDB: every column of a row of the archive in one number. Of this version of DuckDB: never stored. */
const ROW_HASH = `hash(${Object.entries(COLUMNS)
  .map(([name, type]) => (type === 'TIMESTAMP_MS' ? `epoch_ms("${name}")` : `"${name}"`))
  .join(', ')})`;

/** DuckDB: by tenant, what rows of the archive add up to: those that were made of a spool, and those of the file made of them. */
export const totalsOf = (source: string): string => `
  SELECT tenant_id, count(*) AS rows, min(epoch_ms("timestamp")) AS first, max(epoch_ms("timestamp")) AS last,
    sum(${ROW_HASH}) AS row_hash FROM ${source} GROUP BY tenant_id`;

/** DuckDB: by tenant, exact sums of a spool's rows. */
export const sumsOf = (source: string): string => `
  SELECT tenant_id, any_value(customer_id) AS customer_id, count(*) AS rows,
    ${SUMS.map((name) => exactSum(`a_${name}`, name)).join(', ')} FROM ${source} GROUP BY tenant_id`;
