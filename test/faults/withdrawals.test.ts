import { afterAll, beforeAll, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';

/** One data folder through all crashes. */
const server = new TestServer();
const sent = new Map<string, { tenant: string; tokens: number }>();
let serial = 0;
const SETTINGS = { PROCESSOR_LINGER_MS: '0', METER_REFRESH_MS: '50' };
beforeAll(async () => {
  await server.start(SETTINGS);
});
afterAll(() => server.dispose());

let restarting: Promise<unknown> | undefined;
/** One restart at a time, however many notice the death. */
function restart(): Promise<unknown> {
  restarting ??= server.exited
    .then(() => server.start(SETTINGS))
    .finally(() => {
      restarting = undefined;
    });
  return restarting;
}

/** Asks until it is answered; a server that dies meanwhile is started again. */
async function insist(ask: () => Promise<Response>, status: number): Promise<void> {
  await until(async () => {
    try {
      return (await ask()).status === status ? true : undefined;
    } catch {
      await restart();
      return undefined;
    }
  }, 60_000);
}

function line(key: string, tokens: number, more: object = {}): string {
  const tenant = `t${serial++ % 3}`;
  sent.set(key, { tenant, tokens });
  const timestamp = new Date(Date.now() - (serial % 5) * 3_600_000 - (serial % 60) * 60_000).toISOString();
  return JSON.stringify({
    timestamp,
    customer_id: tenant,
    idempotency_key: key,
    model: `m${serial % 4}`,
    used: tokens,
    ...more,
  });
}

const lines = (count: number) => Array.from({ length: count }, () => line(`k${serial}`, serial % 97));
const deliver = (some: readonly string[]) => insist(() => server.post(some), 204);
const voids = async (keys: readonly string[]) => {
  for (const key of keys) {
    const tenant = sent.get(key)?.tenant ?? '';
    await insist(
      () => server.request(`/api/v1/events/${key}?subject=${tenant}&reason=test`, { method: 'DELETE' }),
      202,
    );
    sent.delete(key);
  }
};
const create = (slug: string, aggregation: string) =>
  insist(
    () =>
      server.request('/api/v1/meters', {
        method: 'POST',
        headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
        body: JSON.stringify({
          slug,
          aggregation,
          eventType: '*',
          valueProperty: '$.used',
          groupBy: { model: '$.model' },
        }),
      }),
    201,
  );

async function verify(slugs: readonly string[]): Promise<void> {
  await until(async () => {
    const meters = await server.json<{ slug: string; complete: boolean }[]>('/api/v1/meters');
    return slugs.every((slug) => meters.some((meter) => meter.slug === slug && meter.complete)) ? true : undefined;
  }, 60_000);
  const total = await server.settled();
  expect(total.received).toBe(total.accepted + total.duplicate + total.dead_lettered);
  const wanted = Map.groupBy(sent.values(), (one) => one.tenant);
  for (const slug of slugs)
    for (const windowSize of ['', '&windowSize=MINUTE', '&windowSize=HOUR']) {
      const { data } = await server.json<{ data: { subject: string; value: number }[] }>(
        `/api/v1/meters/${slug}/query?groupBy=subject${windowSize}`,
      );
      const sums = new Map<string, number>();
      for (const row of data)
        sums.set(
          row.subject,
          slug.startsWith('max')
            ? Math.max(sums.get(row.subject) ?? 0, row.value)
            : (sums.get(row.subject) ?? 0) + row.value,
        );
      const plain = [...wanted].map(([tenant, own]): [string, number] => {
        const values = own.map((one) => one.tokens);
        return [tenant, slug.startsWith('max') ? Math.max(...values) : values.reduce((sum, value) => sum + value, 0)];
      });
      expect({ slug, windowSize, sums: Object.fromEntries(sums) }).toEqual({
        slug,
        windowSize,
        sums: Object.fromEntries(plain),
      });
    }
}

test('P1 to P4: kill -9 in the middle of voids and corrections, under ingest, leaves exact rollups', async () => {
  await deliver(lines(600));
  for (const step of ['withdrawn:1', 'rolled-up:2', 'committed:2']) {
    await server.stop();
    // It may die of what it finds on the log, before it listens.
    await server.start({ ...SETTINGS, TIDEMARK_TEST_KILL_AT: step }).catch(() => undefined);
    const old = [...sent.keys()];
    const traffic = deliver(lines(300));
    await voids(old.slice(0, 6));
    await traffic;
    const corrected = old.slice(10, 20);
    await deliver(
      corrected.map((key) => {
        const before = sent.get(key);
        serial = Number(before?.tenant.slice(1) ?? 0);
        const text = line(`${key}-${step}`, 1_000, { replaces: key });
        sent.delete(key);
        return text;
      }),
    );
    serial = 100_000 + sent.size * 10;
  }
  await create('sum_after', 'SUM');
  await verify(['sum_after']);
}, 120_000);

test('P1 to P4: kill -9 in the middle of a backfill, with ingest and voids going on, counts no event twice and misses none', async () => {
  await deliver(lines(3_000));
  await Promise.all([create('sum_crashed', 'SUM'), create('max_crashed', 'MAX')]);
  for (let round = 0; round < 3; round++) {
    const old = [...sent.keys()].slice(0, 5);
    const traffic = deliver(lines(200));
    await voids(old);
    await traffic;
    await server.kill9();
    await server.start(SETTINGS);
  }
  await verify(['sum_crashed', 'max_crashed', 'sum_after']);
}, 120_000);
