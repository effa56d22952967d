import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';
import { ROWS, tenantsOn } from '../support/tenant-server.ts';

const server = new TestServer();
const { post, create, query, admin, ended, urlOf } = tenantsOn(server);
const ENV = { PROCESSOR_LINGER_MS: '0', PROVISIONING_WAIT_MS: '30000', JOBS_AT_ONCE: '4' };
let id = '';
/** The tenant's first key. */
let key = '';

beforeAll(async () => {
  await server.start(ENV);
  for (const slug of ['acme', 'bystander']) {
    const created = await create(slug);
    if (slug !== 'acme') continue;
    id = String(created.id);
    key = (created.keys as { secret: string }[])[0]?.secret ?? '';
  }
  await query('acme', `INSERT INTO agents (name, agent_type) VALUES (E'it''s \t "quoted"\n☃', 'x')`);
  await send('acme', { method: 'PATCH', body: JSON.stringify({ features: { beta: true } }) });
  expect((await server.post([line('acme', 'first'), line('bystander', 'first')])).status).toBe(204);
  await server.settled();
}, 120_000);
afterAll(() => server.dispose());

const line = (customer: string, name: string) =>
  JSON.stringify({
    timestamp: new Date().toISOString(),
    customer_id: customer,
    idempotency_key: name,
    endpoint: '/x',
    tokens_consumed: 5,
  });
const send = (slug: string, init: RequestInit, secret = ADMIN_KEY) =>
  server.request(`/api/v1/tenants/${slug}`, {
    ...init,
    headers: {
      authorization: `Bearer ${secret}`,
      ...(init.body === undefined ? {} : { 'content-type': 'application/json' }),
    },
  });
const statusOf = async () => (await server.json<{ status: string }>('/api/v1/tenants/acme')).status;
const archive = async () => (await post('/api/v1/tenants/acme/archive', { reason: 'quiet since spring' })).job;
const unarchive = async () => (await post('/api/v1/tenants/acme/unarchive')).job;
const tokens = async (secret = ADMIN_KEY) => {
  const answer = await server.request('/api/v1/meters/tokens/query?subject=acme', {
    headers: { authorization: `Bearer ${secret}` },
  });
  return ((await answer.json()) as { data: { value: number }[] }).data.map((one) => one.value);
};
/** Schemas and roles of the tenant, with what they may. */
const inDatabase = () => {
  const name = `tenant_${id.replaceAll('-', '')}`;
  return admin(`
    SELECT 'schema' AS kind, nspname::text AS name, nspacl::text AS rights FROM pg_namespace WHERE nspname LIKE '${name}%'
    UNION ALL SELECT 'role', rolname, concat_ws(' ', rolcanlogin, rolinherit, rolconnlimit, rolsuper) FROM pg_roles WHERE rolname LIKE '%${name.slice(7)}%'
    UNION ALL SELECT 'relation', relname, relacl::text FROM pg_class WHERE relnamespace = to_regnamespace('${name}')
    ORDER BY 1, 2`);
};
const isStopped = (pid: number) => /\) T /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
/** Files of backups of the tenant. */
const backups = () =>
  readdirSync(join(server.data, 'objects', 'tenants', id), { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile() && one.name.endsWith('.gz'))
    .map((one) => join(one.parentPath, one.name));
/** Everything that must be the same afterwards. */
const everything = async () => ({
  rows: await query('acme', ROWS),
  url: await urlOf('acme'),
  configuration: await server.json('/api/v1/tenants/acme/configuration'),
  tenant: await server.json('/api/v1/tenants/acme'),
  structure: await inDatabase(),
  tokens: await tokens(key),
});

describe('an inactive tenant', () => {
  test('is proposed, with what its schema takes', async () => {
    await admin(`INSERT INTO tidemark.schema_activity (tenant_id, received, changed_at) VALUES ('${id}', 1, now() - interval '100 days')
      ON CONFLICT (tenant_id) DO UPDATE SET changed_at = excluded.changed_at`);
    const list = (days: number) =>
      server.json<{ data: { slug: string; schema_bytes: number }[] }>(`/api/v1/tenants?inactive_days=${days}`);
    const { data } = await list(90);
    expect(data).toMatchObject([{ slug: 'acme', status: 'ready', last_event_at: expect.stringMatching(/Z$/) }]);
    expect(data[0]?.schema_bytes).toBeGreaterThan(50_000);
    expect((await list(365)).data).toEqual([]);
  });

  test('P7: is archived whole: schema and roles go, nothing comes in, what was counted stays readable', async () => {
    const others = await query('bystander', ROWS);
    const before = await everything();
    const run = await ended(await archive());
    expect(run).toMatchObject({ status: 'succeeded', error: null, result: { tenant_id: id } });
    expect(await statusOf()).toBe('archived');
    expect(await inDatabase()).toEqual([]);
    const refused = await server.post([line('acme', 'late')], { authorization: `Bearer ${key}` });
    expect([refused.status, ((await refused.json()) as { code: string }).code]).toEqual([403, 'tenant_archived']);
    const mixed = await server.post([line('acme', 'late'), line('bystander', 'second')]);
    expect(await mixed.json()).toMatchObject({ accepted: 1, rejected: [{ code: 'tenant_archived' }] });
    expect(await tokens(key)).toEqual([5]);
    for (const path of ['suspend', 'resume', 'rotate-keys'])
      expect(await post(`/api/v1/tenants/acme/${path}`)).toMatchObject({ code: 'tenant_archived' });
    // A deletion that is taken back.
    expect((await send('acme', { method: 'DELETE' })).status).toBe(202);
    expect(await post('/api/v1/tenants/acme/unarchive')).toMatchObject({ code: 'conflict' });
    expect(await post('/api/v1/tenants/acme/resume')).toMatchObject({ status: 'archived' });
    expect(await query('bystander', ROWS)).toEqual(others);

    expect(await ended(await unarchive())).toMatchObject({
      status: 'succeeded',
      result: { status: 'ready', behind: 0 },
    });
    expect(await everything()).toEqual(before);
    expect((await server.post([line('acme', 'again')], { authorization: `Bearer ${key}` })).status).toBe(204);
    await expect(query('acme', 'DROP TABLE tasks')).rejects.toMatchObject({ code: '42501' });
    await query('acme', `INSERT INTO agents (name, agent_type) VALUES ('next', 'x')`);
    expect(await post('/api/v1/tenants/acme/unarchive')).toMatchObject({ code: 'conflict' });
  });

  test('P11: that can not be stored is open again', async () => {
    const before = await everything();
    const folder = join(server.data, 'objects', 'tenants');
    mkdirSync(folder, { recursive: true });
    renameSync(folder, `${folder}-aside`);
    writeFileSync(folder, 'in the way');
    expect((await ended(await archive())).status).toBe('failed');
    expect(await everything()).toEqual(before);
    renameSync(`${folder}-aside`, `${folder}-2`);
    renameSync(folder, `${folder}-in-the-way`);
    renameSync(`${folder}-2`, folder);
  });

  test('P11: whose backup is damaged before it is read back keeps all that it has, and the file is named', async () => {
    const before = await everything();
    await server.kill9();
    await server.start({ ...ENV, TIDEMARK_TEST_KILL_AT: 'tenant-archive/backed-up:1:freeze' });
    const known = new Set(backups());
    const job = await archive();
    const damaged = await until(async () =>
      isStopped(server.pid) ? backups().find((file) => !known.has(file)) : undefined,
    );
    const bytes = readFileSync(damaged);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 4;
    writeFileSync(damaged, bytes);
    process.kill(server.pid, 'SIGCONT');
    const run = await ended(job);
    expect(run).toMatchObject({ status: 'failed' });
    expect(run.error).toContain(damaged.slice(join(server.data, 'objects/').length));
    expect({ ...(await everything()), url: '' }).toEqual({ ...before, url: '' });
    expect((await ended(await archive())).status).toBe('succeeded');
    await ended(await unarchive());
    expect({ ...(await everything()), url: '' }).toEqual({ ...before, url: '' });
  }, 120_000);

  test('P7: a suspended one comes back suspended, and a tenant has no say in it', async () => {
    await post('/api/v1/tenants/acme/suspend');
    expect((await send('acme/archive', { method: 'POST', body: '{"reason":"x"}' }, key)).status).toBe(403);
    await ended(await archive());
    await ended(await unarchive());
    expect(await statusOf()).toBe('suspended');
    await expect(query('acme', 'SELECT 1')).rejects.toMatchObject({ code: '28000' });
    await post('/api/v1/tenants/acme/resume');
  });
});

test('an archived tenant that is deleted is purged with its backup', async () => {
  const leaver = String((await create('leaver')).id);
  const job = (await post('/api/v1/tenants/leaver/archive', { reason: 'gone' })).job;
  expect((await ended(job)).status).toBe('succeeded');
  const stored = () =>
    readdirSync(join(server.data, 'objects'), { recursive: true, withFileTypes: true })
      .filter((one) => one.isFile() && one.parentPath.includes(leaver))
      .map((one) => one.name);
  expect(stored()).toContain('manifest.json');
  const deleted = (await (await send('leaver?grace_days=0', { method: 'DELETE' })).json()) as { job: string };
  expect(await ended(deleted.job)).toMatchObject({ status: 'succeeded', result: { purged: [{ tenant_id: leaver }] } });
  expect(stored()).toEqual([]);
  expect(await admin(`SELECT state FROM tidemark.tenant_archives WHERE tenant_id = '${leaver}'`)).toEqual([]);
});

describe('P7, P11: kill -9 of the server while a tenant', () => {
  const doomed = async (point: string, ask: () => Promise<unknown>) => {
    await server.kill9();
    await server.start({ ...ENV, TIDEMARK_TEST_KILL_AT: `${point}:1` });
    const died = server.exited;
    const job = await ask();
    await died;
    await server.start(ENV);
    // The lease of the killed process ends by itself, later than a test should wait.
    await admin(`UPDATE tidemark.job_runs SET lease_until = now() WHERE status = 'running'`);
    return ended(job);
  };

  test.each(['closed', 'dropped', 'left'])(
    'is archived, at "%s": the next server ends it',
    async (point) => {
      const [before, others] = [await everything(), await query('bystander', ROWS)];
      expect(await doomed(`tenant-archive/${point}`, archive)).toMatchObject({ status: 'succeeded', error: null });
      expect([await statusOf(), await inDatabase()]).toEqual(['archived', []]);
      expect(await query('bystander', ROWS)).toEqual(others);
      await ended(await unarchive());
      expect({ ...(await everything()), url: '' }).toEqual({ ...before, url: '' });
    },
    120_000,
  );

  test.each(['filled', 'committed'])(
    'comes back, at "%s": the next server ends it',
    async (point) => {
      const before = await everything();
      await ended(await archive());
      const run = await doomed(`tenant-unarchive/${point}`, unarchive);
      if (point !== 'committed') expect(run).toMatchObject({ status: 'succeeded', error: null });
      expect({ ...(await everything()), url: '' }).toEqual({ ...before, url: '' });
    },
    120_000,
  );
});
