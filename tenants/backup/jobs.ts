import { Type } from 'typebox';
import type { Job } from '../../schemas/index.ts';
import { readManifest } from './manifest.ts';
import { type RestoreDeps, restoreBackup } from './restore.ts';
import { takeBackup } from './take.ts';

const Uuid = Type.String({ format: 'uuid' });

/** `tenant_backup {tenant}` and `tenant_restore {tenant, backup, into}`; UUIDs all. */
export function createBackupJobs(deps: RestoreDeps): Job[] {
  return [
    {
      name: 'tenant_backup',
      params: Type.Object({ tenant: Uuid }),
      async run({ params, signal }) {
        const { id, tables, events } = await takeBackup(deps, String(params.tenant), signal);
        return { backup: id, tables: tables.length, events: events.rows };
      },
    },
    {
      name: 'tenant_restore',
      params: Type.Object({ tenant: Uuid, backup: Uuid, into: Uuid }),
      async run({ params, signal }) {
        const manifest = await readManifest(deps.objects, String(params.tenant), String(params.backup));
        return { ...(await restoreBackup(deps, manifest, String(params.into), signal)) };
      },
    },
  ];
}
