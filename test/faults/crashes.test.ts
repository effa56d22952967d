import { afterAll, beforeAll, expect, test } from 'vitest';
import { STEPS } from '../../processors/index.ts';
import { Ledger } from '../support/ledger.ts';
import { TestServer, until } from '../support/server.ts';

/** One data folder through all crashes: whatever one of them broke, the later ones and the final count would show. */
const server = new TestServer();
const ledger = new Ledger();

beforeAll(async () => {
  await server.start();
});
afterAll(() => server.dispose());

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

test.each(STEPS)(
  'P1, P2, P3, P4: kill -9 of the server at step "%s" of a batch loses and doubles nothing',
  async (step) => {
    await server.stop();
    // It dies by its own hand at that step, perhaps before it could answer, or even listen: `deliver` then starts it again.
    await server.start({ TIDEMARK_TEST_KILL_AT: `${step}:1`, PROCESSOR_BATCH_EVENTS: '200' }).catch(() => undefined);
    const doomed = server.exited;
    let died = false;
    doomed.then(() => {
      died = true;
    });
    await deliver(ledger.makeLines(600));
    await Promise.race([doomed, server.settled().catch(() => doomed)]);
    // Folding comes only where an hour is due; withdrawals have a test of their own.
    if (!['folded', 'coarse', 'merged', 'withdrawn'].includes(step)) expect(died).toBe(true);
    if (server.exited === doomed && died) await server.start();
    await ledger.verify(server);
  },
);

test('P1, P2, P3, P4: kill -9 of PostgreSQL in the middle of commits, and the server again when it is back', async () => {
  await server.stop();
  await server.start({ PROCESSOR_BATCH_EVENTS: '100', PROCESSOR_LINGER_MS: '0' });
  for (let round = 0; round < 3; round++) {
    const delivering = deliver(ledger.makeLines(3_000));
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
    await ledger.verify(server);
  }
});
