import { createHash } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { connect } from '../../sinks/index.ts';
import {
  addShard,
  listShards,
  type MoveDeps,
  moveTenant,
  openSecretBox,
  openShardDatabases,
  pickShard,
  planMigration,
  prepareDatabase,
  readStructure,
  type ShardDatabases,
  schemaOf,
} from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { createTenants, type Fleet, fleetUrl, openFleet } from '../support/tenant-fleet.ts';
import { SAMPLES } from '../support/tenant-migrations.ts';

const secrets = openSecretBox('a key of at least thirty-two characters');
let main: TestDatabase;
let second: TestDatabase;
let ids: string[];
let shards: ShardDatabases;
let fleet: Fleet;
let urls: Record<string, string>;

beforeAll(async () => {
  main = await createTestDatabase();
  second = await createTestDatabase();
  ids = await createTenants(main.pool, 3);
  await prepareDatabase(second.pool);
  urls = { main: main.url, east: second.url };
  shards = openShardDatabases({
    pool: main.pool,
    secrets,
    main: main.url,
    open: (url) => connect(url, { max: 3, name: 'tidemark-test-shard' }),
  });
  fleet = openFleet(main.url, [], { databaseOf: shards.databaseOf, databases: shards.databases });
});
afterEach(async () => {
  fleet.pools.evict(at(0), new Error('moved'));
});
afterAll(async () => {
  await fleet.close();
  await shards.close();
  await main.drop();
  await second.drop();
});

const at = (i: number): string => ids[i] ?? '';
const urlOf = async (tenantId: string) => fleetUrl(urls[await shards.shardOf(tenantId)] ?? '', tenantId);
const move = (to: string, onStep?: MoveDeps['onStep']) =>
  moveTenant({ pool: main.pool, shards, pools: fleet.pools, migrations: fleet.deps, urlOf, onStep }, at(0), to);
/** What the tenant itself sees, over a connection of its own. */
async function asTenant(sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: await urlOf(at(0)) });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}
const fingerprint = async () =>
  createHash('sha256')
    .update(
      JSON.stringify(await asTenant('SELECT a, t FROM agents AS a JOIN tasks AS t ON t.agent_id = a.id ORDER BY t.id')),
    )
    .digest('hex');
const schemasIn = async (database: TestDatabase) =>
  (
    await database.pool.query<{ name: string }>(
      `SELECT nspname AS name FROM pg_namespace WHERE nspname ~ '^tenant_' ORDER BY 1`,
    )
  ).rows.map((row) => row.name);

test('a shard is a row, its URL encrypted; a new tenant goes where most room is', async () => {
  expect(await pickShard(main.pool)).toBe('main');
  await addShard(main.pool, secrets, { id: 'east', databaseUrl: second.url, topic: 'events-east', capacity: 10 });
  await expect(
    addShard(main.pool, secrets, { id: 'east', databaseUrl: second.url, topic: 'x', capacity: 1 }),
  ).rejects.toMatchObject({ code: 'conflict' });
  expect(await listShards(main.pool)).toMatchObject([
    { id: 'main', tenants: 3, capacity: 200, topic: 'tidemark.events' },
    { id: 'east', tenants: 0, capacity: 10, topic: 'events-east' },
  ]);
  expect(await pickShard(main.pool)).toBe('east');
  const { rows } = await main.pool.query<{ database: Buffer | null }>('SELECT database FROM shards');
  expect(rows.some((row) => row.database?.includes('postgres://') === true)).toBe(false);
});

test('P10: a tenant moves with its rows, roles and migrations; nothing is left behind, nobody else notices', async () => {
  const before = await fingerprint();
  const others = await Promise.all(ids.slice(1).map((id) => readStructure(main.pool, schemaOf(id))));
  expect(await move('east')).toEqual({ from: 'main', to: 'east', tables: 2, rows: 6 });
  expect(await shards.shardOf(at(0))).toBe('east');
  expect(await fingerprint()).toBe(before);
  expect(await schemasIn(second)).toEqual([schemaOf(at(0))]);
  expect(await schemasIn(main)).not.toContain(schemaOf(at(0)));
  expect(await asTenant(`INSERT INTO agents (name, agent_type) VALUES ('new', 'x') RETURNING name`)).toEqual([
    { name: 'new' },
  ]);
  expect(await asTenant(`DELETE FROM agents WHERE name = 'new' RETURNING name`)).toEqual([{ name: 'new' }]);
  expect(await Promise.all(ids.slice(1).map((id) => readStructure(main.pool, schemaOf(id))))).toEqual(others);
  await expect(move('east')).rejects.toMatchObject({ code: 'already_there' });
  await expect(move('nowhere')).rejects.toMatchObject({ code: 'not_found' });
  await move('main');
  expect(await fingerprint()).toBe(before);
  expect(await schemasIn(second)).toEqual([]);
});

test.each(['close', 'copy', 'switch', 'clean'])('P10: cut off at %s, the next try finishes it', async (step) => {
  const before = await fingerprint();
  const to = (await shards.shardOf(at(0))) === 'main' ? 'east' : 'main';
  // A process that dies runs no handler: what it would do about a failure is kept from it.
  const dying = new Promise<never>(() => undefined);
  let died = () => {};
  const seen = new Promise<void>((resolve) => {
    died = resolve;
  });
  const halting: MoveDeps['pool'] = Object.create(main.pool, {
    query: {
      value: async (...args: Parameters<typeof main.pool.query>) => (isDead ? dying : main.pool.query(...args)),
    },
  });
  let isDead = false;
  void moveTenant(
    {
      pool: halting,
      shards: { ...shards, byName: async (name) => (isDead ? dying : shards.byName(name)) },
      pools: fleet.pools,
      migrations: fleet.deps,
      urlOf,
      onStep: (one) => {
        if (one !== step) return;
        isDead = true;
        died();
      },
    },
    at(0),
    to,
  );
  await seen;
  expect((await main.pool.query('SELECT step FROM tenant_moves')).rows).toEqual([{ step }]);
  // A migration leaves a tenant on its way alone.
  const plan = await planMigration(
    { ...fleet.deps, migrations: () => [...fleet.deps.migrations(), SAMPLES.labels] },
    { lockMs: 2_000, statementMs: 20_000 },
  );
  expect(plan.tenants.toSorted()).toEqual(ids.slice(1).toSorted());
  await move(to);
  expect(await shards.shardOf(at(0))).toBe(to);
  expect(await fingerprint()).toBe(before);
  expect((await main.pool.query('SELECT FROM tenant_moves')).rowCount).toBe(0);
});

test('P10: a copy that fails leaves the tenant where it was, and open', async () => {
  const before = await fingerprint();
  const from = await shards.shardOf(at(0));
  const source = from === 'main' ? main : second;
  await source.pool.query(`ALTER TABLE ${schemaOf(at(0))}.tasks ADD COLUMN by_hand int`);
  await expect(move(from === 'main' ? 'east' : 'main')).rejects.toThrow(/by_hand/);
  await source.pool.query(`ALTER TABLE ${schemaOf(at(0))}.tasks DROP COLUMN by_hand`);
  expect(await shards.shardOf(at(0))).toBe(from);
  expect(await fingerprint()).toBe(before);
});
