/**
 * An event as a row of the archive. PostgreSQL sends its columns as they are (that is as fast as COPY of the table);
 * DuckDB makes the archive's columns of them, for a vector of rows at a time.
 */
import { ATTRIBUTE_COLUMNS, type AttributeColumn } from '../../schemas/index.ts';
import { COLUMNS } from '../layout.ts';

/**
 * Columns of the spooled CSV, in order. Attributes (`a_…`) are JSON literals already: numbers keep their digits, and no text
 * has a line break in it, so that a row is a line.
 */
export const CSV_COLUMNS: Readonly<Record<string, string>> = {
  tenant_id: 'VARCHAR',
  customer_id: 'VARCHAR',
  idempotency_key: 'VARCHAR',
  source: 'VARCHAR',
  type: 'VARCHAR',
  timestamp: 'TIMESTAMP',
  received_at: 'TIMESTAMP',
  user_id: 'VARCHAR',
  request_id: 'VARCHAR',
  ...Object.fromEntries(ATTRIBUTE_COLUMNS.map(({ name }) => [`a_${name}`, 'VARCHAR'])),
  rest: 'VARCHAR',
  log_partition: 'INTEGER',
  log_offset: 'BIGINT',
};

const attribute = ({ name, holds }: AttributeColumn): string =>
  holds === 'text' ? `to_json(e.${name})::text` : `e.${name}::text`;

/**
 * PostgreSQL: rows of events `e` in the order of CSV_COLUMNS; `p.partition` and `t.customer_id` must be in `source`.
 * @param source FROM and WHERE, made of constants and numbers
 */
export const exportedRows = (source: string): string => `
  SELECT e.tenant_id, coalesce(t.customer_id, e.tenant_id::text), e.idempotency_key, e.source, e.type,
    e."timestamp" AT TIME ZONE 'UTC', e.received_at AT TIME ZONE 'UTC', e.user_id, e.request_id,
    ${ATTRIBUTE_COLUMNS.map(attribute).join(', ')}, e.data, p.partition, e.log_offset
  ${source}`;

/** PostgreSQL: the sum over rows `e` that `CSV_CHECK` is of the CSV: a shifted, cut or lost column changes it. */
const SOURCE_CHECK = checkOf(
  (name) => `octet_length(${textOf(name)})`,
  (name) => (name === 'log_offset' ? 'e.log_offset' : `(extract(epoch FROM e."${name}") * 1000)::bigint`),
);
const CSV_CHECK = checkOf(
  (name) => `strlen("${name}")`,
  (name) => (name === 'log_offset' ? 'log_offset' : `epoch_ms("${name}")`),
);

function textOf(name: string): string {
  const column = ATTRIBUTE_COLUMNS.find((one) => `a_${one.name}` === name);
  return column === undefined ? `e.${name === 'rest' ? 'data' : name}::text` : attribute(column);
}

function checkOf(length: (column: string) => string, number: (column: string) => string): string {
  const texts = Object.keys(CSV_COLUMNS).filter((name) => CSV_COLUMNS[name] === 'VARCHAR' && name !== 'customer_id');
  return [
    ...['timestamp', 'received_at', 'log_offset'].map((name, i) => `${2 * i + 1} * ${number(name)}`),
    ...texts.map((name, i) => `${101 * (i + 1)} * coalesce(${length(name)}, -1)`),
  ].join(' + ');
}

/** `concat` leaves out what is NULL, `||` is NULL then. */
const MEMBERS = ATTRIBUTE_COLUMNS.map(({ name }) => `',"${name}":' || a_${name}`).join(', ');
const DATA = `'{' || substr(concat(${MEMBERS}, ',' || nullif(substr(rest, 2, length(rest) - 2), '')), 2) || '}'`;

/** PostgreSQL: the same `data` of a row that is still in the database. */
export const HOT_DATA = `'{' || substr(concat(${ATTRIBUTE_COLUMNS.map((column) => `',"${column.name}":' || ${attribute(column)}`).join(', ')},
  ',' || nullif(substr(e.data::text, 2, length(e.data::text) - 2), '')), 2) || '}'`;

/** DuckDB: the archive's columns of a row of the CSV. */
export const ARCHIVED = Object.entries(COLUMNS)
  .map(([name, type]) => `CAST(${name === 'data' ? DATA : `"${name}"`} AS ${type}) AS "${name}"`)
  .join(', ');

/** DuckDB: every column of a row of the archive in one number. Of this version of DuckDB: never stored. */
const ROW_HASH = `hash(${Object.entries(COLUMNS)
  .map(([name, type]) => (type === 'TIMESTAMP_MS' ? `epoch_ms("${name}")` : `"${name}"`))
  .join(', ')})`;

const COUNTED = `tenant_id, any_value(customer_id) AS customer_id, count(*) AS rows, min(epoch_ms("timestamp")) AS first,
    max(epoch_ms("timestamp")) AS last, sum(${ROW_HASH}) AS row_hash`;

/** DuckDB: by tenant, what a spooled CSV adds up to, as PostgreSQL's side says it and as the file made of it must. */
export const spoolTotals = (source: string): string =>
  `SELECT ${COUNTED}, sum(row_check) AS row_check FROM (SELECT ${ARCHIVED}, ${CSV_CHECK} AS row_check FROM ${source}) GROUP BY tenant_id`;

/** DuckDB: the same of Parquet files. */
export const fileTotals = (source: string): string =>
  `SELECT ${COUNTED}, 0 AS row_check FROM ${source} GROUP BY tenant_id`;

/** PostgreSQL: by tenant, what the rows of `source` add up to; the sums are exact (DuckDB's decimals are slow at this). */
export const sourceTotals = (source: string): string => `
  SELECT e.tenant_id, min(coalesce(t.customer_id, e.tenant_id::text)) AS customer_id, count(*)::float8 AS rows,
    sum(${SOURCE_CHECK})::text AS row_check, coalesce(sum(e.tokens_consumed), 0)::text AS tokens_consumed,
    coalesce(sum(e.duration_ms), 0)::text AS duration_ms
  ${source} GROUP BY e.tenant_id`;
