/** One look at one tenant's schema: size, versions, drift, and whether its own role gets in. */
import type { ClientBase } from 'pg';
import { withTransaction } from '../../sinks/index.ts';
import { schemaOf } from '../schema/names.ts';
import {
  appliedVersions,
  diffStructures,
  limit,
  type MigrationDeps,
  readStructure,
  type Structure,
} from '../tenant-migrations/index.ts';

export interface SchemaLook {
  bytes: number;
  tables: number;
  /** newest applied version */
  version: number | null;
  /** how many migrations it has */
  applied: number;
  /** lines in which its structure differs from what its migrations make */
  drift: string[];
  /** what its own role was told; null: it got in */
  refused: string | null;
}

const SIZE = `
  SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 AS bytes, count(*)::int AS tables
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'm', 'p')`;
/** A look never holds anybody up. */
const TIMEOUTS = { lockMs: 500, statementMs: 10_000 };

/** @param structures what the first n migrations make, for each n */
export async function lookAtSchema(
  deps: MigrationDeps,
  tenantId: string,
  structures: readonly Structure[],
): Promise<SchemaLook> {
  const schema = schemaOf(tenantId);
  const look = await withTransaction(await deps.databaseOf(tenantId), (client) => measure(client, schema, structures));
  const refused = await deps
    .useTenant(tenantId, (connection) => connection.query('SELECT 1'))
    .then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
  return { ...look, refused };
}

async function measure(
  client: ClientBase,
  schema: string,
  structures: readonly Structure[],
): Promise<Omit<SchemaLook, 'refused'>> {
  await limit(client, TIMEOUTS);
  const { rows } = await client.query<{ bytes: number; tables: number }>(SIZE, [schema]);
  const versions = await appliedVersions(client, schema);
  const expected = structures[versions.length];
  const diff = diffStructures(expected ?? [], expected === undefined ? [] : await readStructure(client, schema));
  return {
    bytes: rows[0]?.bytes ?? 0,
    tables: rows[0]?.tables ?? 0,
    version: versions.at(-1)?.version ?? null,
    applied: versions.length,
    drift: [...diff.removed.map((line) => `- ${line}`), ...diff.added.map((line) => `+ ${line}`)],
  };
}
