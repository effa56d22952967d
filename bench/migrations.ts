/** Tenants' schemas and connections: a migration over 100 tenants, there and back; waits for a connection under overload. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import pg from 'pg';
import { startEmbeddedPostgres } from '../sinks/index.ts';
import { openTenantPools } from '../tenants/index.ts';
import { type BenchServer, KEY } from './process.ts';
import { add, fresh, median, RUNS, SCRATCH, spread } from './report.ts';

const TENANTS = 100;
const UP =
  'ALTER TABLE agents ADD COLUMN label text NOT NULL DEFAULT $$none$$; CREATE INDEX agents_label ON agents (label);';
const DOWN = 'ALTER TABLE agents DROP COLUMN label;';

interface Run {
  id: string;
  status: string;
  error: string | null;
  counts: { succeeded: number };
}

/** Sends and reads JSON with the server's key. */
async function ask<T>(server: BenchServer, path: string, body?: object): Promise<T> {
  const answer = await fetch(`${server.url}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${KEY}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as T;
}

/** @returns seconds from the request to the end of the run */
async function carriedOut(server: BenchServer, path: string, body: object): Promise<number> {
  const began = performance.now();
  let run = await ask<Run>(server, path, body);
  while (run.status === 'running') {
    await new Promise((resolve) => setTimeout(resolve, 50));
    run = await ask<Run>(server, `/api/v1/migrations/${run.id}`);
  }
  if (run.status !== 'succeeded' || run.counts.succeeded !== TENANTS)
    throw new Error(`${run.status}: ${run.counts.succeeded} of ${TENANTS}, ${run.error}`);
  return (performance.now() - began) / 1000;
}

export async function migrations(): Promise<void> {
  const folder = `${SCRATCH}tenant-migrations`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const server = await fresh('migrations', { TENANT_MIGRATIONS: folder, PROVISIONING_WAIT_MS: '60000' });
  try {
    for (let i = 0; i < TENANTS; i += 5)
      await Promise.all(
        Array.from({ length: 5 }, (_, j) =>
          ask(server, '/api/v1/tenants', { slug: `t${i + j}`, name: 'bench', demo_data: true }),
        ),
      );
    const forward: number[] = [];
    const back: number[] = [];
    writeFileSync(`${folder}/1001_label.up.sql`, UP);
    writeFileSync(`${folder}/1001_label.down.sql`, DOWN);
    for (let i = 0; i < RUNS; i++) {
      forward.push(await carriedOut(server, '/api/v1/migrations', {}));
      const { data } = await ask<{ data: Run[] }>(server, '/api/v1/migrations?limit=1');
      back.push(await carriedOut(server, `/api/v1/migrations/${data[0]?.id}/rollback`, {}));
    }
    const seconds = (values: number[]) =>
      `${median(values).toFixed(1)} s (${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)})`;
    add('migrations', `${TENANTS} tenants in waves, health checked: ${seconds(forward)}`, '–', '< 10 min');
    add('migrations', `taken back for all: ${seconds(back)}`, '–', '< 5 min');
    const greenAndBlue = await carriedOut(server, '/api/v1/migrations', { strategy: 'blue_green' });
    const { data } = await ask<{ data: Run[] }>(server, '/api/v1/migrations?limit=1');
    const switched = await carriedOut(server, `/api/v1/migrations/${data[0]?.id}/rollback`, {});
    add(
      'migrations',
      `blue/green ${greenAndBlue.toFixed(1)} s, switched back in ${switched.toFixed(1)} s`,
      '–',
      'back in seconds',
    );
  } finally {
    await server.stop();
  }
}

const POOL_TENANTS = 200;
const ASKS = 5;
const BUDGET = 60;

/** 200 tenants ask for 5 connections each at once, against a budget of 60; the yardstick is one tenant with 60 of its own. */
export async function pools(): Promise<void> {
  const folder = `${SCRATCH}pools`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const server = await startEmbeddedPostgres(folder);
  const settings = { budget: BUDGET, waitMs: 5_000, queue: 1_000, idleMs: 60_000, alertAt: 0.8 };
  const open = (sizes: { hot: number; warm: number; cold: number }) =>
    openTenantPools({
      settings: { ...settings, sizes },
      urlOf: async () => server.url,
      onAlert: () => undefined,
      now: () => performance.now(),
    });
  let late = 0;
  let asked = 0;
  /** @returns sorted waits in ms, from asking to holding a connection */
  const ask = async (tenants: number, asks: number, sizes: { hot: number; warm: number; cold: number }) => {
    const lent = open(sizes);
    const waits: number[] = [];
    const outcomes = await Promise.allSettled(
      Array.from({ length: tenants * asks }, async (_, i) => {
        const began = performance.now();
        await lent.use(`t${i % tenants}`, async (connection) => {
          waits.push(performance.now() - began);
          await connection.query('SELECT pg_sleep(0.002)');
        });
      }),
    );
    asked += outcomes.length;
    late += outcomes.filter((one) => one.status === 'rejected').length;
    const report = lent.report();
    if (report.used > BUDGET) throw new Error(`${report.used} connections, the budget is ${BUDGET}`);
    await lent.end();
    return waits.toSorted((a, b) => a - b);
  };
  try {
    const p50: number[] = [];
    const p99: number[] = [];
    const yard: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const waits = await ask(POOL_TENANTS, ASKS, { hot: 5, warm: 2, cold: 1 });
      p50.push(waits[Math.floor(waits.length / 2)] ?? 0);
      p99.push(waits[Math.floor(waits.length * 0.99)] ?? 0);
      const one = await ask(1, POOL_TENANTS * ASKS, { hot: BUDGET, warm: BUDGET, cold: BUDGET });
      yard.push(one[Math.floor(one.length * 0.99)] ?? 0);
    }
    add(
      'pools',
      `${POOL_TENANTS} tenants × ${ASKS} at once, ${BUDGET} connections: p50 ${median(p50).toFixed(0)} ms, p99 ${median(p99).toFixed(0)} ms (${spread(p99)}), ${late} of ${asked} timed out`,
      `one tenant with all ${BUDGET}: p99 ${median(yard).toFixed(0)} ms`,
      'p99 < 5 s',
    );
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    const lent = open({ hot: 1, warm: 1, cold: 1 });
    const each = async (work: () => Promise<unknown>) => {
      const began = performance.now();
      for (let i = 0; i < 2_000; i++) await work();
      return (performance.now() - began) / 2;
    };
    const bare = await each(() => client.query('SELECT 1'));
    const borrowed = await each(() => lent.use('t', (connection) => connection.query('SELECT 1')));
    await lent.end();
    await client.end();
    add('pools', `borrow, query, clean: ${Math.round(borrowed)} µs`, `the query alone: ${Math.round(bare)} µs`, '–');
  } finally {
    await server.stop();
  }
}
