/** `tidemark archive …`: what a running server's archive routes do, in a terminal. */
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import type { Check, JobRun } from '../schemas/index.ts';
import { RESTORE_SPEEDS } from '../sinks/index.ts';
import type { ArchivedDay, CostView } from '../tiering/index.ts';
import { askServer, type ServerFlags, withServer } from './api-client.ts';
import { table } from './demo/table.ts';

export function archiveCommands(program: Command): void {
  const archive = program.command('archive').description('Cold storage of raw events: days as Parquet files');
  const day = new Option('--from <day>', 'first day, YYYY-MM-DD');
  const last = new Option('--to <day>', 'last day, YYYY-MM-DD');

  withServer(archive.command('run').description('Archive days, and late events of days in the archive'))
    .option('--before <day>', 'first day that stays in the database (default: ARCHIVE_HOT_DAYS ago)')
    .action(async ({ before, ...flags }: ServerFlags & { before?: string }) =>
      followJob(flags, '/api/v1/archives/run', before === undefined ? {} : { before }),
    );
  withServer(archive.command('list').description('Days in the archive').addOption(day).addOption(last)).action(
    async ({ from, to, ...flags }: ServerFlags & { from?: string; to?: string }) => {
      const query = new URLSearchParams({
        ...(from === undefined ? {} : { from }),
        ...(to === undefined ? {} : { to }),
      });
      const { data } = (await (await askServer(flags, `/api/v1/archives?${query}`)).json()) as { data: ArchivedDay[] };
      const rows = data.map((one) => [
        one.day,
        one.tier,
        String(one.rows),
        String(one.bytes),
        String(one.files.length),
        one.verified_at ?? 'never',
        one.recalled_until ?? '–',
      ]);
      process.stdout.write(
        `${table(['day', 'tier', 'rows', 'bytes', 'files', 'verified', 'in the database until'], rows)}\n`,
      );
    },
  );
  withServer(
    archive
      .command('verify')
      .description('Read the archive back and hold it against its manifests')
      .addOption(day)
      .addOption(last),
  ).action(async ({ from, to, ...flags }: ServerFlags & { from?: string; to?: string }) =>
    followJob(flags, '/api/v1/archives/verify', {
      ...(from === undefined ? {} : { from }),
      ...(to === undefined ? {} : { to }),
    }),
  );
  withServer(archive.command('restore <day>').description('Ask for a readable copy of a day in a cold storage class'))
    .option('--days <n>', 'how long the copy stays', Number, 7)
    .addOption(new Option('--speed <speed>', 'how fast it comes').choices(RESTORE_SPEEDS).default('Standard'))
    .action(async (which: string, { days, speed, ...flags }: ServerFlags & { days: number; speed: string }) => {
      const path = `/api/v1/archives/${encodeURIComponent(which)}/restore`;
      const answer = (await (
        await askServer(flags, path, { method: 'POST', body: { days, speed } })
      ).json()) as ArchivedDay;
      process.stdout.write(`${answer.day}: ${answer.tier}\n`);
    });
  withServer(archive.command('recall <day>').description('Bring a day back into the database for a stay'))
    .option('--days <n>', 'how long it stays from now on; 0 ends its stay', Number, 7)
    .action(async (which: string, { days, ...flags }: ServerFlags & { days: number }) =>
      followJob(flags, `/api/v1/archives/${encodeURIComponent(which)}/recall`, { days }),
    );
  withServer(archive.command('cost').description('Bytes and monthly price by tier and tenant')).action(
    async (flags: ServerFlags) => {
      const view = (await (await askServer(flags, '/api/v1/archives/cost')).json()) as CostView;
      const tiers = view.tiers.map((one) => [one.tier, String(one.rows), String(one.bytes), one.cost]);
      const tenants = view.tenants.map((one) => [one.customer_id, String(one.rows), String(one.bytes), one.cost]);
      process.stdout.write(
        `${table(['tier', 'rows', 'bytes', `${view.currency} a month`], tiers)}\n\n${table(['tenant (archive)', 'rows', 'bytes', `${view.currency} a month`], tenants)}\n\nTotal ${view.total} ${view.currency} a month${view.if_all_hot === null ? '' : `; ${view.if_all_hot} if all of it were in the database`}\n`,
      );
    },
  );
  withServer(archive.command('lifecycle').description('Lifecycle rules of the store; exit 1 where they are not as set'))
    .option('--apply', 'put the rules of the settings on the store')
    .action(async ({ apply, ...flags }: ServerFlags & { apply?: true }) => {
      const init = apply ? { method: 'PUT', body: {} } : {};
      const answer = (await (await askServer(flags, '/api/v1/archives/lifecycle', init)).json()) as { checks: Check[] };
      process.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
      if (answer.checks.some((one) => !one.ok)) process.exitCode = 1;
    });
  withServer(archive.command('hold <tenant>').description('Legal hold: days with events of the tenant do not expire'))
    .option('--reason <text>', 'why')
    .option('--release', 'end it')
    .action(
      async (tenant: string, { reason, release, ...flags }: ServerFlags & { reason?: string; release?: true }) => {
        const path = `/api/v1/archives/holds/${encodeURIComponent(tenant)}`;
        const init = release ? { method: 'DELETE' } : { method: 'PUT', body: { reason: reason ?? 'not given' } };
        process.stdout.write(`${await (await askServer(flags, path, init)).text()}\n`);
      },
    );
  withServer(archive.command('erase <tenant>').description('Forget a tenant, or one of its users, everywhere'))
    .option('--user <user_id>', 'only this user')
    .requiredOption('--reason <text>', 'kept in the audit row')
    .action(async (tenant: string, { user, reason, ...flags }: ServerFlags & { user?: string; reason: string }) =>
      followJob(flags, '/api/v1/archives/erase', { tenant, reason, ...(user === undefined ? {} : { user_id: user }) }),
    );
}

/** Starts a job and waits for its end; progress goes to stderr, the result to stdout. @param ended is given the result */
export async function followJob(
  flags: ServerFlags,
  path: string,
  body: Record<string, unknown>,
  ended?: (result: JobRun['result']) => void,
): Promise<void> {
  const { job } = (await (await askServer(flags, path, { method: 'POST', body })).json()) as { job: string };
  let shown = '';
  for (;;) {
    const run = (await (await askServer(flags, `/api/v1/jobs/${job}`)).json()) as JobRun;
    const progress = run.progress === null ? run.status : JSON.stringify(run.progress);
    if (progress !== shown) process.stderr.write(`${progress}\n`);
    shown = progress;
    if (run.status === 'succeeded') {
      process.stdout.write(`${JSON.stringify(run.result, null, 2)}\n`);
      ended?.(run.result);
      return;
    }
    if (run.status === 'failed') {
      process.stderr.write(`${run.error}\n`);
      process.exitCode = 1;
      return;
    }
    await delay(300);
  }
}
