import { TidemarkError } from '../../schemas/index.ts';
import { tenantIdOf } from '../schema/names.ts';
import { type AppliedVersion, missingOf } from './apply.ts';
import { dryRun, type Timeouts, type Undo } from './dry-run.ts';
import type { MigrationDeps } from './places.ts';
import { diffStructures, lossesOf, type StructureDiff } from './structure.ts';

export const STRATEGIES = ['in_place', 'blue_green'] as const;
export type Strategy = (typeof STRATEGIES)[number];

/** What a run would do. */
export interface MigrationPlan {
  strategy: Strategy;
  /** why it is blue/green, in words */
  reasons: string[];
  /** ascending */
  versions: PlannedVersion[];
  /** tenants that lack some of them, in the order in which they come */
  tenants: string[];
  /** what all of them together change in the structure of a tenant that lacks all */
  diff: StructureDiff;
  /** tables and columns that are dropped with what is in them */
  losses: string[];
}

export interface PlannedVersion {
  version: number;
  name: string;
  sha256: string;
  up: string;
  down: string | null;
  diff: StructureDiff;
  undo: Undo['kind'];
}

/** Small customers first: what goes wrong goes wrong for few. One on its way to another shard is left for the next run. */
const TENANTS = `
  SELECT t.id FROM tenant_schemas AS s JOIN tenants AS t ON t.id = s.tenant_id WHERE t.status IN ('ready', 'suspended')
    AND NOT EXISTS (SELECT FROM tenant_moves AS m WHERE m.tenant_id = t.id)
  ORDER BY array_position(ARRAY['free', 'discovered', 'standard', 'enterprise'], t.tier), t.created_at, t.id`;

/** What is applied in every tenant's schema, over all databases. */
export async function appliedByTenant(deps: MigrationDeps): Promise<Map<string, AppliedVersion[]>> {
  const { rows: tenants } = await deps.pool.query<{ id: string }>(TENANTS);
  const applied = new Map<string, AppliedVersion[]>(tenants.map(({ id }) => [id, []]));
  for (const pool of await deps.databases()) {
    const { rows } = await pool.query<AppliedVersion & { schema: string }>(
      'SELECT schema, version::float8 AS version, name, sha256 FROM tidemark.tenant_migrations ORDER BY schema, version',
    );
    for (const { schema, ...row } of rows) applied.get(tenantIdOf(schema) ?? '')?.push(row);
  }
  return applied;
}

/**
 * What is to be done, and what it will change: found by a dry run on a test schema.
 * @param chosen tenants to migrate; undefined: all
 * @param strategy undefined: blue/green where the way back is not exact or something would be lost
 * @throws TidemarkError `migration_changed` | `migration_missing` | `migration_order`; `invalid_migration` with what PostgreSQL says
 */
export async function planMigration(
  deps: MigrationDeps,
  timeouts: Timeouts,
  { chosen, strategy }: { chosen?: readonly string[] | undefined; strategy?: Strategy | undefined } = {},
): Promise<MigrationPlan> {
  const migrations = deps.migrations();
  const applied = await appliedByTenant(deps);
  const tenants: string[] = [];
  let from = migrations.length;
  for (const [tenant, rows] of applied) {
    if (chosen !== undefined && !chosen.includes(tenant)) continue;
    if (missingOf(migrations, rows, `the schema of tenant ${tenant}`).length === 0) continue;
    tenants.push(tenant);
    from = Math.min(from, rows.length);
  }
  const trial = await dryRun(deps.pool, migrations, from, timeouts).catch((error) => {
    throw refused(error);
  });
  const step = (n: number) => diffStructures(trial.structures[n] ?? [], trial.structures[n + 1] ?? []);
  const versions = migrations.slice(from).map(
    (one, i): PlannedVersion => ({
      ...one,
      diff: step(from + i),
      undo: trial.undo.get(one.version)?.kind ?? 'none',
    }),
  );
  const losses = versions.flatMap((one) => lossesOf(one.diff));
  const reasons = [
    ...versions.filter((one) => one.undo === 'none').map((one) => `${one.version}_${one.name} has no way back`),
    ...versions
      .filter((one) => one.undo === 'differs')
      .map((one) => `undoing ${one.version}_${one.name} leaves a difference`),
    ...losses.map((line) => `${line} is dropped with what is in it`),
  ];
  return {
    strategy: strategy ?? (reasons.length > 0 ? 'blue_green' : 'in_place'),
    reasons,
    versions,
    tenants,
    diff: diffStructures(trial.structures[from] ?? [], trial.structures.at(-1) ?? []),
    losses,
  };
}

/** What PostgreSQL refuses in the dry run is the author's to mend. */
function refused(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (error instanceof TidemarkError || !(error instanceof Error) || !/^[0-9A-Z]{5}$/.test(code)) return error;
  return new TidemarkError('invalid_migration', `${error.message} (SQLSTATE ${code})`, { cause: error });
}
