import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { DateTime } from 'luxon';
import { type Static, Type } from 'typebox';
import {
  CLOSE_JOB,
  changeSubscription,
  createSubscription,
  loadSubscriptions,
  periodFrom,
  rulesOf,
  type Subscription,
} from '../../billing/index.ts';
import { isZone } from '../../metering/index.ts';
import { TidemarkError } from '../../schemas/index.ts';
import { fromCursor, limitOf, listOf, requirePlatform, tenantsOf, timeOf, toCursor, UUID } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Time = (description: string) => Type.String({ maxLength: 40, description });
/** Type lists are not coerced: null stays null. */
const TimeOrNull = (description: string) =>
  Type.Unsafe<string | null>({ type: ['string', 'null'], maxLength: 40, description });
const NewSubscription = Type.Object(
  {
    tenant: Type.String({ maxLength: 128 }),
    plan: Type.String({ maxLength: 160, description: 'key (its latest version), or key@version' }),
    start: Time('ISO 8601; a date alone is midnight in time_zone'),
    end: Type.Optional(TimeOrNull('exclusive')),
    trial_until: Type.Optional(TimeOrNull('nothing is charged before')),
    time_zone: Type.Optional(Type.String({ description: 'IANA; default UTC' })),
    periods: Type.Optional(Type.Union([Type.Literal('anniversary'), Type.Literal('calendar')])),
  },
  { additionalProperties: false },
);
const Change = Type.Object(
  { plan: Type.String({ maxLength: 160 }), from: Type.Optional(Time('default: now')) },
  { additionalProperties: false },
);
const End = Type.Unsafe<{ at?: string } | null>({
  ...Type.Object({ at: Type.Optional(Time('default: now')) }, { additionalProperties: false }),
  type: ['object', 'null'],
});
const Filter = Type.Object({
  tenant: Type.Optional(Type.String()),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});

/** Which tenant is billed by which plan. */
export const subscriptionRoutes: FastifyPluginAsync<QueryOptions> = async (
  app,
  { pool, directory, jobs, billing, now },
) => {
  app.post<{ Body: Static<typeof NewSubscription> }>(
    '/api/v1/subscriptions',
    { schema: { tags: ['billing'], summary: 'Subscribe a tenant to a plan', body: NewSubscription } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { body } = request;
      const tenant = await directory.find(body.tenant);
      if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${body.tenant}`);
      const timeZone = body.time_zone ?? 'UTC';
      if (!isZone(timeZone))
        throw new TidemarkError('invalid_subscription', `time_zone "${timeZone}" is no IANA time zone`);
      const time = (name: string, text: string | null | undefined) =>
        text === null || text === undefined ? null : timeIn(name, text, timeZone);
      const subscription = await createSubscription(pool, {
        tenantId: tenant.id,
        plan: body.plan,
        start: timeIn('start', body.start, timeZone),
        end: time('end', body.end),
        trialUntil: time('trial_until', body.trial_until),
        timeZone,
        periods: body.periods ?? 'anniversary',
      });
      // One that began in the past may have periods to close: not only when the schedule comes round.
      const first = periodFrom(rulesOf(subscription), subscription.closedUntil);
      if (first !== undefined && first.to <= now() - billing.graceMs) await jobs.request(CLOSE_JOB, {});
      return reply.code(201).send(present(subscription));
    },
  );

  app.get(
    '/api/v1/subscriptions',
    { schema: { tags: ['billing'], summary: 'Subscriptions', querystring: Filter } },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const after = String(fromCursor(parameters.cursor, ['string'])?.[0] ?? '');
      const tenants = await tenantsOf(principal, directory, listOf(parameters.tenant));
      const tenantIds = tenants?.map((tenant) => tenant.id) ?? null;
      const found = await loadSubscriptions(pool, { tenantIds, after, limit: limit + 1 });
      return {
        data: found.slice(0, limit).map(present),
        next: found.length > limit ? toCursor([found[limit - 1]?.id ?? '']) : null,
      };
    },
  );

  app.get(
    '/api/v1/subscriptions/:id',
    { schema: { tags: ['billing'], summary: 'One subscription' } },
    async (request) => present(await find(request)),
  );

  app.post<{ Body: Static<typeof Change> }>(
    '/api/v1/subscriptions/:id/plan',
    {
      schema: {
        tags: ['billing'],
        summary: 'Change the plan; inside a period both plans are prorated to the second',
        body: Change,
      },
    },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const { id, timeZone } = await find(request);
      const { plan, from } = request.body;
      return present(
        await changeSubscription(pool, id, { plan, from: from === undefined ? now() : timeIn('from', from, timeZone) }),
      );
    },
  );

  app.post<{ Body: Static<typeof End> }>(
    '/api/v1/subscriptions/:id/end',
    { schema: { tags: ['billing'], summary: 'End the subscription; its last period ends with it', body: End } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const { id, timeZone } = await find(request);
      const { at } = request.body ?? {};
      return present(
        await changeSubscription(pool, id, { end: at === undefined ? now() : timeIn('at', at, timeZone) }),
      );
    },
  );

  async function find(request: FastifyRequest): Promise<Subscription> {
    const principal = await request.authorize('read');
    const { id } = request.params as { id: string };
    const [found] = UUID.test(id) ? await loadSubscriptions(pool, { ids: [id] }) : [];
    if (found === undefined || (principal.tenant !== null && principal.tenant.id !== found.tenantId))
      throw new TidemarkError('not_found', `there is no subscription ${id}`);
    return found;
  }
};

const EARLIEST = Date.UTC(2000, 0, 1);
const LATEST = Date.UTC(2200, 0, 1);

function timeIn(name: string, text: string, zone: string): number {
  const time = /^\d{4}-\d\d-\d\d$/.test(text) ? DateTime.fromISO(text, { zone }).toMillis() : timeOf(name, text);
  if (time === undefined || Number.isNaN(time))
    throw new TidemarkError('invalid_parameter', `${name} must be ISO 8601 with a zone, not "${text}"`);
  if (time < EARLIEST || time >= LATEST)
    throw new TidemarkError('invalid_parameter', `${name} must lie between 2000 and 2200`);
  return time;
}

const iso = (ms: number | null) => (ms === null ? null : new Date(ms).toISOString());

function present(subscription: Subscription) {
  const current = periodFrom(rulesOf(subscription), subscription.closedUntil);
  return {
    id: subscription.id,
    tenant: subscription.customerId,
    tenant_id: subscription.tenantId,
    start: iso(subscription.start),
    end: iso(subscription.end),
    trial_until: iso(subscription.trialUntil),
    time_zone: subscription.timeZone,
    periods: subscription.periods,
    plan: subscription.phases.at(-1)?.plan.key ?? null,
    plans: subscription.phases.map(({ from, plan }) => ({ from: iso(from), plan: plan.key, version: plan.version })),
    closed_until: iso(subscription.closedUntil),
    current_period: current === undefined ? null : { from: iso(current.from), to: iso(current.to) },
  };
}
