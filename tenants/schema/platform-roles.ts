import type { ClientBase } from 'pg';
import { quoteIdentifier } from '../../sinks/index.ts';

/** Roles of the installation. Roles belong to the whole cluster, so their names carry the database's oid. */
export interface PlatformRoles {
  /** every tenant's login role is a member: holds CONNECT, so that no tenant changes the database's own row */
  tenants: string;
  /** owns the views over shared tables; holds SELECT on those and nothing else */
  reader: string;
  database: string;
  /** 150000, 180004, … */
  version: number;
  superuser: boolean;
}

/** Who we are and what the installation's roles are called, in one query. */
export async function platformRoles(client: ClientBase): Promise<PlatformRoles> {
  const { rows } = await client.query<{ oid: string; database: string; version: number; superuser: boolean }>(
    `SELECT d.oid::text AS oid, d.datname AS database, current_setting('server_version_num')::int AS version, r.rolsuper AS superuser
     FROM pg_database AS d, pg_roles AS r WHERE d.datname = current_database() AND r.rolname = current_user`,
  );
  const row = rows[0];
  if (row === undefined) throw new Error('pg_database has no row of the current database');
  const { oid, ...rest } = row;
  return { ...rest, tenants: `tidemark_tenants_${oid}`, reader: `tidemark_reader_${oid}` };
}

/** `CREATE ROLE` for one that may exist. Not safe against another process: call it under a lock. */
export async function ensureRole(client: ClientBase, name: string, attributes: string): Promise<void> {
  const { rowCount } = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [name]);
  if (rowCount === 0) await client.query(`CREATE ROLE ${quoteIdentifier(name)} ${attributes}`);
}

/** What `GRANT role TO member` says so that the member inherits but can't become it; PostgreSQL 15 knows no such options. */
export const inheritOnly = (version: number): string => (version >= 160000 ? ' WITH INHERIT TRUE, SET FALSE' : '');

/** An administrator that is no superuser becomes a member of the roles that it makes, so that it can act as them. */
export function joinRole(roles: PlatformRoles, role: string): string {
  if (roles.superuser) return '';
  const how = roles.version >= 160000 ? ' WITH INHERIT TRUE, SET TRUE' : '';
  return `GRANT ${quoteIdentifier(role)} TO CURRENT_USER${how};`;
}
