import type { Check } from '../../../../schemas/index.ts';
import type { SqlSession, StorageEngine } from '../port.ts';
import { type Extension, findAvailable, findExtension, isAtLeast, isUsable, LEAST_VERSION } from './extension.ts';

const COLUMNSTORES = `
  SELECT h.hypertable_name AS table, h.compression_enabled AS enabled, h.num_chunks::int AS chunks,
    (SELECT count(*)::int FROM timescaledb_information.chunks AS c
     WHERE c.hypertable_schema = h.hypertable_schema AND c.hypertable_name = h.hypertable_name AND c.is_compressed) AS compressed
  FROM timescaledb_information.hypertables AS h WHERE h.hypertable_schema = 'tidemark' ORDER BY 1`;
const POLICIES = `
  SELECT j.hypertable_name AS table, s.last_run_status AS status, s.last_run_started_at::text AS started, s.total_failures::int AS failures
  FROM timescaledb_information.jobs AS j LEFT JOIN timescaledb_information.job_stats AS s USING (job_id)
  WHERE j.hypertable_schema = 'tidemark' AND j.config ? 'compress_after' ORDER BY 1`;
const WORKERS = `SELECT current_setting('timescaledb.max_background_workers', true)::int AS workers`;
const LEAST = LEAST_VERSION.join('.');

/**
 * What `tidemark doctor` says about the storage engine: which one, why, and whether compression runs.
 * @param engine of the database; undefined before its first migration
 */
export async function checkTimescale(session: SqlSession, engine: StorageEngine['name'] | undefined): Promise<Check[]> {
  const extension = await findExtension(session);
  const name = 'storage engine';
  if (engine !== 'timescale') {
    const which =
      engine === undefined ? await future(session, extension) : `native partitions${await reason(session, extension)}`;
    return [{ name, ok: true, detail: which }];
  }
  if (extension === undefined) return [];
  const { version, licence } = extension;
  const current = isAtLeast(version, LEAST_VERSION);
  const checks: Check[] = [
    {
      name,
      ok: current,
      detail: `TimescaleDB ${version}${current ? '' : `: ${LEAST} or later is needed`}, hypertables`,
    },
    {
      name: 'storage licence',
      ok: true,
      detail:
        licence === 'timescale'
          ? 'timescale (community features)'
          : `${licence}: no compression, chunks are copied when they are detached; the community build has both`,
    },
  ];
  return licence === 'timescale' ? [...checks, ...(await checkCompression(session))] : checks;
}

async function checkCompression(session: SqlSession): Promise<Check[]> {
  const { rows: tables } = await session.query<{ table: string; enabled: boolean; chunks: number; compressed: number }>(
    COLUMNSTORES,
  );
  const plain = tables.filter((one) => !one.enabled).map((one) => one.table);
  const chunks = tables.reduce((sum, one) => sum + one.chunks, 0);
  const compressed = tables.reduce((sum, one) => sum + one.compressed, 0);
  const { rows: policies } = await session.query<{
    table: string;
    status: string | null;
    started: string | null;
    failures: number | null;
  }>(POLICIES);
  const failed = policies.filter((one) => one.status === 'Failed').map((one) => one.table);
  const { rows: workers } = await session.query<{ workers: number | null }>(WORKERS);
  const idle = policies.length > 0 && (workers[0]?.workers ?? 0) === 0;
  return [
    {
      name: 'storage columnstore',
      // Before the first start nothing is stored, and nothing is switched on.
      ok: plain.length === 0 || chunks === 0,
      detail: `${compressed} of ${chunks} chunks compressed${plain.length > 0 ? `; stored as rows: ${plain.join(', ')} (the next start switches it on, unless row security is)` : ''}`,
    },
    {
      name: 'storage policies',
      ok: failed.length === 0 && !idle,
      detail: idle
        ? 'timescaledb.max_background_workers is 0: nothing is ever compressed'
        : failed.length > 0
          ? `the last run failed for ${failed.join(', ')}: see timescaledb_information.job_errors`
          : policies.length === 0
            ? 'none: COMPRESS_AFTER_DAYS is 0'
            : `${policies.length}, last started ${
                policies
                  .map((one) => one.started ?? '')
                  .sort()
                  .at(-1) || 'not yet'
              }`,
    },
  ];
}

/** What the first migration will make. */
async function future(session: SqlSession, extension: Extension | undefined): Promise<string> {
  const available = extension?.version ?? (await findAvailable(session));
  if (extension === undefined ? available !== undefined : isUsable(extension))
    return `TimescaleDB ${available}, from the first start`;
  return `native partitions, from the first start${await reason(session, extension)}`;
}

/** Why it is not TimescaleDB, where one might have thought so. */
async function reason(session: SqlSession, extension: Extension | undefined): Promise<string> {
  if (extension === undefined) {
    const available = await findAvailable(session);
    return available === undefined
      ? ''
      : `; TimescaleDB ${available} is loaded but not created here: CREATE EXTENSION timescaledb before the first start`;
  }
  const { version, licence } = extension;
  if (!isAtLeast(version, LEAST_VERSION)) return `; TimescaleDB ${version} is too old: ${LEAST} or later`;
  if (licence !== 'timescale')
    return `; TimescaleDB ${version} has the licence ${licence || 'unknown'}, which has no compression`;
  return `; TimescaleDB ${version} came after the data: hypertables are made of empty tables only`;
}
