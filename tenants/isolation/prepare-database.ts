import type { ClientBase, Pool } from 'pg';
import { TIME_TABLES } from '../../schemas/index.ts';
import { quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import { ensureRole, joinRole, type PlatformRoles, platformRoles } from '../schema/platform-roles.ts';
import { SHARED_VIEWS } from '../schema/shared-views.ts';

/** What could not be taken from PUBLIC, because we are no superuser: the watchdog makes it harmless. */
export interface Prepared {
  /** names of functions that every role may still execute */
  stillOpen: string[];
}

/** Functions of PostgreSQL, and of TimescaleDB's scheduler, that let a role hold or fill something that others share. */
const SHARED_RESOURCES =
  /^(add_job|run_job|add_[a-z_]+_policy|pg_(try_)?advisory_(xact_)?lock(_shared)?|lo_(create|creat|from_bytea|import|export|put|open|unlink|truncate|truncate64)|lowrite|pg_logical_emit_message)$/;

const SHARED_FUNCTIONS = `
  SELECT p.oid::regprocedure::text AS signature, p.proname AS name FROM pg_proc AS p
  WHERE p.proname ~ $1 AND (p.pronamespace = 'pg_catalog'::regnamespace
      OR EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS x ON x.oid = d.refobjid
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass AND x.extname = 'timescaledb'))
    AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE'))`;

/**
 * Plain tables with rows of tenants. Time series and their chunks (plain tables too, under TimescaleDB and when they are
 * detached) have no row-level security, which excludes compression: views with fixed predicates guard those.
 */
const UNPROTECTED = `
  SELECT c.relname AS name FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
  WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition AND NOT c.relrowsecurity
    AND a.attname = 'tenant_id' AND a.atttypid = 'uuid'::regtype
    AND c.relname !~ '^(${Object.keys(TIME_TABLES).join('|')})(_[0-9_]+)?$'
  UNION SELECT relname FROM pg_class WHERE oid = 'tidemark.tenants'::regclass AND NOT relrowsecurity
  ORDER BY 1`;

/**
 * The tenant that the current user is, from its role's name. Inside a view this is who asks, not the view's owner, so
 * that a view whose predicate were wrong would still show nothing of another tenant.
 */
const CURRENT_TENANT = `(CASE WHEN current_user ~ '^tenant_[0-9a-f]{32}$' THEN substr(current_user, 8)::uuid END)`;

/**
 * Makes the database ready for tenants: the installation's roles, PUBLIC stripped, row-level security on every shared
 * plain table. Idempotent, and safe from many processes; run it after the migrations at each start.
 */
export async function prepareDatabase(pool: Pool): Promise<Prepared> {
  return withTransaction(pool, async (client) => {
    await client.query(`SELECT FROM control_locks WHERE name = 'prepare_database' FOR UPDATE`);
    const roles = await platformRoles(client);
    await ensureRole(client, roles.tenants, 'NOLOGIN');
    await ensureRole(client, roles.reader, 'NOLOGIN');
    await client.query(`${joinRole(roles, roles.reader)} ${stripPublic(roles)} ${grantReader(roles)}`);
    await protectRows(client);
    return { stillOpen: await closeSharedFunctions(client, roles) };
  });
}

function stripPublic(roles: PlatformRoles): string {
  const database = quoteIdentifier(roles.database);
  return `
    REVOKE ALL ON DATABASE ${database} FROM PUBLIC;
    GRANT CONNECT ON DATABASE ${database} TO ${quoteIdentifier(roles.tenants)};
    REVOKE ALL ON SCHEMA tidemark FROM PUBLIC;
    REVOKE ALL ON ALL TABLES IN SCHEMA tidemark FROM PUBLIC;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tidemark FROM PUBLIC;`;
}

function grantReader(roles: PlatformRoles): string {
  const reader = quoteIdentifier(roles.reader);
  return `
    GRANT USAGE ON SCHEMA tidemark TO ${reader};
    GRANT SELECT ON ${SHARED_VIEWS.map((view) => `tidemark.${quoteIdentifier(view.table)}`).join(', ')} TO ${reader};`;
}

/** The owner of the tables (we) is not bound by it: row-level security is the lock behind the views. */
async function protectRows(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ name: string }>(UNPROTECTED);
  for (const { name } of rows) {
    const table = `tidemark.${quoteIdentifier(name)}`;
    const column = name === 'tenants' ? 'id' : 'tenant_id';
    await client.query(`
      ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY;
      CREATE POLICY own_tenant ON ${table} FOR SELECT USING (${column} = ${CURRENT_TENANT});`);
  }
}

/** Only a superuser may take functions of PostgreSQL's own from PUBLIC. */
async function closeSharedFunctions(client: ClientBase, roles: PlatformRoles): Promise<string[]> {
  const { rows } = await client.query<{ signature: string; name: string }>(SHARED_FUNCTIONS, [SHARED_RESOURCES.source]);
  if (rows.length === 0) return [];
  if (!roles.superuser) return [...new Set(rows.map((row) => row.name))].sort();
  await client.query(rows.map(({ signature }) => `REVOKE EXECUTE ON ROUTINE ${signature} FROM PUBLIC;`).join('\n'));
  return [];
}
