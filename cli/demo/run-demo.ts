import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { importFile, nameOf, progressLine, summary } from '../import/index.ts';
import { openSender } from '../import/sender.ts';
import { startChildServer } from './child-server.ts';
import { costOf, PRICE_TEXT } from './price.ts';
import { makeDay, randomFrom, type SampleEvent } from './sample.ts';
import { grouped, table } from './table.ts';
import { openReader, type Reader, type TenantTotals } from './totals.ts';

export interface DemoOptions {
  data: string;
  file: string | undefined;
  shiftToNow: boolean;
  seed: number;
  keep: boolean;
}

const BATCH = 500;
const CONNECTIONS = 4;
const DUPLICATE_SHARE = 0.03;
const say = (text: string) => process.stdout.write(`${text}\n`);

/** Runs the whole road once: server, events over HTTP, and back through the query API. @returns whether everything was exact */
export async function runDemo(options: DemoOptions): Promise<boolean> {
  if (!options.keep) rmSync(options.data, { recursive: true, force: true });
  say('Starting Tidemark …');
  const server = await startChildServer(options.data);
  say(`It listens on ${server.url}`);
  try {
    const reader = openReader(server.url, server.key);
    return await (options.file === undefined
      ? sampleDay(options, server, reader)
      : realFile(options, options.file, server, reader));
  } finally {
    await server.stop();
    say(
      '\nNext: npm start, then the commands that it prints; docs/manual.md; npm run demo -- --file <your.csv|.ndjson|access.log[.gz]>',
    );
  }
}

interface Sent {
  requests: bigint;
  tokens: bigint;
  duplicates: number;
}

async function sampleDay(
  { seed }: DemoOptions,
  server: { url: string; key: string },
  reader: Reader,
): Promise<boolean> {
  const end = Math.floor(Date.now() / 60_000) * 60_000;
  const day = makeDay(seed, end);
  say(
    `Posting a day of ${grouped(day.length)} events of 5 tenants (seed ${seed}), about 3 % twice and 2 % hours late …`,
  );
  const sent = await post(day, seed, server);
  const total = await reader.settle(() => undefined);
  say(
    `${grouped(total.received)} received: ${grouped(total.accepted)} counted, ${grouped(total.duplicate)} duplicates dropped, ${total.dead_lettered} dead letters\n`,
  );
  const totals = await reader.totals();
  print(totals);
  return report(
    totals.flatMap((row) => {
      const own = sent.get(row.tenant);
      return own === undefined
        ? [`${row.tenant} was never sent`]
        : [
            differs(`${row.tenant} requests`, row.requests, own.requests),
            differs(`${row.tenant} tokens`, row.tokens, own.tokens),
            differs(`${row.tenant} duplicates`, row.duplicates, own.duplicates),
          ];
    }),
  );
}

async function post(
  day: readonly SampleEvent[],
  seed: number,
  server: { url: string; key: string },
): Promise<Map<string, Sent>> {
  const random = randomFrom(seed + 1);
  const sender = openSender({ ...server, backfill: false, connections: CONNECTIONS });
  const sent = new Map<string, Sent>();
  const repeats: SampleEvent[] = [];
  const inFlight = new Set<Promise<void>>();
  let posted = 0;
  let failure: unknown;
  const send = async (lines: string[]) => {
    while (inFlight.size >= CONNECTIONS) await Promise.race(inFlight);
    const one: Promise<void> = sender
      .send(lines)
      .then((result) => {
        if (result.rejected.length > 0)
          throw new Error(`rejected: ${result.rejected[0]?.code} ${result.rejected[0]?.detail}`);
        posted += lines.length;
        if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${grouped(posted)} posted`);
      })
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => inFlight.delete(one));
    inFlight.add(one);
  };
  for (let i = 0; i < day.length && failure === undefined; i += BATCH) {
    const lines: string[] = [];
    for (const event of day.slice(i, i + BATCH)) {
      lines.push(event.json);
      const own = sent.get(event.tenant) ?? { requests: 0n, tokens: 0n, duplicates: 0 };
      const { type, tokens_consumed: tokens } = JSON.parse(event.json) as { type?: string; tokens_consumed?: number };
      if (type === undefined) own.requests++;
      own.tokens += BigInt(tokens ?? 0);
      if (random() < DUPLICATE_SHARE) {
        repeats.push(event);
        own.duplicates++;
      }
      sent.set(event.tenant, own);
    }
    // A repeat follows its original at once or much later.
    while (repeats.length > 0 && random() < 0.97) lines.push(repeats.shift()?.json ?? '');
    await send(lines);
  }
  if (repeats.length > 0) await send(repeats.map((event) => event.json));
  await Promise.all(inFlight);
  await sender.close();
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  if (failure !== undefined) throw failure;
  return sent;
}

async function realFile(
  options: DemoOptions,
  path: string,
  server: { url: string; key: string },
  reader: Reader,
): Promise<boolean> {
  say(`Importing ${path} over HTTP …`);
  const state = await importFile({
    path,
    ...server,
    format: undefined,
    map: new Map(),
    set: { customer_id: nameOf(path) },
    shiftToNow: options.shiftToNow,
    progress: join(options.data, 'imports'),
    onProgress: progressLine(),
  });
  say(summary(state));
  const total = await reader.settle(() => undefined);
  say('');
  print(await reader.totals());
  const tokens = await reader.query('tokens', 'endpoint');
  if (tokens.data.length > 0) {
    say('\nTokens by endpoint');
    for (const row of tokens.data)
      say(`  ${(row.groupBy.endpoint ?? '–').padEnd(12)} ${grouped(BigInt(row.value)).padStart(14)}`);
  }
  const calls = await reader.query('api_calls', 'status_code');
  const known = calls.data.filter((row) => row.groupBy.status_code !== null);
  if (known.length > 0) {
    say('\nRequests by status');
    for (const row of known)
      say(`  ${(row.groupBy.status_code ?? '–').padEnd(12)} ${grouped(BigInt(row.value)).padStart(14)}`);
  }
  return report([
    differs('events counted', total.accepted, state.accepted),
    differs('rejected lines', state.rejected, 0),
  ]);
}

function print(totals: readonly TenantTotals[]): void {
  const ms = (value: number | undefined) => (value === undefined ? '–' : value.toFixed(1));
  say(
    table(
      ['tenant', 'requests', 'tokens', 'p50 ms', 'p95 ms', 'p99 ms', 'duplicates', 'cost $'],
      totals.map((row) => [
        row.tenant,
        grouped(row.requests),
        grouped(row.tokens),
        ms(row.quantiles?.p50),
        ms(row.quantiles?.p95),
        ms(row.quantiles?.p99),
        grouped(row.duplicates),
        costOf(row.requests, row.tokens),
      ]),
    ),
  );
  say(`Sample price: ${PRICE_TEXT}`);
}

const differs = (what: string, got: bigint | number, expected: bigint | number): string =>
  BigInt(got) === BigInt(expected) ? '' : `${what}: ${got} instead of ${expected}`;

function report(differences: readonly string[]): boolean {
  const wrong = differences.filter((text) => text !== '');
  say(
    wrong.length === 0
      ? '\nEvery total is exact: what was sent is what is counted.'
      : `\nNOT exact:\n  ${wrong.join('\n  ')}`,
  );
  return wrong.length === 0;
}
