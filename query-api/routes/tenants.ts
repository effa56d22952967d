import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { SCOPES, TidemarkError } from '../../schemas/index.ts';
import { createKey, listInactive, listKeys, listTenants, revokeKey } from '../../tenants/index.ts';
import { fromCursor, limitOf, requirePlatform, tenantsOf, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';
import { presentTenant } from '../present-tenant.ts';

/** Printable: no control characters. */
const Printable = { pattern: '^[^\\u0000-\\u001f\\u007f]+$' };
const NewKey = Type.Object(
  {
    tenant: Type.Optional(Type.String({ maxLength: 128 })),
    scopes: Type.Array(Type.Union(SCOPES.map((scope) => Type.Literal(scope))), { minItems: 1, uniqueItems: true }),
    name: Type.Optional(Type.String({ maxLength: 256, ...Printable })),
  },
  { additionalProperties: false },
);
const Page = Type.Object({ limit: Type.Optional(Type.String()), cursor: Type.Optional(Type.String()) });
const Tenants = Type.Object({
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
  inactive_days: Type.Optional(
    Type.String({
      pattern: '^\\d{1,4}$',
      description: 'only tenants without an event for so long, with the size of their schema, biggest first',
    }),
  ),
});

/** Reading tenants, and keys; making and changing tenants is in provisioning.ts and lifecycle.ts. */
export const tenantRoutes: FastifyPluginAsync<QueryOptions> = async (app, { pool, directory, keys: known }) => {
  app.get(
    '/api/v1/tenants',
    { schema: { tags: ['tenants'], summary: 'List tenants', querystring: Tenants } },
    async (request) => {
      const principal = await request.authorize('read');
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      if (principal.tenant !== null) return { data: [presentTenant(principal.tenant)], next: null };
      if (parameters.inactive_days !== undefined) {
        const found = await listInactive(pool, Number(parameters.inactive_days), limit);
        const data = found.map(({ tenant, lastEvent, schemaBytes }) => ({
          ...presentTenant(tenant),
          last_event_at: lastEvent?.toISOString() ?? null,
          schema_bytes: schemaBytes,
        }));
        return { data, next: null };
      }
      const after = String(fromCursor(parameters.cursor, ['string'])?.[0] ?? '');
      const tenants = await listTenants(pool, after, limit + 1);
      const page = tenants.slice(0, limit);
      return {
        data: page.map(presentTenant),
        next: tenants.length > limit ? toCursor([page.at(-1)?.customerId ?? '']) : null,
      };
    },
  );

  app.get(
    '/api/v1/tenants/:ref',
    { schema: { tags: ['tenants'], summary: 'One tenant, by id, customer_id or slug' } },
    async (request) => {
      const principal = await request.authorize('read');
      const { ref } = request.params as { ref: string };
      const [tenant] = (await tenantsOf(principal, directory, [ref])) ?? [];
      if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${ref}`);
      return presentTenant(tenant);
    },
  );

  app.post<{ Body: Static<typeof NewKey> }>(
    '/api/v1/keys',
    { schema: { tags: ['keys'], summary: 'Create a key; its secret is shown once', body: NewKey } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { tenant: reference, scopes, name } = request.body;
      const tenant = reference === undefined ? null : await directory.find(reference);
      if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${reference}`);
      const { id, secret } = await createKey(pool, { tenantId: tenant?.id ?? null, scopes, name: name ?? null });
      return reply.code(201).send({ id, secret, scopes, tenant: tenant?.customerId ?? null, name: name ?? null });
    },
  );

  app.get(
    '/api/v1/keys',
    { schema: { tags: ['keys'], summary: 'List keys, without secrets', querystring: Page } },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const parameters = request.query as Record<string, unknown>;
      const limit = limitOf(parameters.limit, 100, 1000);
      const keys = await listKeys(pool, String(fromCursor(parameters.cursor, ['string'])?.[0] ?? ''), limit + 1);
      const page = keys.slice(0, limit);
      return { data: page, next: keys.length > limit ? toCursor([page.at(-1)?.id ?? '']) : null };
    },
  );

  app.delete(
    '/api/v1/keys/:id',
    { schema: { tags: ['keys'], summary: 'Revoke a key; other processes see it within 10 seconds' } },
    async (request, reply) => {
      requirePlatform(await request.authorize('admin'));
      const { id } = request.params as { id: string };
      if (!(await revokeKey(pool, id))) throw new TidemarkError('not_found', `there is no key ${id}`);
      known.forget();
      return reply.code(204).send();
    },
  );
};
