/** What a bigger installation costs an event: the pipeline's rate with more tenants, and with more days behind it. */
import { HISTORY_TENANTS, makeHistories } from './history.ts';
import { type Load, makeLoad } from './load.ts';
import { startBenchServer } from './process.ts';
import { add, copyData, median, RUNS, rate, SCRATCH, spread } from './report.ts';
import { type Drained, drain, EVENTS_AN_HOUR } from './road.ts';

const EVENTS = 500_000;
const TENANTS = [1, 10, 100, 1000] as const;
const DAYS = [1, 30, 90] as const;
const AIM = '≥ 0.8 ×';

/** As many events a minute as in the pipeline bench, up to now. */
function loadOf(tenants: number): Load {
  const now = Date.now();
  const span = (EVENTS / EVENTS_AN_HOUR) * 3_600_000;
  return makeLoad(EVENTS, 1000, `growth${tenants}`, (i) => now - span + (i * span) / EVENTS, tenants);
}

interface Case {
  bench: string;
  /** behind the rate */
  about: string;
  run: () => Promise<Drained>;
}

/** All cases once, then again: what else the machine does meets all of them. The first one is the others' yardstick. */
async function compare(cases: readonly Case[], yardstick: string): Promise<void> {
  const measured = cases.map((): Drained[] => []);
  for (let i = 0; i < RUNS; i++) for (const [c, { run }] of cases.entries()) measured[c]?.push(await run());
  for (const [c, { bench, about }] of cases.entries()) {
    const own = (measured[c] ?? []).map((one) => one.rate);
    const ratios = own.map((one, i) => one / (measured[0]?.[i]?.rate ?? 0));
    const rows = median((measured[c] ?? []).map((one) => one.rows));
    add(
      bench,
      `${rate(median(own), 1)} (${spread(own)}), ${rows.toFixed(2)} rollup rows written an event${about}`,
      c === 0 ? '–' : `${median(ratios).toFixed(2)} × ${yardstick}`,
      c === 0 ? '–' : AIM,
    );
  }
}

export async function growth(): Promise<void> {
  await compare(
    TENANTS.map((tenants) => {
      const load = loadOf(tenants);
      // One partition would be one processor's work: all cases have the same four.
      const env = tenants === 1 ? { SPREAD_TENANTS: 'tenant_0000=4' } : {};
      const bench = `pipeline, ${tenants} tenants${tenants === 1 ? ', spread over four partitions' : ''}`;
      return { bench, about: '', run: () => drain('growth', load, { env }) };
    }),
    'at 1 tenant',
  );
  const load = loadOf(HISTORY_TENANTS);
  const millions = (count: number) => (count / 1e6).toFixed(1);
  await compare(
    (await makeHistories(DAYS)).map(({ days, name, totals, events, rollupRows, claimKeys }) => ({
      bench: `pipeline, ${days} days behind it, ${HISTORY_TENANTS} tenants`,
      about: `; ${millions(events)} million raw events, ${millions(rollupRows)} million rollup rows, ${millions(claimKeys)} million claim keys before`,
      run: () =>
        drain('growth', load, {
          counted: totals,
          start: async (data, env) => {
            await copyData(name, data);
            return startBenchServer(`${SCRATCH}${data}`, env);
          },
        }),
    })),
    'at 1 day',
  );
}
