/** What a bigger installation costs an event: the pipeline's rate with more tenants, and with more days behind it. */
import { HISTORY_TENANTS, makeHistories } from './history.ts';
import { makeLoad, postAll, type Totals } from './load.ts';
import { KEY, startBenchServer } from './process.ts';
import { add, copyData, fresh, median, RUNS, rate, SCRATCH, spread } from './report.ts';
import { type Drained, drain, EVENTS_AN_HOUR, fillLog } from './road.ts';

const EVENTS = 500_000;
/** Drained before, so that tenants and their groups are known as they are in a running installation. */
const EVENTS_BEFORE = 200_000;
const TENANTS = [1, 10, 100, 1000];
const DAYS = [1, 30, 90];
const INGEST_ONLY = { ROLES: 'ingest,query' };

interface Case {
  bench: string;
  /** data folder with a full log */
  name: string;
  env: Record<string, string>;
  /** all that came into it */
  loads: Totals[];
  /** what else is there */
  about?: string;
}

/** All cases, then all again: what else the machine does meets them alike. The first one is the others' yardstick. */
async function compare(cases: readonly Case[]): Promise<void> {
  const runs: Drained[][] = [];
  for (let i = 0; i < RUNS; i++) {
    const run: Drained[] = [];
    for (const { name, loads, env } of cases) {
      await copyData(name, 'growth');
      run.push(await drain('growth', loads, env));
    }
    runs.push(run);
  }
  for (const [c, { bench, about = '' }] of cases.entries()) {
    const own = runs.flatMap((run) => run[c] ?? []);
    const rates = own.map((one) => one.rate);
    const ratio = median(runs.map((run) => (run[c]?.rate ?? 0) / (run[0]?.rate ?? 0)));
    add(
      `growth, ${bench}`,
      `${rate(median(rates), 1)} (${spread(rates)}), ${(median(own.map((one) => one.rollupRows)) / EVENTS).toFixed(2)} rollup rows an event${about}`,
      c === 0 ? '–' : `${ratio.toFixed(2)} × at 1`,
      c === 0 ? '–' : '≥ 0.8 ×',
    );
  }
}

/** As many events a minute as in the pipeline bench; [from, to) of all, the last one is of now. */
function loadOf(run: string, tenants: number, events: number, later = 0) {
  const end = Date.now();
  const at = (i: number) => end - ((events + later - i) * 3_600_000) / EVENTS_AN_HOUR;
  return makeLoad(events, 1000, run, at, tenants);
}

/** One tenant is spread over all partitions: all cases have the same number of processors. */
async function withTenants(tenants: number): Promise<Case> {
  const name = `growth-${tenants}`;
  const env = tenants === 1 ? { SPREAD_TENANTS: 'tenant_0000=4' } : {};
  const before = loadOf('before', tenants, EVENTS_BEFORE, EVENTS);
  const load = loadOf('growth', tenants, EVENTS);
  const server = await fresh(name, env);
  await postAll(server.url, KEY, before.bodies);
  await server.settled(performance.now());
  await server.stop();
  await fillLog(await startBenchServer(`${SCRATCH}${name}`, { ...env, ...INGEST_ONLY }), load);
  const bench = tenants === 1 ? '1 tenant on four partitions' : `${tenants} tenants`;
  return { bench, name, env, loads: [before, load] };
}

async function withHistories(): Promise<Case[]> {
  const load = loadOf('growth', HISTORY_TENANTS, EVENTS);
  const cases: Case[] = [];
  const millions = (count: number) => (count / 1e6).toFixed(2);
  for (const { days, name, counted, events, rollupRows, claimKeys } of await makeHistories(DAYS)) {
    await fillLog(await startBenchServer(`${SCRATCH}${name}`, INGEST_ONLY), load);
    cases.push({
      bench: `${days} ${days === 1 ? 'day' : 'days'} of history`,
      name,
      env: {},
      loads: [...counted, load],
      about: `; ${millions(events)} million raw events, ${millions(rollupRows)} million rollup rows, ${millions(claimKeys)} million claim keys before`,
    });
  }
  return cases;
}

export async function growth(): Promise<void> {
  const cases: Case[] = [];
  for (const tenants of TENANTS) cases.push(await withTenants(tenants));
  await compare(cases);
  await compare(await withHistories());
}
