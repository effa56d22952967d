/** `tidemark rollups …`: rollups held against raw events, through a running server. */
import type { Command } from 'commander';
import { type ServerFlags, withServer } from './api-client.ts';
import { followJob } from './archive-commands.ts';

interface VerifyFlags extends ServerFlags {
  from: string;
  to: string;
  meter?: string;
  tenant?: string;
  repair?: true;
}

export function rollupCommands(program: Command): void {
  const rollups = program.command('rollups').description('Rollups of a running server');
  withServer(
    rollups
      .command('verify')
      .description('Recount days from raw events, in the database or the archive; exit 1 where stored rollups differ')
      .requiredOption('--from <day>', 'first day, YYYY-MM-DD, UTC')
      .requiredOption('--to <day>', 'last day')
      .option('--meter <slug>', 'only this meter')
      .option('--tenant <tenant>', 'only this tenant: id, slug or customer_id')
      .option('--repair', 'make stored rollups what was recounted'),
  ).action(async ({ from, to, meter, tenant, repair, ...flags }: VerifyFlags) => {
    const body = {
      from,
      to,
      ...(meter === undefined ? {} : { meter }),
      ...(tenant === undefined ? {} : { tenant }),
      ...(repair === undefined ? {} : { repair }),
    };
    await followJob(flags, '/api/v1/rollups/verify', body, (result) => {
      if (result?.identical !== true) process.exitCode = 1;
    });
  });
}
