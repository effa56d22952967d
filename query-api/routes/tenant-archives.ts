import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { type Static, Type } from 'typebox';
import { type Principal, type Tenant, TidemarkError } from '../../schemas/index.ts';
import { requireSchemaHere } from '../../tenants/index.ts';
import { requirePlatform } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Reference = Type.Object({ ref: Type.String({ maxLength: 128 }) });
const Archive = Type.Object(
  { reason: Type.String({ minLength: 1, maxLength: 1000 }) },
  { additionalProperties: false },
);

/** Inactive tenants archived whole and brought back, for platform keys; both directions are jobs. */
export const tenantArchiveRoutes: FastifyPluginAsync<QueryOptions> = async (app, { directory, jobs, tenancy }) => {
  async function find(request: FastifyRequest): Promise<{ principal: Principal; tenant: Tenant }> {
    const principal = await request.authorize('admin');
    requirePlatform(principal);
    directory.forget();
    const { ref } = request.params as Static<typeof Reference>;
    const tenant = await directory.find(ref);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${ref}`);
    return { principal, tenant };
  }

  app.post(
    '/api/v1/tenants/:ref/archive',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Archive a tenant whole: its schema and roles go into a backup, ingest and SQL are refused',
        params: Reference,
        body: Archive,
      },
    },
    async (request, reply) => {
      const { principal, tenant } = await find(request);
      // What can't be archived is refused here, not in a job that nobody looks at.
      if (tenant.status === 'deleted') throw new TidemarkError('tenant_deleted', 'the tenant is deleted');
      if (tenant.status !== 'archived') await requireSchemaHere(tenancy.pool, tenant.id);
      const { reason } = request.body as Static<typeof Archive>;
      const params = { tenant: tenant.id, reason, by: principal.keyId };
      return reply.code(202).send({ job: (await jobs.request('tenant_archive', params)).id });
    },
  );

  app.post(
    '/api/v1/tenants/:ref/unarchive',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Bring an archived tenant back as it was',
        params: Reference,
      },
    },
    async (request, reply) => {
      const { tenant } = await find(request);
      if (tenant.status !== 'archived') throw new TidemarkError('conflict', `the tenant is ${tenant.status}`);
      return reply.code(202).send({ job: (await jobs.request('tenant_unarchive', { tenant: tenant.id })).id });
    },
  );
};
