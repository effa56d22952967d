import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';
import { moveCommand } from '../shards.ts';
import { backupCommands } from './backups.ts';
import { createCommand } from './create.ts';
import { askTenant, type Flags, print, printJson, withReason } from './flags.ts';
import { listCommand } from './list.ts';

/** `tidemark tenants …`, over HTTP with a platform key. */
export function tenantCommands(program: Command): void {
  const tenants = program.command('tenants').description('Create, change, export, back up, archive and delete tenants');
  createCommand(tenants);
  listCommand(tenants);
  moveCommand(tenants);

  const about = (name: string, description: string) => withReason(tenants.command(name).description(description));

  about('show <ref>', 'One tenant with its limits, features and monitors').action(async (ref: string, flags: Flags) => {
    const tenant: unknown = await (await askTenant(flags, ref, '')).json();
    const configuration: unknown = await askTenant(flags, ref, '/configuration').then(
      (answer) => answer.json(),
      () => null,
    );
    print(JSON.stringify({ tenant, configuration }, null, 2));
  });
  about('suspend <ref>', 'Refuse ingest and SQL from now on').action(async (ref: string, flags: Flags) =>
    printJson(await askTenant(flags, ref, '/suspend', { method: 'POST' })),
  );
  about('resume <ref>', 'End a suspension, or take a deletion back').action(async (ref: string, flags: Flags) =>
    printJson(await askTenant(flags, ref, '/resume', { method: 'POST' })),
  );
  about('tier <ref> <tier>', 'Move to free, standard or enterprise').action(
    async (ref: string, tier: string, flags: Flags) =>
      printJson(await askTenant(flags, ref, '', { method: 'PATCH', body: { tier } })),
  );
  about('rename <ref> <slug>', 'Give the tenant another subdomain')
    .option('--name <name>', 'and another name')
    .action(async (ref: string, slug: string, flags: Flags & { name?: string }) =>
      printJson(
        await askTenant(flags, ref, '', {
          method: 'PATCH',
          body: { slug, ...(flags.name === undefined ? {} : { name: flags.name }) },
        }),
      ),
    );
  about('rotate-keys <ref>', 'One new key for all old ones, a new password for SQL')
    .option('--grace-seconds <n>', 'how long the old keys go on working', '0')
    .action(async (ref: string, flags: Flags & { graceSeconds: string }) =>
      printJson(
        await askTenant(flags, ref, '/rotate-keys', {
          method: 'POST',
          body: { grace_seconds: Number(flags.graceSeconds) },
        }),
      ),
    );
  about('delete <ref>', 'Stop the tenant now and purge it after its grace period')
    .option('--grace-days <n>', 'default: TENANT_DELETE_DAYS')
    .action(async (ref: string, flags: Flags & { graceDays?: string }) => {
      const query = flags.graceDays === undefined ? '' : `?grace_days=${encodeURIComponent(flags.graceDays)}`;
      await printJson(await askTenant(flags, ref, query, { method: 'DELETE' }));
    });
  about('env <ref>', "Lines of a .env file: the tenant's own DATABASE_URL").action(
    async (ref: string, flags: Flags) => {
      process.stdout.write(await (await askTenant(flags, ref, '/env')).text());
    },
  );
  about('export <ref>', 'Everything of the tenant as NDJSON')
    .option('-o, --output <file>', 'instead of the terminal')
    .action(async (ref: string, flags: Flags & { output?: string }) => {
      const { body } = await askTenant(flags, ref, '/export');
      if (body === null) return;
      const to = flags.output === undefined ? process.stdout : createWriteStream(flags.output, { mode: 0o600 });
      await pipeline(Readable.fromWeb(body), to, { end: flags.output !== undefined });
    });
  backupCommands(about);
}
