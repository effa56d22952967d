import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  createHealthJob,
  driveMigration,
  type Finding,
  type HealthDeps,
  listSchemaHealth,
  oldSchemaOf,
  schemaOf,
  startMigration,
} from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { createTenants, type Fleet, openFleet, RUN_OPTIONS } from '../support/tenant-fleet.ts';
import { SAMPLES } from '../support/tenant-migrations.ts';

const NIL = '00000000-0000-0000-0000-000000000000';
let database: TestDatabase;
let ids: string[];
let fleet: Fleet;
let found: [string, Finding['kind']][] = [];
let now = Date.now();
beforeAll(async () => {
  database = await createTestDatabase();
  ids = await createTenants(database.pool, 4);
  fleet = openFleet(database.url, [SAMPLES.dropTokens]);
});
afterAll(async () => {
  await fleet.close();
  await database.drop();
});

const at = (i: number): string => ids[i] ?? '';
async function look(more: Partial<HealthDeps> = {}) {
  found = [];
  now += 300_000;
  const job = createHealthJob({
    migrations: { ...fleet.deps, migrations: () => fleet.deps.migrations().filter((one) => one.version < 1000) },
    limits: { storageBytes: 1e12, inactiveDays: 90 },
    parallel: 3,
    slowSeconds: 10,
    keepHours: 24,
    meters: { calls: 1, errors: 4 },
    onFinding: (tenantId, finding) => found.push([tenantId, finding.kind]),
    now: () => now,
    ...more,
  });
  return job.run({ id: NIL, params: {}, signal: new AbortController().signal, progress: async () => undefined });
}
const list = (finding: string | null = null) =>
  listSchemaHealth(database.pool, { after: NIL, tenants: null, finding, limit: 100 });

test('every schema is looked at: size, version, own history', async () => {
  expect(await look()).toMatchObject({ schemas: 4, findings: {} });
  const all = await list();
  expect(all.map((one) => one.tenantId)).toEqual(ids.toSorted());
  for (const one of all) expect(one).toMatchObject({ tables: 2, version: 1, drift: 0, growth: 0, findings: [] });
  expect(all.every((one) => one.bytes > 10_000)).toBe(true);
});

test('drift is found where somebody changed a schema by hand, and told once', async () => {
  await database.pool.query(`ALTER TABLE ${schemaOf(at(1))}.tasks DROP COLUMN tokens`);
  await database.pool.query(
    `SET ROLE "${schemaOf(at(1))}_owner"; CREATE TABLE ${schemaOf(at(1))}.extra (x int); RESET ROLE`,
  );
  expect(await look()).toMatchObject({ findings: { drift: 1 } });
  expect(found).toEqual([[at(1), 'drift']]);
  await look();
  expect(found).toEqual([]);
  const [one] = await list('drift');
  expect(one?.tenantId).toBe(at(1));
  expect(one?.findings[0]?.detail).toContain('- column tasks.tokens');
  expect(one?.findings[0]?.detail).toContain('+ table extra');
});

test('growth, storage and errors against the history; a role that is locked out', async () => {
  for (let i = 0; i < 8; i++) await look();
  await database.pool.query(
    `INSERT INTO ${schemaOf(at(2))}.agents (name, agent_type) SELECT repeat(md5(i::text), 8), 'x' FROM generate_series(1, 80000) AS i`,
  );
  await database.pool.query(`ALTER ROLE ${schemaOf(at(3))} NOLOGIN`);
  // Its pool has no connection open that would still work.
  fleet.pools.evict(at(3), new Error('locked out'));
  await look({ limits: { storageBytes: 10 << 20, inactiveDays: 90 } });
  expect(found.filter(([id]) => id === at(2)).map(([, kind]) => kind)).toEqual(['growth', 'storage']);
  expect(found.filter(([id]) => id === at(3)).map(([, kind]) => kind)).toEqual(['unreachable']);
  const grown = (await list('growth'))[0];
  expect(grown?.growth).toBeGreaterThan(16 << 20);
});

test('an inactive tenant is proposed for archival', async () => {
  await database.pool.query(
    `INSERT INTO accounting (shard, tenant_id, received, accepted, duplicate, dead_lettered) VALUES (1, $1, 5, 5, 0, 0)`,
    [at(0)],
  );
  await look();
  now += 91 * 86_400_000;
  await look();
  expect((await list('inactive')).map((one) => one.tenantId)).toEqual(ids.toSorted());
  await database.pool.query('UPDATE accounting SET received = 6, accepted = 6');
  await look();
  expect((await list('inactive')).map((one) => one.tenantId)).not.toContain(at(0));
});

test('the kept schemas of a blue/green change go when their time is over', async () => {
  const { id } = await startMigration(fleet.deps, { options: RUN_OPTIONS, tenants: [at(0)] });
  expect(await driveMigration(fleet.deps, id, new AbortController().signal)).toBe('succeeded');
  const isKept = async () =>
    (await database.pool.query('SELECT FROM pg_namespace WHERE nspname = $1', [oldSchemaOf(at(0))])).rowCount === 1;
  now = Date.now();
  expect(await look()).toMatchObject({ dropped: 0 });
  expect(await isKept()).toBe(true);
  now += 25 * 3_600_000;
  expect(await look()).toMatchObject({ dropped: 1 });
  expect(await isKept()).toBe(false);
});
