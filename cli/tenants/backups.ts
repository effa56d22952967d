import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { askServer } from '../api-client.ts';
import { table } from '../demo/table.ts';
import { askTenant, type Flags, print } from './flags.ts';

/** `tidemark tenants backup|backups|restore|archive|unarchive`. */
export function backupCommands(about: (name: string, description: string) => Command): void {
  about('backup <ref>', 'Back the tenant up to the object store').action(async (ref: string, flags: Flags) =>
    follow(flags, await askTenant(flags, ref, '/backups', { method: 'POST' })),
  );
  about('backups <ref>', 'The backups of a tenant').action(async (ref: string, flags: Flags) => {
    const { data } = (await (await askTenant(flags, ref, '/backups')).json()) as {
      data: { id: string; taken_at: string; rows: number; bytes: number }[];
    };
    print(
      table(
        ['backup', 'taken at', 'rows', 'bytes'],
        data.map((one) => [one.id, one.taken_at, String(one.rows), String(one.bytes)]),
      ),
    );
  });
  about('restore <ref> <backup>', 'Bring a backup back, into the same tenant or another one')
    .option('--into <ref>', 'another tenant, provisioned and empty')
    .action(async (ref: string, backup: string, flags: Flags & { into?: string }) =>
      follow(
        flags,
        await askTenant(flags, ref, `/backups/${encodeURIComponent(backup)}/restore`, {
          method: 'POST',
          body: flags.into === undefined ? {} : { into: flags.into },
        }),
      ),
    );
  about('archive <ref>', 'Archive the tenant whole: its schema and roles go into a backup').action(
    async (ref: string, flags: Flags) =>
      follow(
        flags,
        await askTenant(flags, ref, '/archive', { method: 'POST', body: { reason: flags.reason ?? 'not given' } }),
      ),
  );
  about('unarchive <ref>', 'Bring an archived tenant back as it was').action(async (ref: string, flags: Flags) =>
    follow(flags, await askTenant(flags, ref, '/unarchive', { method: 'POST' })),
  );
}

/** Waits for the job that was asked for, and says how it ended. */
async function follow(flags: Flags, asked: Response): Promise<void> {
  const { job } = (await asked.json()) as { job: string };
  for (;;) {
    const run = (await (await askServer(flags, `/api/v1/jobs/${job}`)).json()) as {
      status: string;
      result: object | null;
      error: string | null;
    };
    if (run.status === 'succeeded') return print(JSON.stringify(run.result, null, 2));
    if (run.status === 'failed') {
      process.exitCode = 1;
      return print(`it failed: ${run.error}`);
    }
    await delay(200);
  }
}
