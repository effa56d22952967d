import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestServer, until } from '../support/server.ts';

const server = new TestServer();
beforeAll(() => server.start());
afterAll(() => server.dispose());

/** No file of the server grows beyond this; its PostgreSQL has begun without. */
const limitFiles = (bytes: string) =>
  execFileSync('prlimit', ['--pid', String(server.pid), `--fsize=${bytes}:unlimited`]);

test('P1: where the log can’t grow the server says 503, lives, and goes on by itself: what it acknowledged is there', async () => {
  let sent = 0;
  const post = async () => {
    const lines = Array.from({ length: 1_000 }, (_, i) =>
      JSON.stringify({
        timestamp: new Date().toISOString(),
        customer_id: `full${sent % 4}`,
        idempotency_key: `${sent}-${i}`,
        note: 'x'.repeat(400),
      }),
    );
    const { status } = await server.post(lines);
    if (status === 204) sent++;
    return status;
  };
  expect(await post()).toBe(204);
  limitFiles(String(statSync(join(server.data, 'log/data.mdb')).size + (4 << 20)));
  await until(async () => ((await post()) === 503 ? true : undefined));
  for (let i = 0; i < 5; i++) expect([204, 503]).toContain(await post());
  expect((await server.request('/healthz')).status).toBe(200);
  limitFiles('unlimited');
  await until(async () => ((await post()) === 204 ? true : undefined));
  expect((await server.settled()).accepted).toBe(sent * 1_000);
});
