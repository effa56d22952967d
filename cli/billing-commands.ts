/** `tidemark plans …` and `tidemark statements …`: what a running server's billing routes say, in a terminal. */

import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { TidemarkError } from '../schemas/index.ts';
import { askServer, type ServerFlags, withServer } from './api-client.ts';
import { table } from './demo/table.ts';

interface PlanShape {
  key: string;
  version: number;
  name: string;
  currency: string;
  interval: string;
  charges: unknown[];
}

export function planCommands(program: Command): void {
  const plans = program.command('plans').description('Plans of a running server');
  withServer(plans.command('list').description('Plans in their latest versions')).action(async (flags: ServerFlags) => {
    const rows: PlanShape[] = [];
    for await (const plan of pages<PlanShape>(flags, '/api/v1/plans')) rows.push(plan);
    say(
      ['plan', 'name', 'currency', 'interval', 'charges'],
      rows.map((one) => [
        `${one.key}@${one.version}`,
        one.name,
        one.currency,
        one.interval,
        String(one.charges.length),
      ]),
    );
  });
  withServer(plans.command('show <plan>').description('One plan as JSON: key, or key@version')).action(
    async (plan: string, flags: ServerFlags) =>
      print(await askServer(flags, `/api/v1/plans/${encodeURIComponent(plan)}`)),
  );
  withServer(plans.command('create <file>').description('Make a plan, or its next version, from a JSON file')).action(
    async (file: string, flags: ServerFlags) =>
      print(await askServer(flags, '/api/v1/plans', { method: 'POST', body: jsonOf(file) })),
  );
}

function jsonOf(file: string): unknown {
  const text = readFileSync(file, 'utf8');
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TidemarkError('invalid_json', `${file} is not JSON`, { cause });
  }
}

interface StatementShape {
  number: string | null;
  status: string;
  tenant: string;
  period: { from: string; to: string };
  total: string;
  amount_due: string;
  currency: string;
  checksum?: string;
}

export function statementCommands(program: Command): void {
  const statements = program.command('statements').description('Statements of a running server');
  withServer(
    statements
      .command('list')
      .description('Closed statements, newest first')
      .option('--tenant <ref>', 'only this tenant')
      .option('--status <status>', 'closed, void or draft'),
  ).action(async (flags: ServerFlags & { tenant?: string; status?: string }) => {
    const query = new URLSearchParams({
      ...(flags.tenant === undefined ? {} : { tenant: flags.tenant }),
      ...(flags.status === undefined ? {} : { status: flags.status }),
    });
    const rows: StatementShape[] = [];
    for await (const one of pages<StatementShape>(flags, `/api/v1/statements?${query}`)) rows.push(one);
    say(
      ['number', 'status', 'tenant', 'from', 'to', 'total', 'due', ''],
      rows.map((one) => [
        one.number ?? '–',
        one.status,
        one.tenant,
        one.period.from,
        one.period.to,
        one.total,
        one.amount_due,
        one.currency,
      ]),
    );
  });
  withServer(
    statements
      .command('show <number>')
      .description('One statement')
      .option('--format <format>', 'json, csv or html', 'json'),
  ).action(async (number: string, flags: ServerFlags & { format: string }) =>
    print(
      await askServer(
        flags,
        `/api/v1/statements/${encodeURIComponent(number)}?format=${encodeURIComponent(flags.format)}`,
      ),
    ),
  );
  withServer(
    statements
      .command('close')
      .description('Close every period that has ended, and wait until it is done')
      .option('--ended-before <time>', 'ISO 8601; default: now less the grace time'),
  ).action(async (flags: ServerFlags & { endedBefore?: string }) => {
    const body = flags.endedBefore === undefined ? {} : { ended_before: flags.endedBefore };
    const { job } = await json<{ job: string }>(askServer(flags, '/api/v1/statements/close', { method: 'POST', body }));
    process.stdout.write(`${JSON.stringify(await ended(flags, job))}\n`);
  });
  withServer(
    statements
      .command('replay <number>')
      .description('Recompute a statement from raw events up to its log position, and compare byte for byte'),
  ).action(async (number: string, flags: ServerFlags) => {
    const replay = await json<{ identical: boolean }>(
      askServer(flags, `/api/v1/statements/${encodeURIComponent(number)}/replay`, { method: 'POST' }),
    );
    process.stdout.write(`${JSON.stringify(replay, null, 2)}\n`);
    if (!replay.identical) process.exitCode = 1;
  });
  withServer(
    statements
      .command('void <number>')
      .description('Make a statement void')
      .requiredOption('--reason <text>', 'why')
      .option('--reissue', 'issue its period anew from what is metered now'),
  ).action(async (number: string, flags: ServerFlags & { reason: string; reissue?: boolean }) =>
    print(
      await askServer(flags, `/api/v1/statements/${encodeURIComponent(number)}/void`, {
        method: 'POST',
        body: { reason: flags.reason, reissue: flags.reissue ?? false },
      }),
    ),
  );
}

/** Waits for a run of a job. @throws TidemarkError when it failed */
async function ended(flags: ServerFlags, id: string): Promise<unknown> {
  for (;;) {
    const run = await json<{ status: string; result: unknown; error: string | null }>(
      askServer(flags, `/api/v1/jobs/${id}`),
    );
    if (run.status === 'succeeded') return run.result;
    if (run.status === 'failed') throw new TidemarkError('invalid_parameter', `the job failed: ${run.error}`);
    await delay(200);
  }
}

async function* pages<T>(flags: ServerFlags, path: string): AsyncGenerator<T> {
  let cursor = '';
  do {
    const separator = path.includes('?') ? '&' : '?';
    const page = await json<{ data: T[]; next: string | null }>(
      askServer(flags, cursor === '' ? path : `${path}${separator}cursor=${cursor}`),
    );
    yield* page.data;
    cursor = page.next ?? '';
  } while (cursor !== '');
}

const json = async <T>(answer: Promise<Response>): Promise<T> => (await (await answer).json()) as T;
const say = (head: string[], rows: string[][]) => void process.stdout.write(`${table(head, rows)}\n`);

async function print(answer: Response): Promise<void> {
  const isJson = answer.headers.get('content-type')?.includes('json') === true;
  process.stdout.write(`${isJson ? JSON.stringify(await answer.json(), null, 2) : await answer.text()}\n`);
}
