import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';

const server = new TestServer();
afterAll(() => server.dispose());
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const line = (key: string) =>
  JSON.stringify({ timestamp: new Date().toISOString(), customer_id: 'acme', request_id: key, tokens_consumed: 3 });

test('P14: SIGTERM drains and exits 0 within 10 s; what was acknowledged is counted after the next start, within 10 s too', async () => {
  await server.start();
  expect((await server.request('/readyz')).status).toBe(200);
  for (let i = 0; i < 20; i++)
    expect((await server.post(Array.from({ length: 500 }, (_, j) => line(`${i}-${j}`)))).status).toBe(204);
  const began = performance.now();
  expect(await server.stop()).toBe(0);
  expect(performance.now() - began).toBeLessThan(10_000);
  expect(server.postgresPid()).toBe(0);
  expect(await server.start()).toBeLessThan(10_000);
  expect(await server.settled()).toMatchObject({ accepted: 10_000, duplicate: 0 });
});

test('a second server on the same folder is refused and changes nothing', async () => {
  const second = spawnSync(process.execPath, [join(ROOT, 'cli/main.ts'), 'start'], {
    env: { ...process.env, PORT: '0', TIDEMARK_DATA: server.data },
    encoding: 'utf8',
    timeout: 20_000,
  });
  expect([second.status, second.stderr]).toEqual([1, expect.stringContaining('data_in_use')]);
  expect((await server.request('/readyz')).status).toBe(200);
});

test('after kill -9 of the server its PostgreSQL lives on, and the next start attaches to it', async () => {
  const pid = server.postgresPid();
  await server.kill9();
  await server.start();
  expect(server.postgresPid()).toBe(pid);
  expect((await server.post([line('after')])).status).toBe(204);
  expect((await server.settled()).accepted).toBe(10_001);
});

test('without TIDEMARK_ADMIN_KEY a key is made, printed at any log level, and kept for its owner only', async () => {
  await server.stop();
  await server.start({ TIDEMARK_ADMIN_KEY: '', LOG_LEVEL: 'silent' });
  const key = /all scopes: (\S+)/.exec(server.output)?.[1] ?? '';
  expect(key.length).toBeGreaterThanOrEqual(32);
  expect((await server.request('/api/v1/meters', { headers: { authorization: `Bearer ${key}` } })).status).toBe(200);
  expect(statSync(join(server.data, 'admin.key')).mode & 0o777).toBe(0o600);
});

test('the command runs on the pinned Node whatever the system has, and says what is wrong with settings', () => {
  const run = (args: string[], env: Record<string, string> = {}) =>
    spawnSync('npx', ['--no-install', 'tidemark', ...args], {
      cwd: ROOT,
      encoding: 'utf8',
      env: { ...process.env, ...env },
      timeout: 30_000,
    });
  expect(run(['--help']).stdout).toContain('import');
  const wrong = run(['start'], { PORT: 'abc' });
  expect([wrong.status, wrong.stderr]).toEqual([1, expect.stringContaining('PORT must be a whole number')]);
});
