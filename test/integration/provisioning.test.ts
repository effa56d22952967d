import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openBetterStack } from '../../sinks/index.ts';
import type { ProvisioningStep } from '../../tenants/index.ts';
import { schemaOf } from '../../tenants/index.ts';
import { startHeartbeatServer } from '../support/heartbeat-server.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { until } from '../support/server.ts';
import { addUsage, loginAs, openTestTenancy } from '../support/tenants.ts';

let database: TestDatabase;
let heartbeats: Awaited<ReturnType<typeof startHeartbeatServer>>;
type Tenancy = Awaited<ReturnType<typeof openTestTenancy>>;

beforeAll(async () => {
  database = await createTestDatabase();
  heartbeats = await startHeartbeatServer('t');
});
afterAll(async () => {
  await database.drop();
  await heartbeats.close();
});

const watched = () => ({
  heartbeats: { service: openBetterStack({ base: heartbeats.url, token: 't' }), period: 60, grace: 60 },
});
async function withTenancy<T>(more: Parameters<typeof openTestTenancy>[1], work: (tenancy: Tenancy) => Promise<T>) {
  const tenancy = await openTestTenancy(database, { ...watched(), ...more });
  try {
    return await work(tenancy);
  } finally {
    await tenancy.stop();
  }
}

/** Everything that is left of a tenant, anywhere. */
async function remains(id: string): Promise<string[]> {
  const found: string[] = [];
  const { rows: tables } = await database.pool.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
     WHERE c.relnamespace = 'tidemark'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'provisionings'`,
  );
  for (const { name } of tables)
    if ((await database.pool.query(`SELECT FROM ${name} WHERE tenant_id = $1`, [id])).rowCount) found.push(name);
  for (const [what, sql] of [
    ['tenants', 'SELECT FROM tenants WHERE id::text = $1'],
    ['role', `SELECT FROM pg_roles WHERE rolname LIKE 'tenant_' || replace($1, '-', '') || '%'`],
    ['schema', `SELECT FROM pg_namespace WHERE nspname LIKE 'tenant_' || replace($1, '-', '') || '%'`],
    ['migrations', `SELECT FROM tenant_migrations WHERE schema = 'tenant_' || replace($1, '-', '')`],
  ] as const)
    if ((await database.pool.query(sql, [id])).rowCount) found.push(what);
  if ([...heartbeats.heartbeats.values()].some((one) => one.name.includes(id))) found.push('heartbeat');
  return found;
}

/** The steps, one of which always fails: before its work, or after it in the same transaction. */
const failing = (steps: readonly ProvisioningStep[], name: string, when: 'call' | 'apply'): ProvisioningStep[] =>
  steps.map((step) => {
    if (step.name !== name) return step;
    const fail = async (): Promise<never> => {
      throw new Error(`${name} is broken`);
    };
    if (when === 'call') return { ...step, call: fail };
    return {
      ...step,
      apply: async (client, context, called) => {
        await step.apply?.(client, context, called);
        await fail();
      },
    };
  });

describe('P11: a provisioning ends ready or fully undone', () => {
  const steps = [
    'schema',
    'tenant_migrations',
    'pool',
    'configuration',
    'monitoring',
    'demo_data',
    'keys_and_subdomain',
    'welcome_email',
  ];
  test.each(steps.flatMap((step) => [[step, 'call'] as const, [step, 'apply'] as const]))(
    'when step "%s" fails for good (%s), nothing is left',
    async (name, when) => {
      const all = await withTenancy({}, async (tenancy) => tenancy.steps);
      await withTenancy({ steps: failing(all, name, when) }, async (tenancy) => {
        const wanted = {
          slug: `fails-${name.replaceAll('_', '-')}-${when}`,
          name: 'x',
          email: 'a@b.test',
          demoData: true,
        };
        const begun = await tenancy.provisioner.begin(wanted, `key-${name}-${when}`);
        const state = await tenancy.provisioner.wait(begun.provisioningId, 30_000);
        expect(state).toMatchObject({ status: 'failed', error: `${name}: ${name} is broken` });
        expect(state?.steps.map((one) => one.status)).toEqual(state?.steps.map(() => 'undone'));
        expect(await remains(begun.tenant.id)).toEqual([]);
        // The same request may be sent again: nothing of the first one is in its way.
        expect((await tenancy.provisioner.begin(wanted, `key-${name}-${when}`)).repeated).toBe(false);
      });
    },
  );

  test('what fails for a while is tried again, with every attempt on record', async () => {
    heartbeats.failNext(2);
    await withTenancy({ retry: { attempts: 5, baseMs: 1 } }, async (tenancy) => {
      const { state } = await tenancy.create('patient');
      expect(state?.status).toBe('ready');
      expect(state?.steps.find((one) => one.step === 'monitoring')).toMatchObject({
        status: 'done',
        attempt: 3,
        error: null,
      });
    });
  });

  test('a process that stops in the middle hands over; the next one goes on where it was', async () => {
    const all = await withTenancy({}, async (tenancy) => tenancy.steps);
    const { promise: arrived, resolve: blocked } = Promise.withResolvers<void>();
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    const stuck = all.map((step) =>
      step.name === 'pool'
        ? {
            ...step,
            call: async () => {
              blocked();
              await gate;
            },
          }
        : step,
    );
    const first = await openTestTenancy(database, { ...watched(), steps: stuck });
    const begun = await first.provisioner.begin({ slug: 'handed-over', name: 'x' });
    await arrived;
    const stopped = first.stop();
    open();
    await stopped;
    await withTenancy({ sweepMs: 20 }, async (tenancy) => {
      tenancy.provisioner.start();
      const state = await until(async () => {
        const found = await tenancy.provisioner.wait(begun.provisioningId, 1);
        return found?.status === 'ready' ? found : undefined;
      });
      expect(state.steps.find((one) => one.step === 'schema')).toMatchObject({ attempt: 1 });
    });
  });

  test('a process that has lost its lease changes nothing', async () => {
    const all = await withTenancy({}, async (tenancy) => tenancy.steps);
    const robbed = all.map((step) =>
      step.name === 'configuration'
        ? {
            ...step,
            call: async () => {
              await database.pool.query(
                `UPDATE provisionings SET lease_owner = gen_random_uuid(), lease_until = now() + interval '1 hour' WHERE slug = 'robbed'`,
              );
            },
          }
        : step,
    );
    await withTenancy({ steps: robbed }, async (tenancy) => {
      const begun = await tenancy.provisioner.begin({ slug: 'robbed', name: 'x' });
      await tenancy.stop();
      const { rowCount } = await database.pool.query('SELECT FROM tenant_settings WHERE tenant_id = $1', [
        begun.tenant.id,
      ]);
      expect(rowCount).toBe(0);
    });
  });
});

describe('tenants that events have made known', () => {
  const discover = async (customerId: string): Promise<string> => {
    const { rows } = await database.pool.query<{ id: string }>(
      `INSERT INTO tenants (customer_id, name, tier, status) VALUES ($1, $1, 'discovered', 'discovered') RETURNING id`,
      [customerId],
    );
    return rows[0]?.id ?? '';
  };
  test('keep their UUID and their usage when they are provisioned, and when that fails', async () => {
    const id = await discover('known');
    await addUsage(database, id, 'user');
    const all = await withTenancy({}, async (tenancy) => tenancy.steps);
    await withTenancy({ steps: failing(all, 'welcome_email', 'call') }, async (tenancy) => {
      const begun = await tenancy.provisioner.begin({
        slug: 'known-slug',
        name: 'Known',
        customerId: 'known',
        email: 'a@b.test',
      });
      expect(begun.tenant.id).toBe(id);
      expect((await tenancy.provisioner.wait(begun.provisioningId, 30_000))?.status).toBe('failed');
    });
    const { rows } = await database.pool.query(
      'SELECT id, name, slug, status, tier FROM tenants WHERE customer_id = $1',
      ['known'],
    );
    expect(rows).toEqual([{ id, name: 'known', slug: null, status: 'discovered', tier: 'discovered' }]);
    expect(await remains(id)).toEqual(expect.arrayContaining(['accounting', 'events', 'tenants']));
    await withTenancy({}, async (tenancy) => {
      const begun = await tenancy.provisioner.begin({ slug: 'known-slug', name: 'Known', customerId: 'known' });
      expect((await tenancy.provisioner.wait(begun.provisioningId, 30_000))?.status).toBe('ready');
      const client = await loginAs(await tenancy.urlOf(id));
      expect((await client.query('SELECT user_id FROM usage_events')).rows).toEqual([{ user_id: 'user' }]);
      await client.end();
    });
  });
  test('usage that came while a new tenant failed is not lost: the tenant stays, as one that events know', async () => {
    const all = await withTenancy({}, async (tenancy) => tenancy.steps);
    const used = all.map((step) =>
      step.name === 'welcome_email'
        ? {
            ...step,
            call: async ({ tenantId }: { tenantId: string }) => {
              await database.pool.query(
                'INSERT INTO accounting (shard, tenant_id, received, accepted, duplicate, dead_lettered) VALUES (2, $1, 1, 1, 0, 0) ON CONFLICT DO NOTHING',
                [tenantId],
              );
              throw new Error('no mail');
            },
          }
        : step,
    );
    await withTenancy({ steps: used }, async (tenancy) => {
      const begun = await tenancy.provisioner.begin({ slug: 'early', name: 'Early', email: 'a@b.test' });
      expect((await tenancy.provisioner.wait(begun.provisioningId, 30_000))?.status).toBe('failed');
      expect((await remains(begun.tenant.id)).sort()).toEqual(['accounting', 'tenants']);
    });
  });
});

test('P7: names with quotes, newlines and Unicode are values, never SQL', async () => {
  await withTenancy({}, async (tenancy) => {
    const hostile = [
      `'; DROP TABLE tenants; --`,
      `"quoted" \\ back`,
      'line\nbreak',
      '☃ Ünïcode \u{1F600}',
      '$$; SELECT 1; $$',
    ];
    for (const [i, name] of hostile.entries()) {
      const begun = await tenancy.provisioner.begin({
        slug: `hostile-${i}`,
        name,
        customerId: `${name}-${randomUUID()}`,
      });
      expect((await tenancy.provisioner.wait(begun.provisioningId, 30_000))?.status).toBe('ready');
      const { rows } = await database.pool.query('SELECT name FROM tenants WHERE id = $1', [begun.tenant.id]);
      expect(rows).toEqual([{ name }]);
      expect(
        (await database.pool.query('SELECT FROM pg_namespace WHERE nspname = $1', [schemaOf(begun.tenant.id)]))
          .rowCount,
      ).toBe(1);
    }
  });
});
