import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ADMIN_KEY, TestServer, until } from '../support/server.ts';

const server = new TestServer();
const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const run = promisify(execFile);

beforeAll(async () => {
  await server.start({ PROCESSOR_LINGER_MS: '0', PROVISIONING_WAIT_MS: '30000' });
});
afterAll(() => server.dispose());

/** The command, as an operator types it. */
async function tidemark(...args: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [MAIN, ...args, '--url', server.url, '--key', ADMIN_KEY], {
    env: { ...process.env, TIDEMARK_DATA: server.data },
  });
  return stdout;
}
const api = async (path: string, method = 'GET', body?: object, headers: Record<string, string> = {}) => {
  const answer = await server.request(path, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> & { code: string } };
};
const create = async (slug: string, more: object = {}) => {
  const { body } = await api('/api/v1/tenants', 'POST', { slug, name: slug, ...more });
  return body as unknown as { id: string; keys: { id: string; secret: string }[] };
};
const line = (customer: string, key: string) =>
  JSON.stringify({
    timestamp: new Date().toISOString(),
    customer_id: customer,
    request_id: key,
    endpoint: '/x',
    tokens_consumed: 5,
  });
const databaseUrl = async (slug: string): Promise<string> =>
  /^DATABASE_URL=(.*)$/m.exec(await (await server.request(`/api/v1/tenants/${slug}/env`)).text())?.[1] ?? '';
async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe('the command', () => {
  test('creates a tenant, shows its steps, prints its key and its environment', async () => {
    const shown = await tidemark(
      'tenants',
      'create',
      'typed',
      '--name',
      `It's "typed"`,
      '--demo-data',
      '--email',
      'a@b.test',
    );
    for (const step of ['tenant record', 'schema', 'demo data', 'welcome email'])
      expect(shown).toMatch(new RegExp(`✓ ${step}`));
    expect(shown).toMatch(/key {6}tm_live_\w+/);
    const env = await tidemark('tenants', 'env', 'typed');
    const url = /^DATABASE_URL=(postgres:\S+)$/m.exec(env)?.[1] ?? '';
    expect(await query(url, 'SELECT count(*)::int AS agents FROM agents')).toEqual([{ agents: 5 }]);
    await expect(query(url, 'CREATE TEMP TABLE t (x int)')).rejects.toMatchObject({ code: '42501' });
    expect(await tidemark('tenants', 'list')).toMatch(/typed +typed +standard +ready/);
    expect(await tidemark('tenants', 'show', 'typed')).toMatch(/"sql_access": true/);
    const [mail = ''] = readdirSync(join(server.data, 'mail'));
    expect(readFileSync(join(server.data, 'mail', mail), 'utf8')).toMatch(/To: a@b\.test/);
  });
});

describe('a life', () => {
  test('suspended: ingest and SQL are refused with their own code, reading goes on; resumed: all is as before', async () => {
    const tenant = await create('sleepy');
    const key = { authorization: `Bearer ${tenant.keys[0]?.secret}` };
    expect((await server.post([line('sleepy', 's1')])).status).toBe(204);
    const url = await databaseUrl('sleepy');
    expect((await api('/api/v1/tenants/sleepy/suspend', 'POST')).body).toMatchObject({ status: 'suspended' });
    const refused = (await (await server.post([line('sleepy', 's2')])).json()) as { rejected: { code: string }[] };
    expect(refused.rejected.map((one) => one.code)).toEqual(['tenant_suspended']);
    const own = await server.post([line('sleepy', 's3')], key);
    expect([own.status, ((await own.json()) as { code: string }).code]).toEqual([403, 'tenant_suspended']);
    await expect(query(url, 'SELECT 1')).rejects.toMatchObject({ code: '28000' });
    expect((await server.request('/api/v1/meters/tokens/query', { headers: key })).status).toBe(200);
    expect((await api('/api/v1/tenants/sleepy/resume', 'POST')).body).toMatchObject({ status: 'ready' });
    expect((await server.post([line('sleepy', 's4')], key)).status).toBe(204);
    expect(await query(url, 'SELECT 1 AS x')).toEqual([{ x: 1 }]);
  });

  test('renamed and moved to another tier; a taken slug is refused and nothing is changed', async () => {
    await create('before');
    const changed = await api('/api/v1/tenants/before', 'PATCH', {
      slug: 'after',
      tier: 'free',
      features: { beta: true },
    });
    expect(changed.body).toMatchObject({ slug: 'after', customer_id: 'before', tier: 'free' });
    expect(await query(await databaseUrl('after'), 'SHOW statement_timeout')).toEqual([{ statement_timeout: '10s' }]);
    expect((await api('/api/v1/tenants/after/configuration')).body).toMatchObject({
      limits: { connections: 5 },
      features: { beta: true, exports: false },
    });
    const taken = await api('/api/v1/tenants/after', 'PATCH', { slug: 'sleepy', tier: 'enterprise' });
    expect([taken.status, taken.body.code]).toEqual([409, 'conflict']);
    expect((await api('/api/v1/tenants/after')).body).toMatchObject({ tier: 'free' });
  });

  test('keys rotated: the new one works, the old one does not, SQL has a new password', async () => {
    const tenant = await create('turning');
    const old = { authorization: `Bearer ${tenant.keys[0]?.secret}` };
    const url = await databaseUrl('turning');
    const { status, body } = await api('/api/v1/tenants/turning/rotate-keys', 'POST', {});
    expect([status, body.scopes, body.replaces]).toEqual([201, ['ingest', 'read'], [tenant.keys[0]?.id]]);
    expect((await server.request('/api/v1/tenants', { headers: old })).status).toBe(401);
    expect(
      (await server.request('/api/v1/tenants', { headers: { authorization: `Bearer ${body.secret}` } })).status,
    ).toBe(200);
    await expect(query(url, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
    expect(await query(await databaseUrl('turning'), 'SELECT 1 AS x')).toEqual([{ x: 1 }]);
  });

  test('exported: every row of its own tables and its usage, and nothing of others', async () => {
    await create('leaving', { demo_data: true });
    await server.post([line('leaving', 'l1'), line('leaving', 'l2'), line('typed', 'other')]);
    await server.settled();
    const lines = (await (await server.request('/api/v1/tenants/leaving/export')).text())
      .trim()
      .split('\n')
      .map((text) => JSON.parse(text) as { tenant?: { slug: string }; table?: string; row?: Record<string, unknown> });
    expect(lines[0]?.tenant).toMatchObject({ slug: 'leaving' });
    const rows = (table: string) => lines.filter((one) => one.table === table).map((one) => one.row);
    expect([rows('agents').length, rows('tasks').length]).toEqual([5, 40]);
    expect(
      rows('usage_events')
        .map((row) => row?.request_id)
        .sort(),
    ).toEqual(['l1', 'l2']);
  });

  test('deleted: stopped at once, taken back within its grace period, purged after it; its name comes back empty', async () => {
    const tenant = await create('gone', { demo_data: true });
    const key = { authorization: `Bearer ${tenant.keys[0]?.secret}` };
    await server.post([line('gone', 'g1'), line('stays', 'g2')]);
    await server.settled();
    const deleted = await api('/api/v1/tenants/gone', 'DELETE');
    expect([deleted.status, deleted.body.status]).toEqual([202, 'deleted']);
    expect(Date.parse(String(deleted.body.delete_after)) - Date.now()).toBeGreaterThan(29 * 86_400_000);
    expect((await server.request('/api/v1/tenants', { headers: key })).status).toBe(401);
    const refused = (await (await server.post([line('gone', 'g3')])).json()) as { rejected: { code: string }[] };
    expect(refused.rejected.map((one) => one.code)).toEqual(['tenant_deleted']);
    expect((await api('/api/v1/tenants/gone/resume', 'POST')).body).toMatchObject({ status: 'ready' });
    expect((await server.request('/api/v1/tenants', { headers: key })).status).toBe(200);

    const { body: purge } = await api('/api/v1/tenants/gone?grace_days=0', 'DELETE');
    await until(async () => ((await api(`/api/v1/jobs/${purge.job}`)).body.status === 'succeeded' ? true : undefined));
    const list = (await api('/api/v1/tenants?limit=1000')).body as unknown as { data: { customer_id: string }[] };
    expect(list.data.map((one) => one.customer_id)).not.toContain('gone');
    const { tenants } = await server.json<{ tenants: { tenant: string }[] }>('/api/v1/reconciliation');
    expect(tenants.map((one) => one.tenant)).not.toContain('gone');
    expect(tenants.map((one) => one.tenant)).toContain('stays');

    // Back under the old name: the old UUID, nothing of the old usage, and what comes now is counted.
    const again = await create('gone');
    expect(again.id).toBe(tenant.id);
    await server.post([line('gone', 'g4')]);
    await server.settled();
    const { data } = await server.json<{ data: { value: number }[] }>(
      '/api/v1/meters/api_calls/query?subject=gone&groupBy=endpoint',
    );
    expect(data.map((one) => one.value)).toEqual([1]);
  });
});

describe('P7: a tenant through the API', () => {
  test('another tenant is 404, administration is forbidden', async () => {
    const { keys } = await create('nosy');
    const headers = { authorization: `Bearer ${keys[0]?.secret}` };
    for (const path of [
      '/api/v1/tenants/typed',
      '/api/v1/tenants/typed/provisioning',
      '/api/v1/tenants/typed/provisioning/stream',
    ])
      expect([path, (await server.request(path, { headers })).status]).toEqual([path, 404]);
    expect((await server.request('/api/v1/tenants/nosy/provisioning', { headers })).status).toBe(200);
    for (const [path, method] of [
      ['/api/v1/tenants/typed/env', 'GET'],
      ['/api/v1/tenants/typed/export', 'GET'],
      ['/api/v1/tenants/typed/suspend', 'POST'],
      ['/api/v1/tenants/typed', 'DELETE'],
      ['/api/v1/audit', 'GET'],
    ] as const)
      expect([path, (await server.request(path, { method, headers })).status]).toEqual([path, 403]);
  });

  test('who of the platform looked at a tenant is on record, with the reason, and the record can not be changed', async () => {
    const reason = { 'tidemark-reason': 'ticket 7: "quoted" ☃'.replace('☃', 'snow') };
    await api('/api/v1/events?subject=typed', 'GET', undefined, reason);
    const { body } = await api('/api/v1/audit?tenant=typed&limit=5');
    const rows = body.data as { action: string; key: string; reason: string | null }[];
    expect(rows).toContainEqual(
      expect.objectContaining({ action: 'GET /api/v1/events', key: 'admin', reason: 'ticket 7: "quoted" snow' }),
    );
    for (const sql of [
      'DELETE FROM tidemark.audit_log',
      `UPDATE tidemark.audit_log SET reason = ''`,
      'TRUNCATE tidemark.audit_log',
    ])
      await expect(query(server.databaseUrl, sql)).rejects.toMatchObject({ code: '23000' });
    const [{ secret = '' } = {}] = (await query(
      server.databaseUrl,
      `SELECT encode(secret, 'escape') AS secret FROM tidemark.tenant_schemas`,
    )) as { secret: string }[];
    expect(secret).not.toContain(new URL(await databaseUrl('typed')).password);
    expect(statSync(join(server.data, 'secret.key')).mode & 0o777).toBe(0o600);
  });

  test.each([
    [
      'a reference with a quote',
      `/api/v1/tenants/${encodeURIComponent(`x' OR '1'='1`)}/suspend`,
      'POST',
      undefined,
      404,
      'not_found',
    ],
    ['a new slug with a newline', '/api/v1/tenants/typed', 'PATCH', { slug: 'a\nb' }, 400, 'invalid_body'],
    ['a feature with a quote', '/api/v1/tenants/typed', 'PATCH', { features: { "a'b": true } }, 400, 'invalid_body'],
    ['nothing to change', '/api/v1/tenants/typed', 'PATCH', {}, 400, 'invalid_body'],
    ['a tier that is none', '/api/v1/tenants/typed', 'PATCH', { tier: 'discovered' }, 400, 'invalid_body'],
    ['a grace that is no number', '/api/v1/tenants/typed?grace_days=-1', 'DELETE', undefined, 400, 'invalid_parameter'],
    [
      'an address with a comma',
      '/api/v1/tenants',
      'POST',
      { slug: 'm', name: 'm', email: 'a@b.c,d@e.f' },
      400,
      'invalid_body',
    ],
    [
      'the environment of one that only events know',
      '/api/v1/tenants/stays/env',
      'GET',
      undefined,
      409,
      'tenant_unprovisioned',
    ],
  ])('P6: %s', async (_what, path, method, body, status, code) => {
    const answer = await api(path, method, body);
    expect([answer.status, answer.body.code]).toEqual([status, code]);
  });
});
