/**
 * An event as a row of the archive. PostgreSQL sends its columns as they are (that is as fast as COPY of the table);
 * DuckDB makes the archive's columns of them, for a vector of rows at a time.
 */
import { ATTRIBUTE_COLUMNS, type AttributeColumn } from '../../schemas/index.ts';
import { COLUMNS } from '../layout.ts';
import { exactSum } from './exact-sum.ts';

interface SpoolColumn {
  name: string;
  /** DuckDB's type */
  type: 'VARCHAR' | 'TIMESTAMP' | 'INTEGER' | 'BIGINT';
  /** PostgreSQL's expression, of event `e`, tenant `t` and partition `p` */
  source: string;
  /** of a type that is no text in PostgreSQL: it has no escapes, and its length is that of its text form */
  isNumber?: boolean;
}

/** Columns of the spool, in order. Attributes are `a_…`; what has no column of its own is `rest`, a JSON object. */
const SPOOLED: readonly SpoolColumn[] = [
  { name: 'tenant_id', type: 'VARCHAR', source: 'e.tenant_id', isNumber: true },
  { name: 'customer_id', type: 'VARCHAR', source: 'coalesce(t.customer_id, e.tenant_id::text)' },
  { name: 'idempotency_key', type: 'VARCHAR', source: 'e.idempotency_key' },
  { name: 'source', type: 'VARCHAR', source: 'e.source' },
  { name: 'type', type: 'VARCHAR', source: 'e.type' },
  { name: 'timestamp', type: 'TIMESTAMP', source: `e."timestamp" AT TIME ZONE 'UTC'` },
  { name: 'received_at', type: 'TIMESTAMP', source: `e.received_at AT TIME ZONE 'UTC'` },
  { name: 'user_id', type: 'VARCHAR', source: 'e.user_id' },
  { name: 'request_id', type: 'VARCHAR', source: 'e.request_id' },
  ...ATTRIBUTE_COLUMNS.map(({ name, holds }) => ({
    name: `a_${name}`,
    type: 'VARCHAR' as const,
    source: `e.${name}`,
    isNumber: holds !== 'text',
  })),
  { name: 'rest', type: 'VARCHAR', source: 'e.data::text' },
  { name: 'log_partition', type: 'INTEGER', source: 'p.partition' },
  { name: 'log_offset', type: 'BIGINT', source: 'e.log_offset' },
];
export const SPOOL_COLUMNS: Readonly<Record<string, string>> = Object.fromEntries([
  ['row_check', 'BIGINT'],
  ...SPOOLED.map(({ name, type }) => [name, type]),
]);

const SUMS = ['tokens_consumed', 'duration_ms'] as const;
/** Compared in other ways: counted and summed exactly, tenant by tenant, before the day's chunk is detached. */
const SUMMED_UP = new Set(['tenant_id', ...SUMS.map((name) => `a_${name}`)]);

/**
 * A number that PostgreSQL and DuckDB each make of a row: of its numbers, and of the lengths of its texts before they were
 * escaped and after they were read. A shifted, cut or lost column makes another one.
 */
function checkOf(numberOf: (column: SpoolColumn) => string, lengthOf: (column: SpoolColumn) => string): string {
  const checked = SPOOLED.filter(({ name }) => !SUMMED_UP.has(name) && name !== 'log_partition');
  // Factors are small enough for an int's product, and the first term makes the sum a bigint.
  return [
    ...checked.filter(({ type }) => type !== 'VARCHAR').map((column, i) => `${2 * i + 1} * ${numberOf(column)}`),
    ...checked.filter(({ type }) => type === 'VARCHAR').map((column, i) => `${101 * (i + 1)} * ${lengthOf(column)}`),
  ].join(' + ');
}

const SOURCE_CHECK = checkOf(
  ({ name, type, source }) => (type === 'BIGINT' ? source : `(date_part('epoch', e."${name}") * 1000000)::bigint`),
  ({ source, isNumber }) => `coalesce(octet_length(${isNumber === true ? `${source}::text` : source}), -1)`,
);
const SPOOL_CHECK = checkOf(
  ({ name, type }) => (type === 'BIGINT' ? name : `epoch_us("${name}")`),
  ({ name }) => `coalesce(strlen(${name}), -1)`,
);

/**
 * PostgreSQL: rows in the order of SPOOL_COLUMNS, for COPY's text format.
 * @param source FROM and WHERE, made of constants and numbers, with events `e`, `p.partition` and `t.customer_id`
 */
export const exportedRows = (source: string): string =>
  `SELECT ${[SOURCE_CHECK, ...SPOOLED.map((column) => column.source)].join(', ')} ${source}`;

/** DuckDB: a text as it was before PostgreSQL escaped it (manual: COPY, "Text Format"). */
function unescaped(column: string): string {
  const controls = { n: 10, t: 9, r: 13, b: 8, f: 12, v: 11 };
  const part = Object.entries(controls).reduce(
    (text, [name, code]) => `replace(${text}, '\\${name}', chr(${code}))`,
    'p',
  );
  const parts = `list_transform(string_split(${column}, '\\\\'), lambda p: ${part})`;
  return `CASE WHEN is_plain THEN ${column} ELSE array_to_string(${parts}, '\\') END AS ${column}`;
}
const PLAIN = SPOOLED.filter(({ type, isNumber }) => type === 'VARCHAR' && isNumber !== true)
  .map(({ name }) => unescaped(name))
  .join(', ');

/** `concat` leaves out what is NULL, `||` is NULL then. */
const dataOf = (attribute: (column: AttributeColumn) => string, rest: string): string =>
  `'{' || substr(concat(${ATTRIBUTE_COLUMNS.map((column) => `',"${column.name}":' || ${attribute(column)}`).join(', ')},
    ',' || nullif(substr(${rest}, 2, length(${rest}) - 2), '')), 2) || '}'`;
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
 * An escape makes a text longer: where lengths are PostgreSQL's already, there is none. A row that does not match its check
 * ends the statement.
 */
export const archivedRows = (spool: string): string => `
  SELECT ${Object.entries(COLUMNS)
    .map(([name, type]) => `CAST(${columnOf(name)} AS ${type}) AS "${name}"`)
    .join(', ')}, ${SUMS.map((name) => `a_${name}`).join(', ')}
  FROM (SELECT * REPLACE (${PLAIN}) FROM (SELECT *, row_check = ${SPOOL_CHECK} AS is_plain FROM ${spool}))`;
/** The order of a file's rows. */
export const IN_ORDER = 'ORDER BY tenant_id, "timestamp", log_partition, log_offset';

function columnOf(column: string): string {
  if (column === 'data') return SPOOL_DATA;
  return column === 'log_offset'
    ? `CASE WHEN is_plain OR row_check = ${SPOOL_CHECK} THEN log_offset ELSE error('${DIFFERS}') END`
    : `"${column}"`;
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
