/** The data of a schema's tables, on its way into a schema of the same structure. */
import type { ClientBase } from 'pg';
import { quoteIdentifier } from '../../sinks/index.ts';

export interface TableData {
  name: string;
  /** quoted, without generated ones */
  columns: string;
}

export interface SequenceValue {
  name: string;
  /** decimal */
  value: string;
  isCalled: boolean;
}

const TABLES = `
  SELECT c.relname AS name, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') AS columns
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
  WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
  GROUP BY c.relname ORDER BY c.relname`;
const FOREIGN_KEYS = `
  SELECT c.relname AS table, k.conname AS name, pg_get_constraintdef(k.oid) AS definition FROM pg_constraint AS k
  JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = $1 AND k.contype = 'f' AND k.conparentid = 0`;
const OF_KIND = `
  SELECT c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = $2`;

/** A relation's name for a statement. */
export const within = (schema: string, name: string): string => `${quoteIdentifier(schema)}.${quoteIdentifier(name)}`;

export async function listTables(client: ClientBase, schema: string): Promise<TableData[]> {
  const { rows } = await client.query<{ name: string; columns: string | null }>(TABLES, [schema]);
  return rows.flatMap(({ name, columns }) => (columns === null ? [] : [{ name, columns }]));
}

/**
 * Fills tables without their foreign keys and triggers, which would see half of the data; the keys are checked when they
 * come back. `search_path` must be the schema alone, so that the keys' definitions hold.
 */
export async function loadTables(
  client: ClientBase,
  schema: string,
  tables: readonly TableData[],
  load: (table: TableData) => Promise<void>,
): Promise<void> {
  const { rows: keys } = await client.query<{ table: string; name: string; definition: string }>(FOREIGN_KEYS, [
    schema,
  ]);
  for (const { table, name } of keys)
    await client.query(`ALTER TABLE ${within(schema, table)} DROP CONSTRAINT ${quoteIdentifier(name)}`);
  for (const table of tables) {
    await client.query(`ALTER TABLE ${within(schema, table.name)} DISABLE TRIGGER USER`);
    await load(table);
    await client.query(`ALTER TABLE ${within(schema, table.name)} ENABLE TRIGGER USER`);
  }
  for (const { table, name, definition } of keys)
    await client.query(`ALTER TABLE ${within(schema, table)} ADD CONSTRAINT ${quoteIdentifier(name)} ${definition}`);
  const { rows: views } = await client.query<{ name: string }>(OF_KIND, [schema, 'm']);
  for (const { name } of views) await client.query(`REFRESH MATERIALIZED VIEW ${within(schema, name)}`);
}

export async function readSequences(client: ClientBase, schema: string): Promise<SequenceValue[]> {
  const { rows } = await client.query<{ name: string }>(OF_KIND, [schema, 'S']);
  const values: SequenceValue[] = [];
  for (const { name } of rows) {
    const { rows: found } = await client.query<Omit<SequenceValue, 'name'>>(
      `SELECT last_value::text AS value, is_called AS "isCalled" FROM ${within(schema, name)}`,
    );
    if (found[0] !== undefined) values.push({ name, ...found[0] });
  }
  return values;
}

export async function setSequences(
  client: ClientBase,
  schema: string,
  values: readonly SequenceValue[],
): Promise<void> {
  for (const { name, value, isCalled } of values)
    await client.query('SELECT setval($1::regclass, $2::bigint, $3)', [within(schema, name), value, isCalled]);
}
