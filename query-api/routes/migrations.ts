import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { TidemarkError } from '../../schemas/index.ts';
import {
  getRun,
  listRuns,
  listTargets,
  MIGRATION_JOB,
  type MigrationPlan,
  type MigrationRun,
  pauseRun,
  planMigration,
  resumeRun,
  retryTargets,
  STRATEGIES,
  skipTarget,
  startMigration,
  startRollback,
  type Target,
} from '../../tenants/index.ts';
import { fromCursor, limitOf, requirePlatform, toCursor, UUID } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Strategy = Type.Union(STRATEGIES.map((one) => Type.Literal(one)));
const Plan = Type.Object(
  {
    strategy: Type.Optional(Strategy),
    tenants: Type.Optional(Type.Array(Type.String({ maxLength: 128 }), { minItems: 1, maxItems: 10_000 })),
  },
  { additionalProperties: false },
);
const Start = Type.Object(
  {
    ...Plan.properties,
    parallel: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })),
    on_failure: Type.Optional(Type.Union([Type.Literal('abort'), Type.Literal('continue')])),
  },
  { additionalProperties: false },
);
const OneTenant = Type.Object({ tenant: Type.String({ maxLength: 128 }) }, { additionalProperties: false });
const MaybeTenant = Type.Partial(OneTenant, { additionalProperties: false });
const Page = Type.Object({ limit: Type.Optional(Type.String()), cursor: Type.Optional(Type.String()) });

/** Migrations of tenants' schemas: planned, carried out in waves by a job, paused, taken back. */
export const migrationRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, tenancy, directory, jobs }) => {
  const deps = tenancy.migrations;
  const tags = ['migrations'];
  const tenantOf = async (reference: string): Promise<string> => {
    const tenant = await directory.find(reference);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${reference}`);
    return tenant.id;
  };
  const chosen = async (references: readonly string[] | undefined) =>
    references === undefined ? undefined : await Promise.all(references.map(tenantOf));
  const runOf = async (id: string): Promise<MigrationRun> => {
    if (!UUID.test(id)) throw new TidemarkError('not_found', `there is no migration run ${id}`);
    return getRun(pool, id);
  };
  const detailed = async (id: string) => {
    const run = await runOf(id);
    const targets = await listTargets(pool, id);
    return {
      ...presentRun(run),
      counts: countsOf(targets),
      plan: presentPlan(run.plan),
      targets: targets.map(presentTarget),
    };
  };
  /** Hands the run to the job and says how it stands. */
  const carryOut = async (run: MigrationRun) => {
    await jobs.request(MIGRATION_JOB, { run: run.id });
    return detailed(run.id);
  };

  app.post<{ Body: Static<typeof Plan> }>(
    '/api/v1/migrations/plan',
    {
      schema: {
        tags,
        summary: 'What a migration would do: SQL and the difference it makes; changes nothing',
        body: Plan,
      },
    },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const { strategy, tenants } = request.body;
      return presentPlan(await planMigration(deps, tenancy.runOptions, { chosen: await chosen(tenants), strategy }));
    },
  );

  app.post<{ Body: Static<typeof Start> }>(
    '/api/v1/migrations',
    { schema: { tags, summary: 'Migrate tenants: test schema, a few, 25 %, 50 %, all', body: Start } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { strategy, tenants, parallel, on_failure: onFailure } = request.body;
      const { runOptions } = tenancy;
      const run = await startMigration(deps, {
        strategy,
        tenants: await chosen(tenants),
        options: {
          ...runOptions,
          parallel: Math.min(parallel ?? runOptions.parallel, runOptions.parallel),
          onFailure: onFailure ?? 'abort',
        },
      });
      return reply.code(202).send(await carryOut(run));
    },
  );

  app.get(
    '/api/v1/migrations',
    { schema: { tags, summary: 'Migration runs, newest first', querystring: Page } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const parameters = request.query as Record<string, string | undefined>;
      const limit = limitOf(parameters.limit, 20, 200);
      const [createdAt, id] = fromCursor(parameters.cursor, ['moment', 'uuid']) ?? [];
      const before = id === undefined ? undefined : { createdAt: String(createdAt), id: String(id) };
      const runs = await listRuns(pool, { limit: limit + 1, before });
      const last = runs[limit - 1];
      return {
        data: runs.slice(0, limit).map(presentRun),
        next: runs.length > limit && last !== undefined ? toCursor([last.createdAt.toISOString(), last.id]) : null,
      };
    },
  );

  app.get<{ Params: { id: string } }>(
    '/api/v1/migrations/:id',
    { schema: { tags, summary: 'One run: plan, and how far each tenant is' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      return detailed(request.params.id);
    },
  );

  const command = (name: string, summary: string, act: (run: MigrationRun) => Promise<MigrationRun>) =>
    app.post<{ Params: { id: string } }>(
      `/api/v1/migrations/:id/${name}`,
      { schema: { tags, summary } },
      async (request, reply) => {
        requirePlatform(await request.authorize('admin'));
        const run = await act(await runOf(request.params.id));
        return reply.code(202).send(run.status === 'running' ? await carryOut(run) : await detailed(run.id));
      },
    );
  command('pause', 'Begin no further tenant', (run) => pauseRun(pool, run.id));
  command('resume', 'Go on after a pause or a failure', (run) => resumeRun(pool, run.id));
  command('rollback', 'Take a run back for every tenant that it changed', (run) => startRollback(deps, run.id));

  app.post<{ Params: { id: string }; Body: Static<typeof OneTenant> }>(
    '/api/v1/migrations/:id/skip',
    { schema: { tags, summary: 'Leave one tenant out', body: OneTenant } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const run = await runOf(request.params.id);
      await skipTarget(pool, run.id, await tenantOf(request.body.tenant));
      return detailed(run.id);
    },
  );

  app.post<{ Params: { id: string }; Body: Static<typeof MaybeTenant> }>(
    '/api/v1/migrations/:id/retry',
    { schema: { tags, summary: 'Try failed tenants (or one tenant) again', body: MaybeTenant } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const run = await runOf(request.params.id);
      const { tenant } = request.body;
      await retryTargets(pool, run.id, tenant === undefined ? null : await tenantOf(tenant));
      return reply.code(202).send(await carryOut(await resumeRun(pool, run.id)));
    },
  );
};

function presentPlan(plan: MigrationPlan) {
  return { ...plan, tenants: plan.tenants.length, tenant_ids: plan.tenants };
}

function presentRun(run: MigrationRun) {
  return {
    id: run.id,
    kind: run.kind,
    strategy: run.strategy,
    status: run.status,
    undoes: run.undoes,
    versions: run.versions,
    error: run.error,
    created_at: run.createdAt.toISOString(),
    ended_at: run.endedAt?.toISOString() ?? null,
  };
}

function presentTarget(target: Target) {
  return {
    tenant_id: target.tenantId,
    wave: target.wave,
    status: target.status,
    step: target.step,
    attempt: target.attempt,
    error: target.error,
    started_at: target.startedAt?.toISOString() ?? null,
    ended_at: target.endedAt?.toISOString() ?? null,
  };
}

function countsOf(targets: readonly Target[]) {
  const counts = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0 };
  for (const { status } of targets) counts[status]++;
  return counts;
}
