/** The road from HTTP to a number: ingest, pipeline, end to end, freshness, memory. */

import { startProcess } from '../cli/demo/child-server.ts';
import { openEmbeddedPostgresPool } from './database.ts';
import { type Load, makeLoad, postAll, type Totals } from './load.ts';
import { type BenchServer, KEY, startBenchServer } from './process.ts';
import { add, fresh, median, RUNS, rate, SCRATCH, spread } from './report.ts';

/** What the server counted is what was sent, to the token. */
export async function check(server: BenchServer, loads: readonly Totals[]): Promise<void> {
  const { total } = await server.reader.reconcile();
  const distinct = loads.reduce((sum, load) => sum + load.distinct, 0);
  if (total.accepted !== distinct) throw new Error(`accepted ${total.accepted}, sent ${distinct}`);
  const tokens = await server.reader.query('tokens', 'subject');
  const counted = tokens.data.reduce((sum, row) => sum + Number(row.value), 0);
  const sent = loads.reduce((sum, load) => sum + load.tokens, 0);
  if (counted !== sent) throw new Error(`${counted} tokens, sent ${sent}`);
}

export async function ingest(): Promise<void> {
  for (const [perRequest, events, connections] of [
    [1, 10_000, 32],
    [100, 200_000, 16],
    [1000, 600_000, 8],
  ] as const) {
    const now = Date.now();
    const load = makeLoad(events, perRequest, `ingest${perRequest}`, () => now);
    const warm = makeLoad(events / 5, perRequest, `warm${perRequest}`, () => now);
    // Of servers that run: their code is compiled, and their tenants are known.
    const rateOf = async (url: string) => {
      await postAll(url, KEY, warm.bodies, { connections });
      return events / (await postAll(url, KEY, load.bodies, { connections }));
    };
    const own: number[] = [];
    const parse: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const server = await fresh('ingest', { ROLES: 'ingest,query' });
      own.push(await rateOf(server.url));
      await server.stop();
      const yardstick = await startProcess(new URL('./parse-server.ts', import.meta.url), [], {});
      parse.push(await rateOf(yardstick.url));
      await yardstick.stop();
    }
    const ratio = median(own) / median(parse);
    add(
      `ingest, ${perRequest} a request`,
      `${rate(median(own), 1)} (${spread(own)})`,
      `${ratio.toFixed(2)} × parsing only, ${rate(median(parse), 1)}`,
      perRequest === 1000 ? '≥ 100,000; ≥ 0.5 ×' : '–',
    );
  }
}

/** Events that the pipeline bench's load has an hour of event time. */
export const EVENTS_AN_HOUR = 2_000_000;

/** Puts a load on the log while there is no processor, and stops the server. */
export async function fillLog(server: BenchServer, load: Load): Promise<void> {
  await postAll(server.url, KEY, load.bodies);
  await server.stop();
}

export interface Drained {
  /** events/s from ready to nothing pending */
  rate: number;
  /** rollup rows written */
  rollupRows: number;
}

/**
 * Times a server that drains what is on the log, and checks what it has counted then.
 * @param loads all that ever came into this data folder
 * @param beside measured while that server stands
 */
export async function drain(
  name: string,
  loads: readonly Totals[],
  env: Record<string, string> = {},
  beside: (drained: Drained) => Promise<void> = async () => undefined,
): Promise<Drained> {
  const server = await startBenchServer(`${SCRATCH}${name}`, env);
  const events = loads.reduce((sum, load) => sum + load.events, 0);
  const left = events - (await server.reader.reconcile()).total.received;
  const began = performance.now();
  const drained = { rate: left / (await server.settled(began)), rollupRows: await server.rollupRows() };
  await check(server, loads);
  await beside(drained);
  await server.stop();
  return drained;
}

/** Fills and drains again and again, each time beside a bare COPY of the same rows, and adds the figure. */
export async function drainBesideCopy(
  bench: string,
  name: string,
  load: Load,
  envOfRun: () => Record<string, string> = () => ({}),
): Promise<void> {
  const own: number[] = [];
  const ratios: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const env = envOfRun();
    await fillLog(await fresh(name, { ...env, ROLES: 'ingest,query' }), load);
    await drain(name, [load], env, async (drained) => {
      const copy = await openEmbeddedPostgresPool(`${SCRATCH}${name}`);
      own.push(drained.rate);
      ratios.push(drained.rate / (await copy.bareCopyRate(500_000)));
      await copy.close();
    });
  }
  add(
    bench,
    `${rate(median(own), 1)} (${spread(own)})`,
    `${median(ratios).toFixed(2)} × bare COPY of the same rows`,
    '≥ 60,000; ≥ 0.15 ×',
  );
}

export async function pipeline(): Promise<void> {
  const events = EVENTS_AN_HOUR;
  const now = Date.now();
  const load = makeLoad(events, 1000, 'pipeline', (i) => now - 3_600_000 + (i * 3_600_000) / events);
  await drainBesideCopy('pipeline, embedded log', 'pipeline', load);
}

/** events/s end to end, measured before freshness is */
let reached = 50_000;

export async function endToEnd(): Promise<void> {
  const events = 1_000_000;
  const own: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const now = Date.now();
    const load = makeLoad(events, 1000, `e2e${i}`, () => now);
    const server = await fresh('e2e');
    const began = performance.now();
    await postAll(server.url, KEY, load.bodies);
    own.push(events / (await server.settled(began)));
    await check(server, [load]);
    await server.stop();
  }
  add('end to end, embedded log', `${rate(median(own), 1)} (${spread(own)})`, '–', '≥ 50,000');
  reached = median(own);
}

/** From the acknowledgement to visible in a meter query: a marker tenant's own count is asked for until it is there. */
export async function freshness(): Promise<void> {
  const perSecond = reached / 2;
  const seconds = 30;
  const server = await fresh('freshness');
  const now = Date.now();
  const load = makeLoad(Math.floor(perSecond * seconds), 500, 'fresh', () => now);
  const waits: number[] = [];
  let stop = false;
  const probe = (async () => {
    for (let i = 0; !stop; i++) {
      const event = {
        timestamp: new Date().toISOString(),
        customer_id: `probe_${i}`,
        request_id: `probe-${i}`,
        tokens_consumed: 1,
      };
      await postAll(server.url, KEY, [Buffer.from(JSON.stringify(event))], { connections: 1 });
      const acknowledged = performance.now();
      for (;;) {
        const answer = await fetch(`${server.url}/api/v1/meters/tokens/query?subject=probe_${i}`, {
          headers: { authorization: `Bearer ${KEY}` },
        });
        const body = (await answer.json()) as { data?: { value: number }[] };
        if (body.data?.[0]?.value === 1) break;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      waits.push(performance.now() - acknowledged);
    }
  })();
  await postAll(server.url, KEY, load.bodies, { connections: 16, perSecond: perSecond / 500 });
  stop = true;
  await probe;
  await server.settled(performance.now());
  await server.stop();
  const sorted = waits.toSorted((a, b) => a - b);
  const at = (q: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0);
  add(
    `freshness at ${Math.round(perSecond / 1000)},000 events/s`,
    `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms (${sorted.length} probes)`,
    '–',
    'p99 < 1 s',
  );
}

export async function memory(): Promise<void> {
  const events = 2_000_000;
  const server = await fresh('memory');
  const rss: number[] = [];
  const loads: Load[] = [];
  // A running server: its buffers and caches have the size that their settings allow.
  const warm = makeLoad(500_000, 1000, 'warm', () => Date.now());
  loads.push({ ...warm, bodies: [] });
  await postAll(server.url, KEY, warm.bodies);
  await server.settled(performance.now());
  for (let part = 0; part < 10; part++) {
    const now = Date.now();
    const load = makeLoad(events / 10, 1000, `memory${part}`, () => now);
    loads.push({ ...load, bodies: [] });
    await postAll(server.url, KEY, load.bodies, { perSecond: 40 });
    rss.push(server.rss());
  }
  await server.settled(performance.now());
  await check(server, loads);
  await server.stop();
  const mb = (bytes: number | undefined) => `${Math.round((bytes ?? 0) / 1e6)} MB`;
  add(
    'memory, 2 million events through a running server',
    `RSS ${mb(rss[0])} after the first tenth, ${mb(rss[4])} at half, ${mb(rss[9])} after the last`,
    '–',
    'flat',
  );
}
