import { afterAll, beforeAll, expect, test } from 'vitest';
import { BACKFILL_STEPS } from '../../processors/index.ts';
import type { JobRun } from '../../schemas/index.ts';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';
import { tenantsOn } from '../support/tenant-server.ts';

const DAY = 86_400_000;
const server = new TestServer();
const { admin } = tenantsOn(server);
const SETTINGS = { PROCESSOR_LINGER_MS: '0', METER_REFRESH_MS: '50', ARCHIVE_DUTY_PERCENT: '100' };
const today = Math.floor(Date.now() / DAY) * DAY;
const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10);
/** Days before today: two of them are archived. */
const BACK = [20, 19, 3];

const line = (i: number, back: number) =>
  JSON.stringify({
    timestamp: new Date(today - back * DAY + i * 200_000).toISOString(),
    customer_id: `c-${i % 3}`,
    idempotency_key: `${back}-${i}`,
    endpoint: `/${i % 2}`,
    tokens_consumed: i,
  });

beforeAll(async () => {
  await server.start(SETTINGS);
  for (const back of BACK)
    expect((await server.post(Array.from({ length: 400 }, (_, i) => line(i, back)))).status).toBe(204);
  await server.settled();
  const asked = await server.request('/api/v1/archives/run', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ before: dayOf(today - 10 * DAY) }),
  });
  const { job } = (await asked.json()) as { job: string };
  const run = await until(async () => {
    const found = await server.json<JobRun>(`/api/v1/jobs/${job}`);
    return found.status === 'succeeded' ? found : undefined;
  }, 60_000);
  expect(run.result).toMatchObject({ archived: BACK.slice(0, 2).map((back) => dayOf(today - back * DAY)) });
  // One of a day that is archived, in the database.
  expect((await server.post([line(401, 20)])).status).toBe(204);
  await server.settled();
}, 120_000);
afterAll(() => server.dispose());

const hours = async (slug: string) =>
  (
    await server.json<{ data: unknown[] }>(
      `/api/v1/meters/${slug}/query?windowSize=HOUR&groupBy=endpoint&groupBy=subject`,
    )
  ).data;

test.each([...BACKFILL_STEPS.map((step) => `${step}:1`), 'backfill-archive-read:2'])(
  'P2, P3: kill -9 of a server that counts an archived day for a new meter, at "%s": each event is counted once',
  async (point) => {
    await server.stop();
    await server.start({ ...SETTINGS, TIDEMARK_TEST_KILL_AT: point });
    const died = server.exited;
    const slug = `after_${point.replace(/\W/g, '_')}`;
    const definition = {
      slug,
      eventType: '*',
      aggregation: 'SUM',
      valueProperty: '$.tokens_consumed',
      groupBy: { endpoint: '$.endpoint' },
    };
    const made = await server.request('/api/v1/meters', {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify(definition),
    });
    expect(made.status).toBe(201);
    await died;
    await server.start(SETTINGS);
    // The lease of the killed process ends by itself, later than a test should wait.
    await admin(`UPDATE tidemark.job_runs SET lease_until = now() WHERE status = 'running'`);
    await until(async () => {
      const meters = await server.json<{ slug: string; complete: boolean }[]>('/api/v1/meters');
      return meters.some((one) => one.slug === slug && one.complete) ? true : undefined;
    }, 60_000);
    const expected = await hours('tokens');
    expect(expected.length).toBeGreaterThan(100);
    expect(await hours(slug)).toEqual(expected);
  },
  120_000,
);
