import type { ClientBase } from 'pg';
import type { Tier } from '../../schemas/index.ts';
import { quoteIdentifier } from '../../sinks/index.ts';
import { loginRoleOf, ownerRoleOf, schemaOf } from './names.ts';
import { ensureRole, inheritOnly, joinRole, type PlatformRoles, platformRoles } from './platform-roles.ts';
import { scramVerifier } from './scram.ts';
import { createSharedViews } from './shared-views.ts';

/** What a tenant's own SQL may use. */
export interface RoleLimits {
  connections: number;
  statementSeconds: number;
  idleInTransactionSeconds: number;
}

export const ROLE_LIMITS: Record<Exclude<Tier, 'discovered'>, RoleLimits> = {
  free: { connections: 5, statementSeconds: 10, idleInTransactionSeconds: 10 },
  standard: { connections: 10, statementSeconds: 30, idleInTransactionSeconds: 30 },
  enterprise: { connections: 20, statementSeconds: 60, idleInTransactionSeconds: 60 },
};

/** Settings of the login role. It may change them for itself: the watchdog holds what matters. */
export function roleSettings(tenantId: string, limits: RoleLimits, superuser: boolean): Record<string, string> {
  return {
    search_path: schemaOf(tenantId),
    statement_timeout: `${limits.statementSeconds}s`,
    idle_in_transaction_session_timeout: `${limits.idleInTransactionSeconds}s`,
    lock_timeout: '10s',
    timezone: 'UTC',
    // Only a superuser may set it, and then nobody else may change it.
    ...(superuser ? { temp_file_limit: '1GB' } : {}),
  };
}

/** Statements that give the login role its limits. */
export function limitRole(tenantId: string, limits: RoleLimits, roles: PlatformRoles): string {
  const login = quoteIdentifier(loginRoleOf(tenantId));
  const inDatabase = `IN DATABASE ${quoteIdentifier(roles.database)}`;
  return [
    `ALTER ROLE ${login} CONNECTION LIMIT ${Math.trunc(limits.connections)};`,
    ...Object.entries(roleSettings(tenantId, limits, roles.superuser)).map(
      ([name, value]) => `ALTER ROLE ${login} ${inDatabase} SET ${quoteIdentifier(name)} = '${value}';`,
    ),
  ].join('\n');
}

/**
 * Makes a tenant's roles and its empty schema with the views over shared tables, in the caller's transaction. The
 * database must be prepared (`prepareDatabase`).
 * @param password of the login role, ASCII
 */
export async function createTenantSchema(
  client: ClientBase,
  tenantId: string,
  { password, limits }: { password: string; limits: RoleLimits },
): Promise<void> {
  const roles = await platformRoles(client);
  const login = loginRoleOf(tenantId);
  const owner = ownerRoleOf(tenantId);
  // Roles belong to the whole cluster: a tenant that comes from another database of it has them.
  await ensureRole(client, owner, 'NOLOGIN');
  await ensureRole(client, login, 'LOGIN INHERIT');
  await client.query(`
    ALTER ROLE ${quoteIdentifier(login)} LOGIN PASSWORD '${scramVerifier(password)}';
    ${joinRole(roles, owner)}
    ${joinRole(roles, login)}
    ${limitRole(tenantId, limits, roles)}
    ALTER DEFAULT PRIVILEGES FOR ROLE ${quoteIdentifier(owner)} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES FOR ROLE ${quoteIdentifier(owner)} REVOKE USAGE ON TYPES FROM PUBLIC;
    ${createSchema(roles, tenantId, schemaOf(tenantId))}
    GRANT ${quoteIdentifier(roles.tenants)} TO ${quoteIdentifier(login)}${inheritOnly(roles.version)};`);
}

/**
 * Makes one more schema of a tenant that has its roles, beside the one in use.
 * @param schema its name, such as `tenant_…_next`
 */
export async function createSchemaBeside(client: ClientBase, tenantId: string, schema: string): Promise<void> {
  await client.query(createSchema(await platformRoles(client), tenantId, schema));
}

function createSchema(roles: PlatformRoles, tenantId: string, schema: string): string {
  const name = quoteIdentifier(schema);
  const login = quoteIdentifier(loginRoleOf(tenantId));
  const owner = quoteIdentifier(ownerRoleOf(tenantId));
  const defaults = `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} IN SCHEMA ${name} GRANT`;
  return `
    CREATE SCHEMA ${name} AUTHORIZATION ${owner};
    REVOKE ALL ON SCHEMA ${name} FROM PUBLIC;
    GRANT USAGE ON SCHEMA ${name} TO ${login};
    ${defaults} SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${login};
    ${defaults} USAGE, SELECT, UPDATE ON SEQUENCES TO ${login};
    ${defaults} EXECUTE ON FUNCTIONS TO ${login};
    ${defaults} USAGE ON TYPES TO ${login};
    ${createSharedViews(schema, tenantId, roles.reader, loginRoleOf(tenantId))}`;
}

/**
 * Removes a tenant's schema and roles, and everything that they own, in the caller's transaction. Idempotent. Sessions of
 * the login role are ended.
 */
export async function dropTenantSchema(client: ClientBase, tenantId: string): Promise<void> {
  const login = loginRoleOf(tenantId);
  const { rows } = await client.query<{ rolname: string }>('SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)', [
    [login, ownerRoleOf(tenantId)],
  ]);
  await endSessions(client, tenantId);
  await client.query(`DROP SCHEMA IF EXISTS ${quoteIdentifier(schemaOf(tenantId))} CASCADE`);
  for (const { rolname } of rows)
    await client.query(`DROP OWNED BY ${quoteIdentifier(rolname)} CASCADE; DROP ROLE ${quoteIdentifier(rolname)}`);
  await client.query('DELETE FROM tidemark.tenant_migrations WHERE schema = $1', [schemaOf(tenantId)]);
}

/** Ends every session of the tenant's login role. @returns how many */
export async function endSessions(client: ClientBase, tenantId: string): Promise<number> {
  const { rowCount } = await client.query(
    'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()',
    [loginRoleOf(tenantId)],
  );
  return rowCount ?? 0;
}
