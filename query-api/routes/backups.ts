import type { FastifyPluginAsync, FastifyRequest } from 'fastify';
import { type Static, Type } from 'typebox';
import { type Tenant, TidemarkError } from '../../schemas/index.ts';
import { listBackups, readManifest, requireSchemaHere } from '../../tenants/index.ts';
import { requirePlatform } from '../access.ts';
import type { QueryOptions } from '../options.ts';

const Reference = Type.Object({ ref: Type.String({ maxLength: 128 }) });
const BackupReference = Type.Object({ ref: Type.String({ maxLength: 128 }), backup: Type.String({ maxLength: 64 }) });
const Restore = Type.Object({ into: Type.Optional(Type.String({ maxLength: 128 })) }, { additionalProperties: false });

/** Backups of one tenant in the object store, for platform keys; both directions are jobs. */
export const backupRoutes: FastifyPluginAsync<QueryOptions> = async (app, { directory, jobs, tenancy }) => {
  async function find(request: FastifyRequest, reference: string): Promise<Tenant> {
    requirePlatform(await request.authorize('admin'));
    directory.forget();
    const tenant = await directory.find(reference);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${reference}`);
    return tenant;
  }

  app.post<{ Params: Static<typeof Reference> }>(
    '/api/v1/tenants/:ref/backups',
    { schema: { tags: ['tenants'], summary: 'Back a tenant up to the object store', params: Reference } },
    async (request, reply) => {
      const { id } = await find(request, request.params.ref);
      // A tenant without a schema is refused here, not in a job that nobody looks at.
      await requireSchemaHere(tenancy.pool, id);
      return reply.code(202).send({ job: (await jobs.request('tenant_backup', { tenant: id })).id });
    },
  );

  app.get<{ Params: Static<typeof Reference> }>(
    '/api/v1/tenants/:ref/backups',
    { schema: { tags: ['tenants'], summary: 'The backups of a tenant, oldest first', params: Reference } },
    async (request) => {
      const { id } = await find(request, request.params.ref);
      return { data: await listBackups(tenancy.objects, id), next: null };
    },
  );

  app.post<{ Params: Static<typeof BackupReference>; Body: Static<typeof Restore> | undefined }>(
    '/api/v1/tenants/:ref/backups/:backup/restore',
    {
      schema: {
        tags: ['tenants'],
        summary: 'Bring a backup back, into the same tenant or another one',
        params: BackupReference,
        body: Restore,
      },
    },
    async (request, reply) => {
      const tenant = await find(request, request.params.ref);
      const into = request.body?.into === undefined ? tenant : await find(request, request.body.into);
      const { id } = await readManifest(tenancy.objects, tenant.id, request.params.backup);
      await requireSchemaHere(tenancy.pool, into.id);
      const run = await jobs.request('tenant_restore', { tenant: tenant.id, backup: id, into: into.id });
      return reply.code(202).send({ job: run.id });
    },
  );
};
