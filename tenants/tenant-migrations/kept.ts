import type { Pool } from 'pg';
import { withTransaction } from '../../sinks/index.ts';
import { tenantIdOf } from '../schema/names.ts';
import { dropBeside } from './blue-green.ts';
import { limit } from './dry-run.ts';
import type { MigrationDeps } from './places.ts';

const BESIDE = `SELECT nspname AS name FROM pg_namespace WHERE nspname ~ '^tenant_[0-9a-f]{32}_(next|old)$' ORDER BY 1`;
/** Tenants that an open run works on, or that were switched after a time. */
const STILL_NEEDED = `
  SELECT DISTINCT tenant_id AS id FROM migration_targets AS t JOIN migration_runs AS r ON r.id = t.run_id
  WHERE r.strategy = 'blue_green' AND (r.status IN ('running', 'paused') OR t.ended_at >= $1)`;
const TIMEOUTS = { lockMs: 2_000, statementMs: 60_000 };

/**
 * Drops the schemas that blue/green changes have kept or left, and that can no longer be wanted.
 * @param before those switched earlier
 * @returns how many
 */
export async function dropKeptSchemas(deps: MigrationDeps, before: Date): Promise<number> {
  const { rows } = await deps.pool.query<{ id: string }>(STILL_NEEDED, [before]);
  const needed = new Set(rows.map((row) => row.id));
  let dropped = 0;
  for (const pool of await deps.databases()) dropped += await dropIn(pool, needed);
  return dropped;
}

async function dropIn(pool: Pool, needed: ReadonlySet<string>): Promise<number> {
  const { rows } = await pool.query<{ name: string }>(BESIDE);
  let dropped = 0;
  for (const { name } of rows) {
    if (needed.has(tenantIdOf(name.slice(0, -'_next'.length)) ?? tenantIdOf(name.slice(0, -'_old'.length)) ?? ''))
      continue;
    await withTransaction(pool, async (client) => {
      await limit(client, TIMEOUTS);
      await dropBeside(client, name);
    });
    dropped++;
  }
  return dropped;
}
