import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import {
  type Budget,
  createBudget,
  type Grant,
  grantCredit,
  listBudgets,
  loadGrants,
  minorUnitOf,
  removeBudget,
} from '../../billing/index.ts';
import { TidemarkError } from '../../schemas/index.ts';
import { listOf, requirePlatform, tenantsOf, timeOf, UUID } from '../access.ts';
import { keepEveryDigit } from '../exact-json.ts';
import type { QueryOptions } from '../options.ts';

const Amount = Type.Unsafe<unknown>(Type.Unknown({ description: 'decimal' }));
const NewGrant = Type.Object(
  {
    tenant: Type.String({ maxLength: 128 }),
    currency: Type.String({ description: 'ISO 4217' }),
    amount: Amount,
    note: Type.Optional(Type.String({ maxLength: 1000, pattern: '^[^\\u0000]*$' })),
    expires_at: Type.Optional(Type.String({ description: 'ISO 8601: of no use to periods that begin later' })),
  },
  { additionalProperties: false },
);
const NewBudget = Type.Object(
  {
    tenant: Type.String({ maxLength: 128 }),
    currency: Type.String({ description: 'ISO 4217' }),
    amount: Amount,
    thresholds: Type.Optional(
      Type.Array(Type.Integer({ minimum: 1, maximum: 1000 }), { minItems: 1, maxItems: 20, description: 'per cent' }),
    ),
  },
  { additionalProperties: false },
);
const Filter = Type.Object({ tenant: Type.Optional(Type.String()) });

/** Prepaid credit and budgets. */
export const creditRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory }) => {
  keepEveryDigit(app);
  const tenantId = async (reference: string): Promise<string> => {
    const tenant = await directory.find(reference);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${reference}`);
    return tenant.id;
  };

  app.post<{ Body: Static<typeof NewGrant> }>(
    '/api/v1/credits',
    { schema: { tags: ['billing'], summary: 'Grant prepaid credit; statements burn it down', body: NewGrant } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { tenant, currency, amount, note, expires_at: expiresAt } = request.body;
      const grant = await grantCredit(pool, {
        tenantId: await tenantId(tenant),
        currency,
        amount,
        note: note ?? null,
        expiresAt: timeOf('expires_at', expiresAt) ?? null,
      });
      return reply.code(201).send(present(grant));
    },
  );

  app.get(
    '/api/v1/credits',
    { schema: { tags: ['billing'], summary: "A tenant's credit, and what is left of it", querystring: Filter } },
    async (request) => {
      const principal = await request.authorize('read');
      const tenants = await tenantsOf(principal, directory, listOf((request.query as Record<string, unknown>).tenant));
      if (tenants === null) throw new TidemarkError('invalid_parameter', 'tenant is needed');
      const grants = await loadGrants(
        pool,
        tenants.map((tenant) => tenant.id),
      );
      return { data: grants.map(present), next: null };
    },
  );

  app.post<{ Body: Static<typeof NewBudget> }>(
    '/api/v1/budgets',
    { schema: { tags: ['billing'], summary: 'Set a budget; budget.crossed tells of its thresholds', body: NewBudget } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { tenant, currency, amount, thresholds } = request.body;
      const budget = await createBudget(pool, {
        tenantId: await tenantId(tenant),
        currency,
        amount,
        thresholds: thresholds ?? [50, 80, 100],
      });
      return reply.code(201).send(shown(budget));
    },
  );

  app.get(
    '/api/v1/budgets',
    { schema: { tags: ['billing'], summary: 'Budgets', querystring: Filter } },
    async (request) => {
      const principal = await request.authorize('read');
      const tenants = await tenantsOf(principal, directory, listOf((request.query as Record<string, unknown>).tenant));
      const budgets = await listBudgets(pool, tenants?.map((tenant) => tenant.id) ?? null);
      return { data: budgets.map(shown), next: null };
    },
  );

  app.delete(
    '/api/v1/budgets/:id',
    { schema: { tags: ['billing'], summary: 'Remove a budget' } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { id } = request.params as { id: string };
      if (!UUID.test(id) || !(await removeBudget(pool, id)))
        throw new TidemarkError('not_found', `there is no budget ${id}`);
      return reply.code(204).send();
    },
  );
};

const present = (grant: Grant) => ({
  id: grant.id,
  tenant_id: grant.tenantId,
  currency: grant.currency,
  amount: grant.amount,
  left: grant.left.toFixed(minorUnitOf(grant.currency)),
  note: grant.note,
  granted_at: grant.grantedAt.toISOString(),
  expires_at: grant.expiresAt?.toISOString() ?? null,
});
const shown = ({ tenant_id: _id, ...budget }: Budget) => budget;
