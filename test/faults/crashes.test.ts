import { afterAll, beforeAll, expect, test } from 'vitest';
import { STEPS } from '../../processors/index.ts';
import { TestServer, until } from '../support/server.ts';

/** One data folder through all crashes: whatever one of them broke, the later ones and the final count would show. */
const server = new TestServer();
const sent = new Map<string, { tenant: string; tokens: number; user: string }>();
let serial = 0;

beforeAll(async () => {
  await server.start();
});
afterAll(() => server.dispose());

/** Log lines of three tenants; a third of them was sent before. */
function makeLines(count: number): string[] {
  const now = Date.now();
  const lines: string[] = [];
  const known = [...sent.keys()];
  for (let i = 0; i < count; i++) {
    const repeat = i % 3 === 2 ? known[(i * 7919) % Math.max(1, known.length)] : undefined;
    const key = repeat ?? `event-${serial++}`;
    const event = sent.get(key) ?? {
      tenant: `tenant-${serial % 3}`,
      tokens: serial % 1000,
      user: `user-${serial % 50}`,
    };
    sent.set(key, event);
    lines.push(
      JSON.stringify({
        timestamp: new Date(now - (serial % 7) * 3_600_000 - (serial % 60) * 60_000).toISOString(),
        customer_id: event.tenant,
        idempotency_key: key,
        user_id: event.user,
        endpoint: `/e${serial % 4}`,
        method: 'GET',
        status_code: 200,
        duration_ms: serial % 300,
        tokens_consumed: event.tokens,
      }),
    );
  }
  return lines;
}

/** Sends until acknowledged, as a client does; a server that dies meanwhile is started again. */
async function deliver(lines: readonly string[]): Promise<void> {
  await until(async () => {
    try {
      const answer = await server.post(lines);
      return answer.status === 204 ? true : undefined;
    } catch {
      await server.exited;
      await server.start();
      return undefined;
    }
  });
}

/** P1 to P4 from the outside: raw events, rollups and accounts against what was sent. */
async function verify(): Promise<void> {
  const total = await server.settled();
  expect(total.accepted).toBe(sent.size);
  expect(total.received).toBe(total.accepted + total.duplicate + total.dead_lettered);
  expect(total.dead_lettered).toBe(0);
  const expected = Map.groupBy(sent.values(), (event) => event.tenant);
  for (const [meter, value] of [
    ['api_calls', (own: { tokens: number; user: string }[]) => own.length],
    ['tokens', (own: { tokens: number; user: string }[]) => own.reduce((sum, one) => sum + one.tokens, 0)],
    ['active_users', (own: { tokens: number; user: string }[]) => new Set(own.map((one) => one.user)).size],
  ] as const) {
    const { data } = await server.json<{ data: { subject: string; value: number }[] }>(
      `/api/v1/meters/${meter}/query?groupBy=subject`,
    );
    expect(Object.fromEntries(data.map((row) => [row.subject, row.value]))).toEqual(
      Object.fromEntries([...expected].map(([tenant, own]) => [tenant, value(own)])),
    );
  }
}

test.each(STEPS)(
  'P1, P2, P3, P4: kill -9 of the server at step "%s" of a batch loses and doubles nothing',
  async (step) => {
    await server.stop();
    await server.start({ TIDEMARK_TEST_KILL_AT: `${step}:1`, PROCESSOR_BATCH_EVENTS: '200' });
    // It dies by its own hand at that step, perhaps before it could answer: `deliver` then starts it again.
    const doomed = server.exited;
    let died = false;
    doomed.then(() => {
      died = true;
    });
    await deliver(makeLines(600));
    await Promise.race([doomed, server.settled().catch(() => doomed)]);
    // Folding comes only where an hour is due.
    if (step !== 'folded') expect(died).toBe(true);
    if (server.exited === doomed && died) await server.start();
    await verify();
  },
);

test('P1, P2, P3, P4: kill -9 of PostgreSQL in the middle of commits, and the server again when it is back', async () => {
  await server.stop();
  await server.start({ PROCESSOR_BATCH_EVENTS: '100', PROCESSOR_LINGER_MS: '0' });
  for (let round = 0; round < 3; round++) {
    const delivering = deliver(makeLines(3_000));
    await until(
      async () =>
        (await server.json<{ total: { pending: number } }>('/api/v1/reconciliation')).total.pending > 0
          ? true
          : undefined,
      5_000,
    ).catch(() => undefined);
    const pid = server.postgresPid();
    if (pid > 0) process.kill(pid, 'SIGKILL');
    await delivering;
    await server.kill9();
    await server.start();
    await verify();
  }
});
