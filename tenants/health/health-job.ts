/** Every five minutes: how every tenant's schema is, against its own history. */
import type { Pool } from 'pg';
import type { Job } from '../../schemas/index.ts';
import { tenantIdOf } from '../schema/names.ts';
import { dropKeptSchemas, dryRun, type MigrationDeps, type Structure } from '../tenant-migrations/index.ts';
import { type Finding, findAnomalies, type Limits, type Look } from './anomalies.ts';
import { lookAtSchema } from './look.ts';

export interface HealthDeps {
  migrations: MigrationDeps;
  limits: Limits;
  /** schemas at once */
  parallel: number;
  /** statements of a tenant that run longer count as slow, seconds */
  slowSeconds: number;
  /** hours for which the old schema of a blue/green change is kept */
  keepHours: number;
  /** ids of the meters that count calls, and those of them that failed */
  meters: { calls: number; errors: number };
  /** a finding that the look before did not have */
  onFinding(tenantId: string, finding: Finding): void;
  /** Unix ms */
  now(): number;
}

interface Subject {
  id: string;
  createdAt: Date;
  events: number;
  errors: number;
  lastEvent: Date | null;
  before: Finding['kind'][] | null;
}

const ACTIVITY = `
  INSERT INTO schema_activity AS a (tenant_id, received, changed_at)
  SELECT tenant_id, sum(received), $1 FROM accounting GROUP BY tenant_id HAVING sum(received) > 0
  ON CONFLICT (tenant_id) DO UPDATE SET received = excluded.received,
    changed_at = CASE WHEN a.received = excluded.received THEN a.changed_at ELSE excluded.changed_at END`;
const SUBJECTS = `
  SELECT t.id, t.created_at AS "createdAt", coalesce(c.events, 0)::float8 AS events, coalesce(c.errors, 0)::float8 AS errors,
    a.changed_at AS "lastEvent", h.kinds AS before
  FROM tenant_schemas AS s JOIN tenants AS t ON t.id = s.tenant_id
  LEFT JOIN (
    SELECT tenant_id, sum(count) FILTER (WHERE meter_id = $1) AS events, sum(count) FILTER (WHERE meter_id = $2) AS errors
    FROM rollups_minute WHERE meter_id IN ($1, $2) AND bucket >= $3 GROUP BY tenant_id) AS c ON c.tenant_id = t.id
  LEFT JOIN schema_activity AS a ON a.tenant_id = t.id
  LEFT JOIN LATERAL (
    SELECT ARRAY(SELECT jsonb_array_elements(findings) ->> 'kind') AS kinds FROM schema_health WHERE tenant_id = t.id ORDER BY at DESC LIMIT 1) AS h ON true
  WHERE t.status IN ('ready', 'suspended') ORDER BY t.id`;
const SLOW = `
  SELECT usename AS role, count(*)::int AS n FROM pg_stat_activity
  WHERE usename ~ '^tenant_[0-9a-f]{32}$' AND state = 'active' AND clock_timestamp() - query_start > make_interval(secs => $1) GROUP BY 1`;
/** A day of looks. */
const HISTORY = `
  SELECT extract(epoch FROM at)::float8 * 1000 AS at, bytes::float8 AS bytes, slow_queries AS "slowQueries", events::float8 AS events, errors::float8 AS errors
  FROM (SELECT * FROM schema_health WHERE tenant_id = $1 ORDER BY at DESC LIMIT 288) AS day ORDER BY at`;
const KEEP = `
  INSERT INTO schema_health (tenant_id, at, bytes, tables, slow_queries, events, errors, version, drift, findings)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`;
const HOUR_MS = 3_600_000;
const HISTORY_DAYS = 7;

export function createHealthJob(deps: HealthDeps): Job {
  const structures = rememberStructures(deps.migrations);
  return {
    name: 'schema_health',
    schedule: '*/5 * * * *',
    async run({ signal, progress }) {
      const { pool } = deps.migrations;
      const at = new Date(deps.now());
      await pool.query(ACTIVITY, [at]);
      const since = new Date(at.getTime() - HOUR_MS);
      const { rows } = await pool.query<Subject>(SUBJECTS, [deps.meters.calls, deps.meters.errors, since]);
      const slow = await slowQueries(deps);
      const expected = await structures();
      const counts: Record<string, number> = {};
      const queue = [...rows];
      const worker = async () => {
        for (let subject = queue.shift(); subject !== undefined; subject = queue.shift()) {
          signal.throwIfAborted();
          for (const { kind } of await examine(deps, subject, { at, slow: slow.get(subject.id) ?? 0, expected }))
            counts[kind] = (counts[kind] ?? 0) + 1;
        }
      };
      await progress({ schemas: rows.length });
      await Promise.all(Array.from({ length: deps.parallel }, worker));
      await pool.query('DELETE FROM schema_health WHERE at < $1', [
        new Date(at.getTime() - HISTORY_DAYS * 24 * HOUR_MS),
      ]);
      const dropped = await dropKeptSchemas(deps.migrations, new Date(at.getTime() - deps.keepHours * HOUR_MS));
      return { schemas: rows.length, findings: counts, dropped };
    },
  };
}

async function examine(
  deps: HealthDeps,
  subject: Subject,
  { at, slow, expected }: { at: Date; slow: number; expected: readonly Structure[] },
): Promise<Finding[]> {
  const { pool } = deps.migrations;
  const seen = await lookAtSchema(deps.migrations, subject.id, expected);
  const { rows: history } = await pool.query<Look>(HISTORY, [subject.id]);
  const look: Look = {
    at: at.getTime(),
    bytes: seen.bytes,
    slowQueries: slow,
    events: subject.events,
    errors: subject.errors,
  };
  const activity = { lastEvent: subject.lastEvent?.getTime() ?? null, since: subject.createdAt.getTime() };
  const findings = findAnomalies(look, history, activity, deps.limits);
  if (seen.refused !== null) findings.push({ kind: 'unreachable', alert: true, detail: seen.refused });
  if (seen.drift.length > 0) findings.push({ kind: 'drift', alert: true, detail: seen.drift.slice(0, 10).join('; ') });
  const behind = expected.length - 1 - seen.applied;
  if (behind > 0) findings.push({ kind: 'behind', alert: false, detail: `${behind} migrations are not applied` });
  await pool.query(KEEP, [
    subject.id,
    at,
    seen.bytes,
    seen.tables,
    slow,
    subject.events,
    subject.errors,
    seen.version,
    seen.drift.length,
    JSON.stringify(findings),
  ]);
  for (const finding of findings)
    if (subject.before?.includes(finding.kind) !== true) deps.onFinding(subject.id, finding);
  return findings;
}

async function slowQueries({ migrations, slowSeconds }: HealthDeps): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  const look = async (pool: Pool) => {
    for (const { role, n } of (await pool.query<{ role: string; n: number }>(SLOW, [slowSeconds])).rows)
      found.set(tenantIdOf(role) ?? '', n);
  };
  for (const pool of await migrations.databases()) await look(pool);
  return found;
}

/** What the migrations make, found once for each set of them. */
function rememberStructures(migrations: MigrationDeps): () => Promise<readonly Structure[]> {
  let known: { key: string; structures: readonly Structure[] } | undefined;
  return async () => {
    const all = migrations.migrations();
    const key = all.map((one) => one.sha256).join();
    if (known?.key !== key) {
      const trial = await dryRun(migrations.pool, all, all.length, { lockMs: 5_000, statementMs: 60_000 });
      known = { key, structures: trial.structures };
    }
    return known.structures;
  };
}
