import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const server = new TestServer();
const folder = mkdtempSync(join(tmpdir(), 'tidemark-migrations-'));
let tenantKey = '';
let second: TestDatabase;

beforeAll(async () => {
  second = await createTestDatabase();
  chmodSync(folder, 0o755);
  await server.start({ TENANT_MIGRATIONS: folder, PROVISIONING_WAIT_MS: '30000' });
  for (const slug of ['one', 'two', 'three']) {
    const answer = await server.request('/api/v1/tenants', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ slug, name: slug }),
    });
    expect(answer.status).toBe(201);
    const body = (await answer.json()) as { keys: { secret: string }[] };
    tenantKey = body.keys[0]?.secret ?? '';
  }
});
afterAll(async () => {
  await server.dispose();
  await second.drop();
  rmSync(folder, { recursive: true, force: true });
});

/** The command, against the server. */
async function tidemark(...args: string[]): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [MAIN, ...args, '--url', server.url, '--key', ADMIN_KEY], {
    env: { ...process.env, TIDEMARK_DATA: server.data },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString('utf8');
    });
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

const post = (path: string, body: object = {}) =>
  server.request(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });

test("P10: Prisma's migrations are planned, applied and taken back from the terminal", async () => {
  mkdirSync(join(folder, '20260101120000_projects'));
  writeFileSync(
    join(folder, '20260101120000_projects/migration.sql'),
    '-- CreateSchema\nCREATE SCHEMA IF NOT EXISTS "public";\n\n-- CreateTable\nCREATE TABLE "Project" ("id" SERIAL NOT NULL, "name" TEXT NOT NULL, CONSTRAINT "Project_pkey" PRIMARY KEY ("id"));\n',
  );
  writeFileSync(join(folder, '20260101120000_projects/down.sql'), 'DROP TABLE "Project";');
  const plan = await tidemark('migrate', 'plan');
  expect(plan.output).toContain('3 tenants, in_place');
  expect(plan.output).toContain('+ table Project');
  const applied = await tidemark('migrate', 'apply');
  expect(applied).toMatchObject({ code: 0, output: expect.stringContaining('succeeded; 3 succeeded') });
  expect((await tidemark('migrate', 'plan')).output).toContain('Every tenant has every migration');
  expect((await tidemark('migrate', 'status')).output).toContain('20260101120000: succeeded');
  const again = await post('/api/v1/migrations');
  expect(await again.json()).toMatchObject({ code: 'nothing_to_migrate', status: 409 });
  const back = await tidemark('migrate', 'rollback');
  expect(back).toMatchObject({ code: 0, output: expect.stringContaining('rollback') });
  rmSync(join(folder, '20260101120000_projects'), { recursive: true });
});

test('P10: a run whose server is killed goes on after the restart', async () => {
  writeFileSync(join(folder, '1001_slow.up.sql'), 'SELECT pg_sleep(0.5); CREATE TABLE slow (x int);');
  writeFileSync(join(folder, '1001_slow.down.sql'), 'DROP TABLE slow;');
  const answer = await post('/api/v1/migrations', { parallel: 1 });
  expect(answer.status).toBe(202);
  const { id } = (await answer.json()) as { id: string };
  interface Run {
    status: string;
    counts: { succeeded: number; running: number };
    targets: { status: string }[];
  }
  await until(async () => {
    const run = await server.json<Run>(`/api/v1/migrations/${id}`);
    return run.counts.running > 0 ? true : undefined;
  });
  await server.kill9();
  await server.start({ TENANT_MIGRATIONS: folder });
  const run = await until(async () => {
    const now = await server.json<Run>(`/api/v1/migrations/${id}`);
    return now.status === 'running' ? undefined : now;
  }, 90_000);
  expect(run).toMatchObject({ status: 'succeeded', counts: { succeeded: 3 } });
}, 120_000);

test('pools are shown, and measured', async () => {
  const pools = await server.json<{ budget: number; data: { class: string; limit: number; borrows: number }[] }>(
    '/api/v1/pools',
  );
  expect(pools.budget).toBeGreaterThan(10);
  expect(pools.data.length).toBeGreaterThan(0);
  expect(pools.data[0]).toMatchObject({ limit: expect.any(Number), borrows: expect.any(Number) });
  const metrics = await (await server.request('/metrics')).text();
  expect(metrics).toMatch(/tidemark_pool_limit_connections\{tenant_id="[0-9a-f-]{36}",class="\w+"\} \d/);
  expect(metrics).toMatch(/tidemark_pools_budget_connections \d+/);
});

test('the health of schemas is asked by route; a tenant sees its own alone', async () => {
  const health = await server.json<{ data: unknown[]; next: null }>('/api/v1/health/schemas?limit=10');
  expect(health).toMatchObject({ data: expect.any(Array), next: null });
  expect(await (await server.request('/api/v1/health/schemas?finding=luck')).json()).toMatchObject({
    code: 'invalid_parameter',
  });
  const own = { headers: { authorization: `Bearer ${tenantKey}` } };
  expect((await server.request('/api/v1/health/schemas', own)).status).toBe(200);
  expect((await server.request('/api/v1/health/schemas?tenant=one', own)).status).toBe(404);
});

test('a shard is added, a new tenant goes there, and comes home from the terminal', async () => {
  const added = await post('/api/v1/shards', {
    id: 'east',
    database_url: second.url,
    topic: 'events-east',
    capacity: 10_000,
  });
  expect(added.status).toBe(201);
  expect(await added.text()).not.toContain('postgres');
  const created = await post('/api/v1/tenants', { slug: 'far', name: 'far', demo_data: true });
  expect(created.status).toBe(201);
  expect((await tidemark('shards', 'list')).output).toMatch(/east .*1 of 10000/);
  const { rows } = await second.pool.query(`SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_'`);
  expect(rows).toHaveLength(1);
  expect(await (await post('/api/v1/tenants/far/suspend')).json()).toMatchObject({ code: 'elsewhere', status: 409 });
  const moved = await tidemark('tenants', 'move', 'far', '--to', 'main');
  expect(moved).toMatchObject({ code: 0, output: expect.stringMatching(/far: east → main, \d+ rows/) });
  expect((await post('/api/v1/tenants/far/suspend')).status).toBe(200);
  expect(await (await post('/api/v1/tenants/far/move', { shard: 'main' })).json()).toMatchObject({
    code: 'already_there',
  });
  expect(await (await post('/api/v1/tenants/far/move', { shard: 'west' })).json()).toMatchObject({ code: 'not_found' });
});

test('P6: bad input is answered with its catalogue error', async () => {
  const broken = join(folder, '1002_broken.up.sql');
  writeFileSync(broken, 'CREATE TABEL x ();');
  expect(await (await post('/api/v1/migrations/plan')).json()).toMatchObject({
    code: 'invalid_migration',
    status: 400,
  });
  rmSync(broken);
  for (const [path, code] of [
    ['/api/v1/migrations/none', 'not_found'],
    ['/api/v1/migrations/00000000-0000-0000-0000-000000000000', 'not_found'],
    ['/api/v1/migrations?cursor=x', 'invalid_cursor'],
    ['/api/v1/migrations?limit=0', 'invalid_parameter'],
  ] as const)
    expect(await (await server.request(path)).json()).toMatchObject({ code });
  expect(await (await post('/api/v1/migrations', { tenants: ['nobody'] })).json()).toMatchObject({ code: 'not_found' });
  expect(await (await post('/api/v1/migrations', { strategy: 'luck' })).json()).toMatchObject({ code: 'invalid_body' });
});

test('P7: migrations and pools are not for tenants', async () => {
  for (const path of ['/api/v1/migrations', '/api/v1/pools']) {
    const answer = await server.request(path, { headers: { authorization: `Bearer ${tenantKey}` } });
    expect(answer.status).toBe(403);
  }
});
