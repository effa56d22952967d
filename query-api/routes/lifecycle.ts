import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { type Static, Type } from 'typebox';
import { type Tenant, TIERS, TidemarkError } from '../../schemas/index.ts';
import {
  deleteTenant,
  exportTenant,
  listAudit,
  requireSchemaHere,
  resumeTenant,
  rotateKeys,
  schemaOf,
  suspendTenant,
  tenantConfiguration,
  updateTenant,
} from '../../tenants/index.ts';
import { fromCursor, limitOf, requirePlatform, toCursor } from '../access.ts';
import type { QueryOptions } from '../options.ts';
import { presentTenant } from '../present-tenant.ts';

const Printable = { pattern: '^[^\\u0000-\\u001f\\u007f]+$' };
const Reference = Type.Object({ ref: Type.String({ maxLength: 128 }) });
type InReference = { Params: Static<typeof Reference> };
const Change = Type.Object(
  {
    slug: Type.Optional(Type.String({ pattern: '^[a-z0-9][a-z0-9-]{0,62}$' })),
    name: Type.Optional(Type.String({ minLength: 1, maxLength: 256, ...Printable })),
    email: Type.Optional(
      Type.Union([Type.String({ maxLength: 320, pattern: '^[^@\\s<>,;]+@[^@\\s<>,;]+$' }), Type.Null()]),
    ),
    tier: Type.Optional(Type.Union(TIERS.filter((tier) => tier !== 'discovered').map((tier) => Type.Literal(tier)))),
    features: Type.Optional(
      Type.Record(Type.String({ pattern: '^[a-z][a-z0-9_]{0,62}$' }), Type.Union([Type.Boolean(), Type.Null()]), {
        additionalProperties: false,
      }),
    ),
  },
  { additionalProperties: false, minProperties: 1 },
);
const Rotation = Type.Object(
  { grace_seconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 30 * 86_400 })) },
  { additionalProperties: false },
);
const Deletion = Type.Object({ grace_days: Type.Optional(Type.String({ pattern: '^\\d{1,4}$' })) });
const AuditPage = Type.Object({
  tenant: Type.Optional(Type.String({ maxLength: 128 })),
  limit: Type.Optional(Type.String()),
  cursor: Type.Optional(Type.String()),
});

/** A tenant's life after its provisioning, for platform keys: state, tier, names, keys, export, deletion; the audit log. */
export const lifecycleRoutes: FastifyPluginAsync<QueryOptions> = async (
  app,
  { pool, directory, keys, jobs, tenancy },
) => {
  const control = tenancy.pool;

  async function find(request: FastifyRequest<InReference>): Promise<Tenant> {
    requirePlatform(await request.authorize('admin'));
    directory.forget();
    const tenant = await directory.find(request.params.ref);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${request.params.ref}`);
    // Its roles and rows are changed where the control plane's transactions are.
    const shard =
      request.method === 'GET' && !request.url.includes('/export') ? 'main' : await tenancy.shards.shardOf(tenant.id);
    if (shard !== 'main') throw new TidemarkError('elsewhere', `the tenant lives on shard ${shard}`);
    return tenant;
  }
  /** Seen at once by this process; others see it within their caches' 10 seconds. */
  function changed(tenant: Tenant) {
    directory.forget();
    keys.forget();
    return presentTenant(tenant);
  }
  const describe = (summary: string) => ({ tags: ['tenants'], summary, params: Reference });

  app.patch<InReference & { Body: Static<typeof Change> }>(
    '/api/v1/tenants/:ref',
    { schema: { ...describe('Rename a tenant, move it to another tier, switch features'), body: Change } },
    async (request) => {
      const { id } = await find(request);
      return changed(await updateTenant(control, id, request.body));
    },
  );

  app.get<InReference>(
    '/api/v1/tenants/:ref/configuration',
    { schema: describe('Limits, features, and what watches the tenant') },
    async (request) => tenantConfiguration(control, (await find(request)).id),
  );

  app.post<InReference>(
    '/api/v1/tenants/:ref/suspend',
    { schema: describe('Suspend: ingest and SQL are refused, what is stored stays readable') },
    async (request) => {
      const { id } = await find(request);
      const tenant = await suspendTenant(control, id);
      await tenancy.closePool(id);
      return changed(tenant);
    },
  );

  app.post<InReference>(
    '/api/v1/tenants/:ref/resume',
    { schema: describe('End a suspension, or take a deletion back within its grace period') },
    async (request) => {
      const { id } = await find(request);
      return changed(await resumeTenant(control, id));
    },
  );

  app.post<InReference & { Body: Static<typeof Rotation> | undefined }>(
    '/api/v1/tenants/:ref/rotate-keys',
    {
      schema: { ...describe("One new key for all old ones, and a new password for the tenant's role"), body: Rotation },
    },
    async (request, reply) => {
      const { id } = await find(request);
      const rotated = await rotateKeys(tenancy, id, request.body?.grace_seconds ?? 0);
      await tenancy.closePool(id);
      keys.forget();
      return reply.code(201).send(rotated);
    },
  );

  app.delete<InReference & { Querystring: Static<typeof Deletion> }>(
    '/api/v1/tenants/:ref',
    {
      schema: {
        ...describe('Delete: keys and SQL stop at once, everything is purged after the grace period'),
        querystring: Deletion,
      },
    },
    async (request, reply) => {
      const { id } = await find(request);
      const days = request.query.grace_days === undefined ? tenancy.deleteDays : Number(request.query.grace_days);
      const { tenant, deleteAfter } = await deleteTenant(control, id, days);
      await tenancy.closePool(id);
      // The schedule would find it too, in its own time.
      const job = days === 0 ? (await jobs.request('tenants_purge', { tenant: id })).id : undefined;
      return reply.code(202).send({
        ...changed(tenant),
        delete_after: deleteAfter.toISOString(),
        ...(job === undefined ? {} : { job }),
      });
    },
  );

  app.get<InReference>(
    '/api/v1/tenants/:ref/env',
    { schema: describe("Lines of a .env file: the tenant's own database URL, schema, ids") },
    async (request, reply) => {
      const { id, customerId } = await find(request);
      const lines = {
        DATABASE_URL: await tenancy.urlOf(id),
        DATABASE_SCHEMA: schemaOf(id),
        TIDEMARK_TENANT: id,
        TIDEMARK_CUSTOMER_ID: customerId,
      };
      const text = Object.entries(lines).map(([name, value]) => `${name}=${quoteDotenv(value)}\n`);
      return reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store').send(text.join(''));
    },
  );

  app.get<InReference>(
    '/api/v1/tenants/:ref/export',
    { schema: describe('Everything of the tenant as NDJSON: its own tables and its usage, one snapshot') },
    async (request, reply) => {
      const { id } = await find(request);
      await requireSchemaHere(control, id);
      return reply.type('application/x-ndjson').send(exportTenant(control, id));
    },
  );

  app.get<{ Querystring: Static<typeof AuditPage> }>(
    '/api/v1/audit',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Which platform key looked at or changed what of which tenant, newest first',
        querystring: AuditPage,
      },
    },
    async (request) => {
      requirePlatform(await request.authorize('admin'));
      const limit = limitOf(request.query.limit, 100, 1000);
      const before = fromCursor(request.query.cursor, ['number'])?.[0] ?? null;
      const rows = await listAudit(pool, {
        tenant: request.query.tenant ?? null,
        before: before === null ? null : Number(before),
        limit: limit + 1,
      });
      const page = rows.slice(0, limit);
      return {
        data: page.map((row) => ({
          id: row.id,
          at: row.at.toISOString(),
          key: row.keyId,
          action: row.action,
          tenants: row.tenants,
          reason: row.reason,
          request_id: row.requestId,
        })),
        next: rows.length > limit ? toCursor([page.at(-1)?.id ?? 0]) : null,
      };
    },
  );
};

/** A value that needs no quotes goes without; in single quotes dotenv reads everything as it is. */
function quoteDotenv(value: string): string {
  if (/^[\w.:/@?=&%+~-]*$/.test(value)) return value;
  if (!value.includes("'")) return `'${value}'`;
  if (!value.includes('`')) return `\`${value}\``;
  return `"${value.replaceAll('"', '%22')}"`;
}
