import type { Check } from '../../schemas/index.ts';
import { detectEngine } from './engines/detect.ts';
import type { SqlSession } from './engines/port.ts';
import { checkTimescale } from './engines/timescale/check.ts';
import { readMigrations } from './migrate.ts';

const LEAST_MAJOR = 15;
const SERVER = `
  SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
    pg_encoding_to_char(encoding) AS encoding, current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit,
    current_setting('max_connections')::int AS connections, to_regclass('tidemark.schema_migrations')::text AS history,
    has_database_privilege(current_database(), 'CREATE') AS may_create
  FROM pg_database WHERE datname = current_database()`;

interface Server {
  version: string;
  number: number;
  encoding: string;
  fsync: string;
  commit: string;
  connections: number;
  history: string | null;
  may_create: boolean;
}

/**
 * What `tidemark doctor` says about the database: version, durability, rights, migrations, storage engine.
 * Throws only what the connection throws.
 */
export async function checkDatabase(session: SqlSession, poolSize: number): Promise<Check[]> {
  const { rows } = await session.query<Server>(SERVER);
  const server = rows[0];
  if (server === undefined) return [];
  const durable = server.fsync === 'on' && server.commit !== 'off';
  return [
    {
      name: 'database version',
      ok: server.number >= LEAST_MAJOR * 10_000,
      detail: `PostgreSQL ${server.version}${server.number >= LEAST_MAJOR * 10_000 ? '' : `: ${LEAST_MAJOR} or later is needed`}`,
    },
    {
      name: 'database encoding',
      ok: server.encoding === 'UTF8',
      detail: server.encoding === 'UTF8' ? 'UTF8' : `${server.encoding}: make the database with ENCODING 'UTF8'`,
    },
    {
      name: 'database durability',
      ok: durable,
      detail: durable
        ? `fsync on, synchronous_commit ${server.commit}`
        : `fsync ${server.fsync}, synchronous_commit ${server.commit}: a crash may lose acknowledged events; switch both on`,
    },
    {
      name: 'database connections',
      ok: server.connections >= poolSize * 2,
      detail: `max_connections ${server.connections}, DATABASE_POOL ${poolSize} a process`,
    },
    ...(await checkMigrations(session, server)),
    ...(await checkStorage(session, server)),
  ];
}

async function checkMigrations(session: SqlSession, { history, may_create: mayCreate }: Server): Promise<Check[]> {
  const name = 'migrations';
  const ours = readMigrations();
  if (history === null)
    return [
      {
        name,
        ok: mayCreate,
        detail: mayCreate
          ? `none yet: the first start applies ${ours.length}`
          : 'the role may not create a schema: GRANT CREATE ON DATABASE … TO …',
      },
    ];
  const { rows } = await session.query<{ version: number; sha256: string }>(
    'SELECT version, sha256 FROM tidemark.schema_migrations',
  );
  const applied = new Map(rows.map((row) => [row.version, row.sha256]));
  const missing = ours.filter((one) => !applied.has(one.version)).map((one) => one.version);
  const changed = ours
    .filter((one) => (applied.get(one.version) ?? one.sha256) !== one.sha256)
    .map((one) => one.version);
  const unknown = [...applied.keys()].filter((version) => !ours.some((one) => one.version === version));
  const problems = [
    ...(missing.length > 0 ? [`missing ${missing.join(', ')}: start this version once`] : []),
    ...(changed.length > 0 ? [`changed after they were applied: ${changed.join(', ')}`] : []),
    ...(unknown.length > 0 ? [`the database is newer: it has ${unknown.join(', ')}`] : []),
  ];
  return [{ name, ok: problems.length === 0, detail: problems.join('; ') || `${ours.length} applied` }];
}

async function checkStorage(session: SqlSession, { history }: Server): Promise<Check[]> {
  if (history === null) return checkTimescale(session, undefined);
  const engine = await detectEngine(session);
  return checkTimescale(session, engine.name);
}
