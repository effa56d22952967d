import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, describe, expect, test } from 'vitest';
import { TestServer, until } from '../support/server.ts';

/** One data folder through all crashes. */
const server = new TestServer();
afterAll(() => server.dispose());

const create = (slug: string, headers: Record<string, string> = {}) =>
  server.request('/api/v1/tenants', {
    method: 'POST',
    headers: { 'content-type': 'application/json', prefer: 'wait=30', 'idempotency-key': slug, ...headers },
    body: JSON.stringify({ slug, name: slug, email: 'a@b.test', demo_data: true }),
  });
interface State {
  tenant_id: string;
  status: string;
  steps: { step: string; status: string; attempt: number }[];
}
const stateOf = (slug: string) => server.json<State>(`/api/v1/tenants/${slug}/provisioning`);
const ended = (slug: string) =>
  until(async () => {
    const state = await stateOf(slug);
    return state.status === 'ready' || state.status === 'failed' ? state : undefined;
  }, 60_000);

async function admin<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: server.databaseUrl });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Asks for a tenant of a server that kills itself at `point`, and starts the next one. */
async function crash(point: string, slug: string, env: Record<string, string> = {}): Promise<void> {
  await server.start({ TIDEMARK_TEST_KILL_AT: `${point}:1`, ...env });
  const doomed = server.exited;
  const answer = await create(slug).then(
    (one) => one.status,
    () => 'cut off',
  );
  await doomed;
  expect(answer).toBe('cut off');
  await server.start();
}

describe('P11: kill -9 of the server in the middle of a provisioning', () => {
  test.each([
    'provision/schema/called',
    'provision/tenant_migrations/called',
    'provision/pool/called',
    'provision/configuration/done',
    'provision/monitoring/called',
    'provision/demo_data/done',
    'provision/keys_and_subdomain/done',
    'provision/welcome_email/called',
  ])('at "%s": the next server ends it ready, everything is there once', async (point) => {
    const slug = `k-${point.slice(10).replaceAll(/[/_]/g, '-')}`;
    await crash(point, slug);
    const state = await ended(slug);
    expect(state.status).toBe('ready');
    expect(state.steps.map((one) => one.status)).toEqual(state.steps.map(() => 'done'));
    // The same request is the same tenant, also after the crash.
    const repeated = (await (await create(slug)).json()) as { id: string; status: string };
    expect(repeated).toMatchObject({ id: state.tenant_id, status: 'ready' });
    await admin(async (client) => {
      const { rows } = await client.query(
        `SELECT (SELECT count(*)::int FROM tidemark.api_keys WHERE tenant_id = $1) AS keys,
           (SELECT count(*)::int FROM tidemark.tenant_monitors WHERE tenant_id = $1) AS monitors,
           (SELECT count(*)::int FROM tidemark.tenant_migrations WHERE schema = $2) > 0 AS migrated`,
        [state.tenant_id, `tenant_${state.tenant_id.replaceAll('-', '')}`],
      );
      expect(rows).toEqual([{ keys: 1, monitors: 6, migrated: true }]);
    });
    const url = /^DATABASE_URL=(.*)$/m.exec(await (await server.request(`/api/v1/tenants/${slug}/env`)).text())?.[1];
    const client = new pg.Client({ connectionString: url ?? '' });
    await client.connect();
    const { rows } = await client.query(
      'SELECT (SELECT count(*)::int FROM agents) AS agents, (SELECT count(*)::int FROM tasks) AS tasks',
    );
    await client.end();
    expect(rows).toEqual([{ agents: 5, tasks: 40 }]);
    // Its file is named after the run: written again after a crash, it is the same message.
    const mails = readdirSync(join(server.data, 'mail')).filter((name) =>
      readFileSync(join(server.data, 'mail', name), 'utf8').includes(`customer_id): ${slug}\r`),
    );
    expect(mails).toHaveLength(1);
    await server.kill9();
  });

  test.each(['provision/welcome_email/undone', 'provision/schema/undone'])(
    'at "%s" of an undo: the next server undoes the rest, nothing is left',
    async (point) => {
      const slug = `u-${point.slice(10).replaceAll(/[/_]/g, '-')}`;
      // Nothing listens there: the last step fails for good.
      await crash(point, slug, { SMTP_URL: 'smtp://127.0.0.1:1' });
      const state = await ended(slug);
      expect([state.status, new Set(state.steps.map((one) => one.status))]).toEqual(['failed', new Set(['undone'])]);
      expect((await server.request(`/api/v1/tenants/${slug}`)).status).toBe(404);
      await admin(async (client) => {
        const name = `tenant_${state.tenant_id.replaceAll('-', '')}%`;
        const { rows } = await client.query(
          `SELECT (SELECT count(*)::int FROM pg_roles WHERE rolname LIKE $1) AS roles, (SELECT count(*)::int FROM pg_namespace WHERE nspname LIKE $1) AS schemas,
             (SELECT count(*)::int FROM tidemark.api_keys WHERE tenant_id = $2) AS keys, (SELECT count(*)::int FROM tidemark.tenants WHERE id = $2) AS tenants`,
          [name, state.tenant_id],
        );
        expect(rows).toEqual([{ roles: 0, schemas: 0, keys: 0, tenants: 0 }]);
      });
      expect((await create(slug)).status).toBe(201);
      await server.kill9();
    },
  );
});
