import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { type Static, Type } from 'typebox';
import { TIERS, TidemarkError } from '../../schemas/index.ts';
import { findProvisioning, type ProvisioningState, provisioningEvents, schemaOf } from '../../tenants/index.ts';
import { requirePlatform } from '../access.ts';
import { lastEventId, type ServerSentEvent, sendEventStream } from '../event-stream.ts';
import type { QueryOptions } from '../options.ts';
import { presentTenant } from '../present-tenant.ts';

const Printable = { pattern: '^[^\\u0000-\\u001f\\u007f]+$' };
const NewTenant = Type.Object(
  {
    slug: Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,62}$' }),
    name: Type.String({ minLength: 1, maxLength: 256, ...Printable }),
    customer_id: Type.Optional(Type.String({ minLength: 1, maxLength: 128, ...Printable })),
    email: Type.Optional(Type.String({ maxLength: 320, pattern: '^[^@\\s<>,;]+@[^@\\s<>,;]+$' })),
    tier: Type.Optional(Type.Union(TIERS.filter((tier) => tier !== 'discovered').map((tier) => Type.Literal(tier)))),
    demo_data: Type.Optional(Type.Boolean()),
  },
  { additionalProperties: false },
);
const Reference = Type.Object({ ref: Type.String({ maxLength: 128 }) });
const LONGEST_WAIT_S = 60;
/** How soon a stream sees what another process did. */
const POLL_MS = 500;
const ENDED = new Set(['ready', 'failed']);

/** New tenants: the request, its state, and its progress as server-sent events. */
export const provisioningRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory, tenancy }) => {
  const stopping = new AbortController();
  app.addHook('preClose', async () => stopping.abort());

  app.post<{ Body: Static<typeof NewTenant> }>(
    '/api/v1/tenants',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Create a tenant: 201 when it is ready, 202 while it is being provisioned',
        description:
          'The secrets of the first keys are in this answer alone. `Prefer: wait=<seconds>` or `respond-async` says how long to wait; the same `Idempotency-Key` gives the same tenant.',
        body: NewTenant,
      },
    },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { slug, name, customer_id: customerId, email, tier, demo_data: demoData } = request.body;
      const begun = await tenancy.provisioner.begin(
        { slug, name, customerId, email, tier, demoData },
        idempotencyKeyOf(request),
      );
      const state = await tenancy.provisioner.wait(begun.provisioningId, waitOf(request, tenancy.waitMs));
      // Events may have made it known to the cache in another state.
      directory.forget();
      if (state?.status === 'failed')
        throw new TidemarkError('provisioning_failed', state.error ?? 'provisioning failed');
      const ready = state?.status === 'ready';
      const address = `/api/v1/tenants/${begun.tenant.id}`;
      return reply
        .code(ready ? 201 : 202)
        .header('location', address)
        .send({
          ...presentTenant({ ...begun.tenant, status: ready ? 'ready' : 'provisioning' }),
          schema: schemaOf(begun.tenant.id),
          subdomain: tenancy.addressOf(slug) ?? null,
          keys: begun.keys,
          provisioning: {
            id: begun.provisioningId,
            status: state?.status ?? 'running',
            stream: `${address}/provisioning/stream`,
          },
        });
    },
  );

  app.get<{ Params: Static<typeof Reference> }>(
    '/api/v1/tenants/:ref/provisioning',
    { schema: { tags: ['tenants'], summary: "A tenant's latest provisioning, step by step", params: Reference } },
    async (request) => find(request, request.params.ref),
  );

  app.get<{ Params: Static<typeof Reference> }>(
    '/api/v1/tenants/:ref/provisioning/stream',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Its progress as server-sent events; Last-Event-ID goes on where a reader was',
        params: Reference,
      },
    },
    async (request, reply) => {
      const { id } = await find(request, request.params.ref);
      const after = lastEventId(request);
      await sendEventStream(request, reply, stopping.signal, (signal) => progressOf(id, after, signal));
    },
  );

  /** Also of a tenant that an undo has removed. A tenant's key finds its own alone. */
  async function find(request: FastifyRequest, reference: string): Promise<ProvisioningState> {
    const principal = await request.authorize('read');
    const state = await findProvisioning(pool, reference);
    if (state === undefined || (principal.tenant !== null && principal.tenant.id !== state.tenant_id))
      throw new TidemarkError('not_found', `there is no provisioning of ${reference}`);
    return state;
  }

  async function* progressOf(id: string, after: number, signal: AbortSignal): AsyncGenerator<ServerSentEvent> {
    let seen = after;
    while (!signal.aborted) {
      const changed = tenancy.provisioner.changed(id, POLL_MS, signal);
      const events = await provisioningEvents(pool, id, seen);
      for (const { seq, at, event } of events) {
        seen = seq;
        yield { id: seq, event: event.type, data: { ...event, at } };
        if (event.type === 'run' && ENDED.has(event.status)) return;
      }
      if (events.length === 0 && after > 0 && (await hasEnded(id))) return;
      await changed;
    }
  }

  async function hasEnded(id: string): Promise<boolean> {
    const state = await findProvisioning(pool, id);
    return state === undefined || ENDED.has(state.status);
  }
};

/** draft-ietf-httpapi-idempotency-key-header: an opaque text, perhaps quoted. */
function idempotencyKeyOf(request: FastifyRequest): string | undefined {
  const given = request.headers['idempotency-key'];
  if (given === undefined) return undefined;
  const key = String(given).replace(/^"(.*)"$/, '$1');
  if (!/^[\x21-\x7e]{1,255}$/.test(key))
    throw new TidemarkError('invalid_parameter', 'Idempotency-Key must have 1 to 255 visible ASCII characters');
  return key;
}

/** RFC 7240: `respond-async`, `wait=<seconds>`. */
function waitOf(request: FastifyRequest, initial: number): number {
  const prefer = String(request.headers.prefer ?? '');
  const wait = /(?:^|[\s,;])wait=(\d{1,6})(?:$|[\s,;])/i.exec(prefer)?.[1];
  if (wait !== undefined) return Math.min(Number(wait), LONGEST_WAIT_S) * 1000;
  return /(?:^|[\s,;])respond-async(?:$|[\s,;])/i.test(prefer) ? 0 : initial;
}
