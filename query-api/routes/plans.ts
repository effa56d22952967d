import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { createPlan, findPlan, listPlans, type Plan } from '../../billing/index.ts';
import { TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, requirePlatform, toCursor } from '../access.ts';
import { keepEveryDigit } from '../exact-json.ts';
import type { QueryOptions } from '../options.ts';
import { ChargeShape } from './rating.ts';

const NewPlan = Type.Object(
  {
    key: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' }),
    name: Type.String({ minLength: 1, maxLength: 256, pattern: '^[^\\u0000-\\u001f\\u007f]+$' }),
    currency: Type.String({ description: 'ISO 4217' }),
    interval: Type.String({ description: 'month, quarter, year' }),
    charges: Type.Unsafe<unknown>(ChargeShape),
  },
  { additionalProperties: false },
);
const Page = Type.Object({ limit: Type.Optional(Type.String()), cursor: Type.Optional(Type.String()) });

/** Plans: versions that never change. */
export const planRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, billing }) => {
  keepEveryDigit(app);

  app.post<{ Body: Static<typeof NewPlan> }>(
    '/api/v1/plans',
    {
      schema: {
        tags: ['billing'],
        summary: 'Make a plan, or the next version of one; a version never changes',
        body: NewPlan,
      },
    },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const plan = await createPlan(pool, (slug) => billing.findMeter(slug, null), request.body);
      return reply.code(201).send(present(plan));
    },
  );

  app.get(
    '/api/v1/plans',
    { schema: { tags: ['billing'], summary: 'Plans in their latest versions', querystring: Page } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const after = String(fromCursor(parameters.cursor, ['string'])?.[0] ?? '');
      const plans = await listPlans(pool, { after, limit: limit + 1 });
      return {
        data: plans.slice(0, limit).map(present),
        next: plans.length > limit ? toCursor([plans[limit - 1]?.key ?? '']) : null,
      };
    },
  );

  app.get(
    '/api/v1/plans/:key',
    { schema: { tags: ['billing'], summary: 'A plan by key (its latest version) or key@version' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const { key } = request.params as { key: string };
      const plan = await findPlan(pool, key);
      if (plan === undefined) throw new TidemarkError('unknown_plan', `there is no plan ${key}`);
      return present(plan);
    },
  );

  app.get(
    '/api/v1/plans/:key/versions',
    { schema: { tags: ['billing'], summary: 'Every version of a plan, newest first' } },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const { key } = request.params as { key: string };
      const plans = await listPlans(pool, { key });
      if (plans.length === 0) throw new TidemarkError('unknown_plan', `there is no plan ${key}`);
      return { data: plans.map(present), next: null };
    },
  );
};

const present = (plan: Plan) => ({
  key: plan.key,
  version: plan.version,
  name: plan.name,
  currency: plan.currency,
  interval: plan.interval,
  charges: plan.charges.map((one) => one.charge),
  created_at: plan.createdAt.toISOString(),
});
