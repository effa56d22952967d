/**
 * Moves a tenant's schema, with its roles and rows, to another database. While it is on its way its role can't log in: so
 * long as the copy takes. Every step may be cut off and taken again; before the switch a failure goes back.
 */
import { pipeline } from 'node:stream/promises';
import type { ClientBase, Pool } from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { type Job, TidemarkError } from '../../schemas/index.ts';
import { quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import type { TenantPools } from '../pools/index.ts';
import { loginRoleOf, ownerRoleOf, schemaOf } from '../schema/names.ts';
import { createTenantSchema, dropTenantSchema, endSessions, ROLE_LIMITS } from '../schema/tenant-schema.ts';
import {
  appliedVersions,
  applyTenantMigrations,
  diffStructures,
  type MigrationDeps,
  readStructure,
} from '../tenant-migrations/index.ts';
import { listTables, loadTables, readSequences, setSequences, within } from '../tenant-migrations/table-data.ts';
import type { ShardDatabases } from './shards.ts';

export interface MoveDeps {
  /** of the control tables */
  pool: Pool;
  shards: ShardDatabases;
  pools: TenantPools;
  migrations: MigrationDeps;
  /** connection URL of the tenant's own role, which holds its password */
  urlOf(tenantId: string): Promise<string>;
  /** told of every step that was begun; faults in tests strike here */
  onStep?: ((step: string) => void) | undefined;
}

interface Move {
  tenantId: string;
  from: string;
  to: string;
  step: Step;
}
type Step = 'close' | 'copy' | 'switch' | 'clean';

/** What was moved. */
export interface Moved {
  from: string;
  to: string;
  tables: number;
  rows: number;
}

const BEGIN = `
  INSERT INTO tenant_moves (tenant_id, from_shard, to_shard)
  SELECT id, shard, $2 FROM tenants WHERE id = $1 AND shard <> $2 ON CONFLICT DO NOTHING`;
const FIND = `SELECT tenant_id AS "tenantId", from_shard AS "from", to_shard AS "to", step FROM tenant_moves WHERE tenant_id = $1`;
const OPEN_RUN = `SELECT FROM migration_runs WHERE status IN ('running', 'paused')`;

/**
 * Moves a tenant, or goes on with a move that was cut off.
 * @throws TidemarkError `already_there`; `conflict` when it is on its way elsewhere, or a migration is under way
 */
export async function moveTenant(deps: MoveDeps, tenantId: string, to: string): Promise<Moved> {
  await deps.shards.byName(to);
  const find = async () => (await deps.pool.query<Move>(FIND, [tenantId])).rows[0];
  if ((await find()) === undefined) {
    if ((await deps.shards.shardOf(tenantId)) === to)
      throw new TidemarkError('already_there', `the tenant lives on shard ${to} already`);
    const { rowCount: migrating } = await deps.pool.query(OPEN_RUN);
    if (migrating !== 0) throw new TidemarkError('conflict', 'a migration is under way');
    await deps.pool.query(BEGIN, [tenantId, to]);
  }
  const move = await find();
  if (move === undefined) throw new TidemarkError('already_there', `the tenant lives on shard ${to} already`);
  if (move.to !== to) throw new TidemarkError('conflict', `the tenant is on its way to shard ${move.to}`);
  let copied = { tables: 0, rows: 0 };
  if (move.step === 'close' || move.step === 'copy')
    try {
      await begin(deps, move, 'close');
      await close(deps, move);
      await begin(deps, move, 'copy');
      copied = await copy(deps, move);
    } catch (error) {
      await goBack(deps, move);
      throw error;
    }
  await begin(deps, move, 'switch');
  await deps.pool.query('UPDATE tenants SET shard = $2 WHERE id = $1', [tenantId, move.to]);
  await begin(deps, move, 'clean');
  await clean(deps, move);
  return { from: move.from, to, ...copied };
}

async function begin(deps: MoveDeps, move: Move, step: Step): Promise<void> {
  await deps.pool.query('UPDATE tenant_moves SET step = $2 WHERE tenant_id = $1', [move.tenantId, step]);
  deps.onStep?.(step);
}

/** Nobody writes to the old place any more. */
async function close(deps: MoveDeps, { tenantId, from }: Move): Promise<void> {
  deps.pools.evict(tenantId, new TidemarkError('database_unavailable', 'the tenant is being moved'));
  await withTransaction(await deps.shards.byName(from), (client) => allowLogin(client, tenantId, false));
  await withTransaction(await deps.shards.byName(from), (client) => endSessions(client, tenantId));
}

async function allowLogin(client: ClientBase, tenantId: string, allowed: boolean): Promise<void> {
  await client.query(`ALTER ROLE ${quoteIdentifier(loginRoleOf(tenantId))} ${allowed ? 'LOGIN' : 'NOLOGIN'}`);
}

/** All in one transaction of the new database, from one snapshot of the old one; the structure must be the same afterwards. */
async function copy(deps: MoveDeps, { tenantId, from, to }: Move): Promise<{ tables: number; rows: number }> {
  const password = decodeURIComponent(new URL(await deps.urlOf(tenantId)).password);
  const { rows } = await deps.pool.query<{ tier: string }>('SELECT tier FROM tenants WHERE id = $1', [tenantId]);
  const limits = Object.entries(ROLE_LIMITS).find(([tier]) => tier === rows[0]?.tier)?.[1] ?? ROLE_LIMITS.standard;
  const schema = schemaOf(tenantId);
  return withTransaction(await deps.shards.byName(from), async (source) => {
    await source.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const applied = (await appliedVersions(source, schema)).map((one) => one.version);
    const migrations = deps.migrations.migrations().filter((one) => applied.includes(one.version));
    return withTransaction(await deps.shards.byName(to), async (target) => {
      await dropSchema(target, tenantId);
      await createTenantSchema(target, tenantId, { password, limits });
      // Until the switch the tenant is nowhere.
      await allowLogin(target, tenantId, false);
      await applyTenantMigrations(target, schema, migrations);
      const copied = await copyRows(source, target, tenantId);
      const diff = diffStructures(await readStructure(source, schema), await readStructure(target, schema));
      const lines = [...diff.removed.map((line) => `- ${line}`), ...diff.added.map((line) => `+ ${line}`)];
      if (lines.length > 0)
        throw new TidemarkError(
          'migration_structure',
          `its schema is not what its migrations make: ${lines.slice(0, 10).join('; ')}`,
        );
      return copied;
    });
  });
}

async function copyRows(
  source: ClientBase,
  target: ClientBase,
  tenantId: string,
): Promise<{ tables: number; rows: number }> {
  const schema = schemaOf(tenantId);
  const tables = await listTables(source, schema);
  let rows = 0;
  await target.query(
    `SET LOCAL ROLE ${quoteIdentifier(ownerRoleOf(tenantId))}; SET LOCAL search_path = ${quoteIdentifier(schema)}`,
  );
  await loadTables(target, schema, tables, async ({ name, columns }) => {
    // Text, not binary: types of the schema have other OIDs over there.
    const out = source.query(copyTo(`COPY (SELECT ${columns} FROM ${within(schema, name)}) TO STDOUT`));
    const into = target.query(copyFrom(`COPY ${within(schema, name)} (${columns}) FROM STDIN`));
    await pipeline(out, into);
    if (out.rowCount !== into.rowCount) throw new Error(`${name}: ${out.rowCount} rows read, ${into.rowCount} written`);
    rows += into.rowCount ?? 0;
  });
  await setSequences(target, schema, await readSequences(source, schema));
  await target.query('RESET ROLE; SET LOCAL search_path = tidemark');
  return { tables: tables.length, rows };
}

/** The old place is emptied, the new one opened. */
async function clean(deps: MoveDeps, { tenantId, from, to }: Move): Promise<void> {
  await remove(deps, tenantId, from, to);
  await withTransaction(await deps.shards.byName(to), (client) => allowLogin(client, tenantId, true));
  await deps.pool.query('DELETE FROM tenant_moves WHERE tenant_id = $1', [tenantId]);
}

async function goBack(deps: MoveDeps, { tenantId, from, to }: Move): Promise<void> {
  await remove(deps, tenantId, to, from);
  await withTransaction(await deps.shards.byName(from), (client) => allowLogin(client, tenantId, true));
  await deps.pool.query('DELETE FROM tenant_moves WHERE tenant_id = $1', [tenantId]);
}

/** Removes the tenant from one shard while it lives on another. */
async function remove(deps: MoveDeps, tenantId: string, shard: string, other: string): Promise<void> {
  const pool = await deps.shards.byName(shard);
  const isShared = (await clusterOf(pool)) === (await clusterOf(await deps.shards.byName(other)));
  // Roles belong to the whole cluster: where both databases are in one, the other one needs them.
  await withTransaction(pool, (client) =>
    isShared ? dropSchema(client, tenantId) : dropTenantSchema(client, tenantId),
  );
}

async function clusterOf(pool: Pool): Promise<string> {
  const { rows } = await pool.query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_control_system()');
  return rows[0]?.id ?? '';
}

/** The schema and what the roles hold in this database; the roles stay. Idempotent. */
async function dropSchema(client: ClientBase, tenantId: string): Promise<void> {
  await client.query(`DROP SCHEMA IF EXISTS ${quoteIdentifier(schemaOf(tenantId))} CASCADE`);
  const { rows } = await client.query<{ role: string }>(
    'SELECT rolname AS role FROM pg_roles WHERE rolname = ANY ($1)',
    [[loginRoleOf(tenantId), ownerRoleOf(tenantId)]],
  );
  for (const { role } of rows) await client.query(`DROP OWNED BY ${quoteIdentifier(role)} CASCADE`);
  await client.query('DELETE FROM tidemark.tenant_migrations WHERE schema = $1', [schemaOf(tenantId)]);
}

/** Name of the job that moves tenants. */
export const MOVE_JOB = 'tenant-move';

/** Moves the tenant that is asked for; taken up again, it goes on. */
export function createMoveJob(deps: MoveDeps): Job {
  return {
    name: MOVE_JOB,
    async run({ params, progress }) {
      const [tenant, to] = [String(params.tenant), String(params.to)];
      await progress({ tenant, to });
      return { ...(await moveTenant(deps, tenant, to)) };
    },
  };
}
