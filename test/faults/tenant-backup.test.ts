import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestServer } from '../support/server.ts';
import { ROWS, tenantsOn } from '../support/tenant-server.ts';

const server = new TestServer();
const { post, create, query, admin, ended } = tenantsOn(server);
const ENV = { PROCESSOR_LINGER_MS: '0', PROVISIONING_WAIT_MS: '30000' };
/** What a meter says of a tenant, to the last digit. */
let usage: unknown;

beforeAll(async () => {
  await server.start(ENV);
  for (const slug of ['source', 'bystander']) await create(slug);
  await query('source', `INSERT INTO agents (name, agent_type) VALUES (E'it''s \\t "quoted"\\n☃', 'x')`);
  const now = Date.now();
  const lines = ['source', 'bystander'].flatMap((tenant) =>
    Array.from({ length: 1_500 }, (_, i) =>
      JSON.stringify({
        timestamp: new Date(now - i * 60_000).toISOString(),
        customer_id: tenant,
        idempotency_key: `key-${i}`,
        user_id: `u${i % 7}`,
        endpoint: `/e${i % 3}`,
        status_code: 200,
        note: { deep: { text: 'Ü', list: [1, 2] } },
      }).replace('"note"', `"tokens_consumed":1${i}.000000000000000001,"note"`),
    ),
  );
  expect((await server.post(lines)).status).toBe(204);
  const cloud = await server.request('/api/v1/events', {
    method: 'POST',
    headers: { 'content-type': 'application/cloudevents+json' },
    body: JSON.stringify({
      specversion: '1.0',
      id: 'c1',
      source: 'shop',
      type: 'feature_use',
      subject: 'source',
      time: new Date(now).toISOString(),
      data: { feature: 'x' },
    }),
  });
  expect(cloud.status).toBe(204);
  await server.settled();
  usage = await usageOf('source');
});
afterAll(() => server.dispose());

async function backup(slug = 'source'): Promise<string> {
  const run = await ended((await post(`/api/v1/tenants/${slug}/backups`)).job);
  expect(run.error).toBeNull();
  return String(run.result?.backup ?? '');
}
const restore = async (id: string, into?: string) =>
  (await post(`/api/v1/tenants/source/backups/${id}/restore`, into === undefined ? {} : { into })).job;

/** Sums by endpoint, distinct users, raw events: everything that a restore must bring back. */
async function usageOf(slug: string): Promise<unknown> {
  const exact = async (meter: string, rest: string) =>
    (
      (await (
        await server.request(`/api/v1/meters/${meter}/query?subject=${slug}${rest}`, {
          headers: { accept: 'application/vnd.tidemark+json' },
        })
      ).json()) as { data: { value: string; groupBy: object }[] }
    ).data.map((row) => [row.groupBy, row.value]);
  const { tenants } = await server.json<{ tenants: { tenant: string; accepted: number }[] }>('/api/v1/reconciliation');
  return [
    await exact('tokens', '&groupBy=endpoint'),
    await exact('active_users', ''),
    await exact('feature_usage', '&groupBy=feature'),
    tenants.find((one) => one.tenant === slug)?.accepted,
  ];
}

describe('a tenant is backed up and restored', () => {
  test('into itself: its rows are as they were, its usage and everybody else is untouched', async () => {
    const [rows, others] = [await query('source', ROWS), await query('bystander', ROWS)];
    const id = await backup();
    await query('source', `DELETE FROM agents; INSERT INTO agents (name, agent_type) VALUES ('later', 'x')`);
    await server.post([
      JSON.stringify({
        timestamp: new Date().toISOString(),
        customer_id: 'source',
        idempotency_key: 'after',
        endpoint: '/later',
        tokens_consumed: 3,
      }),
    ]);
    await server.settled();
    const before = await usageOf('source');
    expect(await ended(await restore(id))).toMatchObject({
      status: 'succeeded',
      result: { verified: true, events: 0 },
    });
    expect(await query('source', ROWS)).toEqual(rows);
    expect(await query('bystander', ROWS)).toEqual(others);
    expect(await usageOf('source')).toEqual(before);
    // Keys are checked again, and the role may still only what it might.
    await expect(
      query('source', `INSERT INTO tasks (agent_id, title) VALUES (gen_random_uuid(), 'x')`),
    ).rejects.toMatchObject({ code: '23503' });
    await expect(query('source', 'DROP TABLE tasks')).rejects.toMatchObject({ code: '42501' });
    await query('source', 'SELECT * FROM usage_events LIMIT 1');
  });

  test('into another tenant: rows and usage to the last digit', async () => {
    const rows = await query('source', ROWS);
    const id = await backup();
    usage = await usageOf('source');
    await create('copy');
    expect(await ended(await restore(id, 'copy'))).toMatchObject({
      status: 'succeeded',
      error: null,
      result: { events: 1_502 },
    });
    expect(await query('copy', ROWS)).toEqual(rows);
    expect(await usageOf('copy')).toEqual(usage);
    expect(await usageOf('source')).toEqual(usage);
    const list = await server.json<{ data: { id: string; rows: number }[] }>('/api/v1/tenants/source/backups');
    expect(list.data.map((one) => one.id)).toContain(id);
  });

  test('a damaged file is noticed, nothing is changed', async () => {
    const id = await backup();
    const folder = join(server.data, 'objects', 'tenants');
    const file =
      readdirSync(folder, { recursive: true, encoding: 'utf8' }).find(
        (name) => name.includes(id) && name.endsWith('table-1.copy.gz'),
      ) ?? '';
    const bytes = readFileSync(join(folder, file));
    bytes[bytes.length - 5] = (bytes[bytes.length - 5] ?? 0) ^ 1;
    writeFileSync(join(folder, file), bytes);
    const rows = await query('source', ROWS);
    await query('source', `INSERT INTO agents (name, agent_type) VALUES ('kept', 'x')`);
    const run = await ended(await restore(id));
    expect(run.status).toBe('failed');
    expect((await query('source', `SELECT name FROM agents WHERE name = 'kept'`)).length).toBe(1);
    await query('source', `DELETE FROM agents WHERE name = 'kept'`);
    expect(await query('source', ROWS)).toEqual(rows);
  });
});

describe('P7, P11: kill -9 of the server in the middle of a restore', () => {
  test.each(['restore/table', 'restore/switched', 'restore/replayed'])(
    'at "%s": the next server ends it, rows and usage are there once',
    async (point) => {
      const id = await backup();
      const rows = await query('source', ROWS);
      const others = await query('bystander', ROWS);
      // Before anything is sent again, the target makes no difference: the same tenant is the quicker one.
      const slug = point === 'restore/replayed' ? 'replayed' : 'source';
      if (slug === 'replayed') await create(slug);
      else await query('source', 'DELETE FROM tasks');
      await server.kill9();
      await server.start({ ...ENV, TIDEMARK_TEST_KILL_AT: `${point}:1` });
      const doomed = server.exited;
      const job = await restore(id, slug);
      await doomed;
      await server.start(ENV);
      // The lease of the killed process ends by itself, later than a test should wait.
      await admin(`UPDATE tidemark.job_runs SET lease_until = now() WHERE status = 'running'`);
      expect(await ended(job)).toMatchObject({ status: 'succeeded', error: null });
      expect(await query(slug, ROWS)).toEqual(rows);
      expect(await query('bystander', ROWS)).toEqual(others);
      const [tokens, users, features] = (await usageOf(slug)) as unknown[];
      expect([tokens, users, features]).toEqual((usage as unknown[]).slice(0, 3));
    },
  );
});
