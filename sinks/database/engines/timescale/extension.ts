import type { SqlSession } from '../port.ts';

/** TimescaleDB as this database has it. */
export interface Extension {
  /** as in pg_extension: `2.28.3`, `2.23.0-dev` */
  version: string;
  /** schema of its functions: `public` unless somebody chose another */
  schema: string;
  /** `timescale` (community features: compression, chunks made and detached by hand) or `apache` */
  licence: string;
}

/** Oldest version that has the columnstore's interface. */
export const LEAST_VERSION = [2, 19] as const;

const FIND = `
  SELECT e.extversion AS version, n.nspname AS schema, coalesce(current_setting('timescaledb.license', true), '') AS licence
  FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'`;
// The loader's own parameter: there only where shared_preload_libraries has it (that one needs a superuser to read).
const AVAILABLE = `
  SELECT default_version AS version FROM pg_available_extensions
  WHERE name = 'timescaledb' AND current_setting('timescaledb.max_background_workers', true) IS NOT NULL`;

/** The extension of this database, whatever its version and licence. */
export async function findExtension(client: SqlSession): Promise<Extension | undefined> {
  const { rows } = await client.query<{ version: string; schema: string; licence: string }>(FIND);
  return rows[0];
}

/** Version of an extension that is loaded by the server but not created in this database. */
export async function findAvailable(client: SqlSession): Promise<string | undefined> {
  const { rows } = await client.query<{ version: string }>(AVAILABLE);
  return rows[0]?.version;
}

/** Whether hypertables are worth it here: new enough, and licensed for compression. */
export function isUsable({ version, licence }: Pick<Extension, 'version' | 'licence'>): boolean {
  return isAtLeast(version, LEAST_VERSION) && licence === 'timescale';
}

export function isAtLeast(version: string, [major, minor]: readonly [number, number]): boolean {
  const [ours = 0, part = 0] = version.split('.').map((one) => Number.parseInt(one, 10));
  return ours > major || (ours === major && part >= minor);
}
