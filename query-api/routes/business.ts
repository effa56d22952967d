import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { businessOf, checkCharges, findPlan, minorUnitOf, type Plan, whatIf } from '../../billing/index.ts';
import { TidemarkError } from '../../schemas/index.ts';
import { limitOf, listOf, requirePlatform, tenantsOf, timeOf } from '../access.ts';
import { keepEveryDigit } from '../exact-json.ts';
import type { QueryOptions } from '../options.ts';
import { ChargeShape } from './rating.ts';

const DAY = 86_400_000;
const Range = Type.Object({
  from: Type.Optional(Type.String({ description: 'ISO 8601; default: 30 days before `to`' })),
  to: Type.Optional(Type.String({ description: 'ISO 8601, exclusive; default: now' })),
  top: Type.Optional(Type.String({ description: 'customers in the tops; default 10' })),
  meter: Type.Optional(Type.String({ description: 'what usage is; default api_calls' })),
});
const WhatIfBody = Type.Object(
  {
    plan: Type.Optional(Type.String({ maxLength: 160, description: 'key, or key@version' })),
    currency: Type.Optional(Type.String({ description: 'with charges' })),
    charges: Type.Optional(Type.Unsafe<unknown>(ChargeShape)),
    tenant: Type.Optional(Type.String({ maxLength: 128, description: 'default: everybody' })),
    from: Type.String({ description: 'ISO 8601: statements whose periods ended after this' }),
    to: Type.String({ description: '… and until this' }),
  },
  { additionalProperties: false },
);

/** The business in numbers, and what other prices would make of them. */
export const businessRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory, billing, now }) => {
  keepEveryDigit(app);

  app.get(
    '/api/v1/business',
    {
      schema: {
        tags: ['billing'],
        summary: 'MRR and its movement, customers, revenue by customer and plan',
        querystring: Range,
      },
    },
    async (request) => {
      requirePlatform(await request.authorize('read'));
      const parameters = request.query as Record<string, unknown>;
      const to = timeOf('to', parameters.to) ?? now();
      const from = timeOf('from', parameters.from) ?? to - 30 * DAY;
      if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');
      const top = limitOf(parameters.top, 10, 1000);
      return businessOf({ ...billing, pool }, { from, to, top, meter: String(parameters.meter ?? 'api_calls') });
    },
  );

  app.post<{ Body: Static<typeof WhatIfBody> }>(
    '/api/v1/rating/what-if',
    {
      schema: {
        tags: ['billing'],
        summary: 'Closed periods rated under another plan or other charges, for one tenant or all',
        body: WhatIfBody,
      },
    },
    async (request) => {
      const principal = await request.authorize('read');
      requirePlatform(principal);
      const { body } = request;
      const from = timeOf('from', body.from) ?? 0;
      const to = timeOf('to', body.to) ?? 0;
      if (from >= to) throw new TidemarkError('invalid_range', '`from` must be before `to`');
      const tenants = await tenantsOf(principal, directory, listOf(body.tenant));
      const tenantIds = tenants?.map((tenant) => tenant.id) ?? null;
      return whatIf({ ...billing, pool, now }, await planOf(body), { tenantIds, from, to });
    },
  );

  async function planOf(body: Static<typeof WhatIfBody>): Promise<Plan> {
    if (body.plan !== undefined) {
      const plan = await findPlan(pool, body.plan);
      if (plan === undefined) throw new TidemarkError('unknown_plan', `there is no plan ${body.plan}`);
      return plan;
    }
    if (body.charges === undefined || body.currency === undefined)
      throw new TidemarkError('invalid_body', 'give a plan, or currency and charges');
    minorUnitOf(body.currency);
    const charges = checkCharges(body.charges);
    return {
      key: '',
      version: 0,
      name: '',
      currency: body.currency,
      interval: 'month',
      charges,
      createdAt: new Date(now()),
    };
  }
};
