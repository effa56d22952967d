import type { Pool } from 'pg';
import { quoteIdentifier, withTransaction } from '../../sinks/index.ts';
import type { TenantConfiguration } from '../configuration.ts';
import type { Logger } from '../ports.ts';
import { schemaOf, tenantIdOf } from '../schema/names.ts';
import { platformRoles } from '../schema/platform-roles.ts';
import { roleSettings } from '../schema/tenant-schema.ts';

/** What one look found and ended. */
export interface WatchdogReport {
  /** sessions ended: a statement or a transaction ran longer than the tenant's limits */
  ended: number;
  /** roles whose settings were put back */
  restored: number;
  /** large objects of tenants removed; where a superuser runs us they can make none */
  objects: number;
}

export interface WatchdogDeps {
  pool: Pool;
  logger: Logger;
  /** beyond the limit, so that PostgreSQL's own timeouts come first */
  graceSeconds?: number;
}

const GRACE_SECONDS = 5;

/** A role may set its own timeouts to anything: what PostgreSQL would have ended is ended here. */
const END_RUNAWAYS = `
  SELECT a.pid, a.usename AS role, pg_terminate_backend(a.pid) AS ended
  FROM pg_stat_activity AS a JOIN tenant_schemas AS s ON s.schema = a.usename
  LEFT JOIN tenant_settings AS c USING (tenant_id)
  WHERE a.datname = current_database() AND (
    a.state = 'active' AND a.query_start < clock_timestamp() - make_interval(secs => $1 + coalesce((c.limits ->> 'statement_seconds')::float8, 30))
    OR a.xact_start < clock_timestamp() - make_interval(secs => 2 * $1 + coalesce((c.limits ->> 'statement_seconds')::float8, 30)
      + coalesce((c.limits ->> 'idle_in_transaction_seconds')::float8, 30)))`;
const ROLE_SETTINGS = `
  SELECT r.rolname AS role, coalesce(c.limits, '{}') AS limits, d.setconfig AS here, e.setconfig AS everywhere
  FROM tenant_schemas AS s JOIN pg_roles AS r ON r.rolname = s.schema
  JOIN tenant_settings AS c USING (tenant_id)
  LEFT JOIN pg_db_role_setting AS d ON d.setrole = r.oid AND d.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
  LEFT JOIN pg_db_role_setting AS e ON e.setrole = r.oid AND e.setdatabase = 0`;
const LARGE_OBJECTS = `
  SELECT lo_unlink(m.oid) FROM pg_largeobject_metadata AS m JOIN pg_roles AS r ON r.oid = m.lomowner
  JOIN tenant_schemas AS s ON s.schema = r.rolname`;

/** Looks once: ends runaway sessions, puts changed settings of roles back, removes large objects. */
export async function watchOnce({ pool, logger, graceSeconds = GRACE_SECONDS }: WatchdogDeps): Promise<WatchdogReport> {
  const { rows } = await pool.query<{ pid: number; role: string; ended: boolean }>(END_RUNAWAYS, [graceSeconds]);
  for (const { pid, role } of rows)
    logger.warn({ pid, tenant_id: tenantIdOf(role) }, 'runaway session of a tenant ended');
  const restored = await restoreSettings(pool, logger);
  const { rowCount } = await pool.query(LARGE_OBJECTS);
  return { ended: rows.length, restored, objects: rowCount ?? 0 };
}

async function restoreSettings(pool: Pool, logger: Logger): Promise<number> {
  return withTransaction(pool, async (client) => {
    const roles = await platformRoles(client);
    const { rows } = await client.query<{
      role: string;
      limits: TenantConfiguration['limits'];
      here: string[] | null;
      everywhere: string[] | null;
    }>(ROLE_SETTINGS);
    let restored = 0;
    for (const { role, limits, here, everywhere } of rows) {
      const tenantId = tenantIdOf(role);
      if (tenantId === undefined) continue;
      const wanted = roleSettings(
        tenantId,
        {
          connections: limits.connections,
          statementSeconds: limits.statement_seconds,
          idleInTransactionSeconds: limits.idle_in_transaction_seconds,
        },
        roles.superuser,
      );
      const right = new Set(Object.entries(wanted).map(([name, value]) => `${name}=${value}`));
      if (everywhere === null && here?.length === right.size && here.every((one) => right.has(normal(one)))) continue;
      const name = quoteIdentifier(schemaOf(tenantId));
      const inDatabase = `IN DATABASE ${quoteIdentifier(roles.database)}`;
      await client.query(
        [
          `ALTER ROLE ${name} RESET ALL;`,
          `ALTER ROLE ${name} ${inDatabase} RESET ALL;`,
          ...Object.entries(wanted).map(
            ([setting, value]) => `ALTER ROLE ${name} ${inDatabase} SET ${quoteIdentifier(setting)} = '${value}';`,
          ),
        ].join('\n'),
      );
      logger.warn({ tenant_id: tenantId }, 'settings of a tenant’s role were changed: put back');
      restored++;
    }
    return restored;
  });
}

/** `TimeZone=UTC` is how the catalogue writes it. */
const normal = (setting: string): string => setting.replace(/^TimeZone=/, 'timezone=').replaceAll('"', '');

/** Looks every `everyMs` until it is stopped. */
export function startWatchdog(deps: WatchdogDeps, everyMs: number): { stop(): Promise<void> } {
  let looking = Promise.resolve();
  const timer = setInterval(() => {
    looking = looking
      .then(() => watchOnce(deps))
      .then(
        () => undefined,
        (error) => deps.logger.warn({ err: error }, 'the watchdog could not look'),
      );
  }, everyMs);
  return {
    stop: async () => {
      clearInterval(timer);
      await looking;
    },
  };
}
