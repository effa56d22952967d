import { Type } from 'typebox';
import type { Job } from '../../schemas/index.ts';
import { archiveTenant } from './archive.ts';
import { type UnarchiveDeps, unarchiveTenant } from './unarchive.ts';

const Uuid = Type.String({ format: 'uuid' });

/** `tenant_archive {tenant, reason, by}` and `tenant_unarchive {tenant}`. */
export function createArchivalJobs(deps: UnarchiveDeps): Job[] {
  return [
    {
      name: 'tenant_archive',
      params: Type.Object({ tenant: Uuid, reason: Type.String(), by: Type.String() }),
      run: ({ params, signal }) =>
        archiveTenant(
          { ...deps, heartbeats: deps.heartbeats?.service },
          { tenantId: String(params.tenant), reason: String(params.reason), by: String(params.by) },
          signal,
        ),
    },
    {
      name: 'tenant_unarchive',
      params: Type.Object({ tenant: Uuid }),
      run: ({ params, signal }) => unarchiveTenant(deps, String(params.tenant), signal),
    },
  ];
}
