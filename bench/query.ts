/** Questions about 30 days, by HTTP from rollups, and the same answers from the raw events in SQL. */
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { openEmbeddedPostgresPool } from './database.ts';
import { TENANTS } from './load.ts';
import { BIG, DAYS, ENDPOINTS, fillMonth } from './month.ts';
import { type BenchServer, KEY } from './process.ts';
import { add, fresh, median, SCRATCH } from './report.ts';

const DAY = 86_400_000;
const SECOND = 1_000;
/** times that each question is asked before any is measured, and measured */
const WARM_UP = 20;
const ASKED = 100;
const sum = (times: readonly number[]) => times.reduce((all, one) => all + one, 0);
const iso = (ms: number) => new Date(ms).toISOString();

interface Question {
  name: string;
  meter: 'tokens' | 'request_duration';
  parameters: string;
  /** the same from raw events; $1 from, $2 to; the last column is the value */
  sql: string;
}

const FROM = `FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id WHERE e."timestamp" >= $1 AND e."timestamp" < $2`;
const SUM = 'sum(e.tokens_consumed)::float8 AS value';
const P95 = '(array_agg(e.duration_ms ORDER BY e.duration_ms))[1 + floor(0.95 * (count(*) - 1))::int]::float8 AS value';
const BY_HOUR = `date_trunc('hour', e."timestamp")`;

const QUESTIONS: readonly Question[] = (
  [
    ['tokens', 'sum', SUM],
    ['request_duration', 'p95', P95],
  ] as const
).flatMap(([meter, what, value]): Question[] => [
  {
    name: `one tenant × ${ENDPOINTS} endpoints, ${what} by hour`,
    meter,
    parameters: `subject=${BIG}&windowSize=HOUR&groupBy=endpoint`,
    sql: `SELECT ${BY_HOUR}, e.endpoint, ${value} ${FROM} AND t.customer_id = '${BIG}' GROUP BY 1, 2 ORDER BY 1, 2`,
  },
  {
    name: `${TENANTS} tenants, ${what} by hour`,
    meter,
    parameters: 'windowSize=HOUR',
    sql: `SELECT ${BY_HOUR}, ${value} ${FROM} GROUP BY 1 ORDER BY 1`,
  },
  {
    name: `${TENANTS} tenants × ${ENDPOINTS} endpoints, ${what} by hour and endpoint`,
    meter,
    parameters: 'windowSize=HOUR&groupBy=endpoint',
    sql: `SELECT ${BY_HOUR}, e.endpoint, ${value} ${FROM} GROUP BY 1, 2 ORDER BY 1, 2`,
  },
  {
    name: `top 10 of ${TENANTS} tenants by ${what}`,
    meter,
    parameters: 'groupBy=subject&top=10&orderBy=value',
    sql: `SELECT t.customer_id, ${value} ${FROM} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10`,
  },
]);

export async function query(): Promise<void> {
  // What is filled in is added up over all partitions soon.
  const server = await fresh('query', { ROLLUP_REFOLD_SECONDS: '1' });
  const database = await openEmbeddedPostgresPool(`${SCRATCH}query`);
  try {
    await ask(server, database.pool);
  } finally {
    await database.close();
    await server.stop();
  }
}

async function ask(server: BenchServer, pool: pg.Pool): Promise<void> {
  const to = Math.floor(Date.now() / DAY) * DAY;
  const from = to - DAYS * DAY;
  const events = await fillMonth(pool, from);
  await mergedOver(server, from, to);
  const asked = QUESTIONS.map((one) => ({
    ...one,
    path: `${one.meter}/query?from=${iso(from)}&to=${iso(to)}&${one.parameters}`,
  }));
  // All of them first, to warm the server up: whichever came first would pay for compiling what all use.
  for (let i = 0; i < WARM_UP; i++) for (const { path } of asked) await valuesOf(server, path);
  for (const { name, meter, path, sql } of asked) {
    const raw: number[] = [];
    let expected: number[] = [];
    // Once more where it is short: the second time may find more in memory.
    while (raw.length === 0 || (raw.length < 3 && sum(raw) < 3 * SECOND)) {
      const began = performance.now();
      const { rows } = await pool.query<(string | number)[]>({
        text: sql,
        values: [iso(from), iso(to)],
        rowMode: 'array',
      });
      raw.push(performance.now() - began);
      expected = rows.map((row) => Number(row.at(-1)));
    }
    const times: number[] = [];
    for (let i = 0; i < ASKED; i++) {
      const began = performance.now();
      const values = await valuesOf(server, path);
      times.push(performance.now() - began);
      check(name, meter, values, expected);
    }
    const sorted = times.toSorted((a, b) => a - b);
    const p95 = sorted[Math.floor(sorted.length * 0.95)] ?? 0;
    const yardstick = Math.min(...raw);
    add(
      `query, 30 days: ${name}`,
      `p50 ${median(sorted).toFixed(1)} ms, p95 ${p95.toFixed(1)} ms`,
      `${Math.round(yardstick / median(sorted))} × SQL over ${(events / 1e6).toFixed(1)} million raw events, ${Math.round(yardstick)} ms`,
      'p95 < 50 ms; ≥ 100 ×',
    );
  }
}

async function valuesOf(server: BenchServer, path: string): Promise<number[]> {
  const answer = await fetch(`${server.url}/api/v1/meters/${path}`, { headers: { authorization: `Bearer ${KEY}` } });
  const { data } = (await answer.json()) as { data: { value: number }[] };
  return data.map(({ value }) => value);
}

/** Waits until rows of all tenants are one for all partitions, as a month that came in by itself would have. */
async function mergedOver(server: BenchServer, from: number, to: number): Promise<void> {
  for (;;) {
    const answer = await fetch(
      `${server.url}/api/v1/meters/tokens/query?from=${iso(from)}&to=${iso(to)}&windowSize=HOUR&explain=true`,
      { headers: { authorization: `Bearer ${KEY}` } },
    );
    const { explain } = (await answer.json()) as { explain: { rollups: { rollup: string }[] } };
    if (explain.rollups.every(({ rollup }) => rollup.endsWith('partitions added up'))) return;
    await delay(200);
  }
}

/** Sums are the same, percentiles within 1 %. */
function check(name: string, meter: string, got: readonly number[], expected: readonly number[]): void {
  const error = meter === 'tokens' ? 0 : 0.0101;
  if (got.length !== expected.length) throw new Error(`${name}: ${got.length} rows, expected ${expected.length}`);
  got.forEach((value, i) => {
    const due = expected[i] ?? 0;
    // Which of equal tenants come tenth may differ.
    if (Math.abs(value - due) > due * error) throw new Error(`${name}: row ${i} is ${value}, expected ${due}`);
  });
}
