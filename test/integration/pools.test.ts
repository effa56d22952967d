import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  fitBudget,
  openTenantPools,
  type PoolSettings,
  rank,
  type TenantConnection,
  type TenantPools,
} from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { until } from '../support/server.ts';

let database: TestDatabase;
const opened: TenantPools[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
});
afterEach(async () => {
  await Promise.all(opened.splice(0).map((pools) => pools.end(0)));
});
afterAll(() => database.drop());

const SETTINGS: PoolSettings = {
  budget: 10,
  sizes: { hot: 5, warm: 2, cold: 1 },
  waitMs: 30_000,
  queue: 1_000,
  idleMs: 60_000,
  alertAt: 0.8,
};

function open(settings: Partial<PoolSettings> = {}, more: Partial<Parameters<typeof openTenantPools>[0]> = {}) {
  const pools = openTenantPools({
    settings: { ...SETTINGS, ...settings },
    urlOf: async () => database.url,
    onAlert: () => undefined,
    now: Date.now,
    ...more,
  });
  opened.push(pools);
  return pools;
}

const ONE = { sizes: { hot: 1, warm: 1, cold: 1 } };
const pidOf = async (connection: TenantConnection) =>
  (await connection.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid;
const answerOf = async (connection: TenantConnection, sql: string) =>
  Object.values((await connection.query(sql)).rows[0] ?? {})[0];

describe('P7: nothing leaks from one borrow to the next', () => {
  test.each<[string, string[], string, unknown]>([
    ['role', ['SET ROLE pg_read_all_data'], 'SELECT current_user = session_user', true],
    ['session authorization', ['SET SESSION AUTHORIZATION pg_monitor'], 'SELECT session_user <> $$pg_monitor$$', true],
    ['search_path', ['SET search_path = pg_catalog'], 'SHOW search_path', '"$user", public'],
    ['settings', ["SET statement_timeout = '77s'", "SET timezone = 'Asia/Tokyo'"], 'SHOW timezone', 'UTC'],
    [
      'custom settings',
      ["SET tidemark.tenant = 'x'"],
      "SELECT coalesce(current_setting('tidemark.tenant', true), '')",
      '',
    ],
    [
      'open transaction',
      ['BEGIN', 'CREATE TABLE public.left_open (id int)'],
      "SELECT to_regclass('public.left_open')",
      null,
    ],
    ['aborted transaction', ['BEGIN', 'SELECT 1/0'], 'SELECT 1', 1],
    ['temporary tables', ['CREATE TEMP TABLE secret (v text)'], "SELECT to_regclass('pg_temp.secret')", null],
    [
      'advisory locks',
      ['SELECT pg_advisory_lock(42)'],
      "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
      0,
    ],
    ['listeners', ['LISTEN gossip'], 'SELECT count(*)::int FROM pg_listening_channels()', 0],
    ['prepared statements', ['PREPARE p AS SELECT 1'], 'SELECT count(*)::int FROM pg_prepared_statements', 0],
    [
      'cursors',
      ['BEGIN', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'COMMIT'],
      'SELECT count(*)::int FROM pg_cursors',
      0,
    ],
    ['sequence values', ['CREATE TEMP SEQUENCE s', "SELECT nextval('s')"], "SELECT to_regclass('pg_temp.s')", null],
  ])('%s', async (_, dirty, check, clean) => {
    const pools = open(ONE);
    const first = await pools.use('a', async (connection) => {
      const pid = await pidOf(connection);
      for (const sql of dirty) await connection.query(sql).catch(() => undefined);
      return pid;
    });
    await pools.use('a', async (connection) => {
      expect(await answerOf(connection, check)).toEqual(clean);
      expect(await pidOf(connection)).toBe(first);
    });
  });

  test('a named statement of one borrow is no name in the next', async () => {
    const pools = open(ONE);
    for (const text of ['SELECT 1 AS n', 'SELECT 2 AS n'])
      await pools.use('a', async (connection) => {
        await connection.query({ name: 'same', text });
        expect((await connection.query({ name: 'same', text })).rows).toEqual([{ n: Number(text[7]) }]);
      });
  });

  test('a borrower that keeps its connection is refused; one that left a statement running loses it', async () => {
    const pools = open(ONE);
    let kept: TenantConnection | undefined;
    let running: Promise<unknown> = Promise.resolve();
    const first = await pools.use('a', async (connection) => {
      kept = connection;
      const pid = await pidOf(connection);
      running = connection.query('SELECT pg_sleep(30)').catch(() => 'lost');
      return pid;
    });
    await expect(kept?.query('SELECT 1')).rejects.toThrow('given back');
    expect(await pools.use('a', pidOf)).not.toBe(first);
    expect(await running).toBe('lost');
    await until(async () => ((await serverCount()) === 1 ? true : undefined));
  });

  test('a connection that the server ends is replaced', async () => {
    const pools = open(ONE);
    const first = await pools.use('a', pidOf);
    await database.pool.query('SELECT pg_terminate_backend($1)', [first]);
    await until(async () => (pools.report().used === 0 ? true : undefined));
    expect(await pools.use('a', pidOf)).not.toBe(first);
  });
});

/** What the server itself counts: statements whose connection was cut end within a second. */
const serverCount = async () => {
  const { rows } = await database.pool.query<{ n: number }>(
    "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'tidemark-tenant-pool' AND datname = current_database()",
  );
  return rows[0]?.n ?? 0;
};

describe('sizes', () => {
  const tenants = fc.uniqueArray(
    fc.record({
      tenant: fc.string({ minLength: 1 }),
      demand: fc.double({ min: 0, max: 20, noNaN: true }),
      was: fc.constantFrom('hot' as const, 'warm' as const, 'cold' as const),
    }),
    { selector: (one) => one.tenant, maxLength: 60 },
  );
  const sizes = { hot: 5, warm: 2, cold: 1 };

  test('fit the budget, give everybody one, and prefer the greater demand', () => {
    const seed = Date.now() & 0x7fffffff;
    fc.assert(
      fc.property(tenants, fc.integer({ min: 60, max: 200 }), (all, budget) => {
        const classes = rank(all, sizes, budget);
        const given = all.map((one) => sizes[classes.get(one.tenant) ?? 'cold']);
        expect(given.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(budget);
        expect(classes.size).toBe(all.length);
        const settled = all.filter((one) => one.was === 'cold').toSorted((a, b) => b.demand - a.demand);
        const wanted = settled.filter((one) => one.demand >= 1).map((one) => sizes[classes.get(one.tenant) ?? 'cold']);
        expect(wanted).toEqual(wanted.toSorted((a, b) => b - a));
      }),
      { seed, verbose: true },
    );
  });

  test('follow use: a busy tenant becomes hot, a quiet one cold, and its connections are drained', async () => {
    let now = 1_000_000;
    const pools = open({}, { now: () => now });
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const work = Array.from({ length: 5 }, () => pools.use('a', () => held));
    const of = () => pools.report().tenants.find((one) => one.tenant === 'a');
    await until(async () => (of()?.lent === 2 ? true : undefined));
    expect(of()).toMatchObject({ class: 'warm', limit: 2, waiting: 3 });
    now += 30_000;
    pools.tend();
    await until(async () => (of()?.lent === 5 ? true : undefined));
    expect(of()).toMatchObject({ class: 'hot', waiting: 0, longestWaitMs: 30_000 });
    release();
    await Promise.all(work);
    expect(of()).toMatchObject({ open: 5, lent: 0 });
    now += 59_000;
    pools.tend();
    await until(async () => (pools.report().used === 2 || pools.report().used === 1 ? true : undefined));
    now += 120_000;
    pools.tend();
    expect(of()).toMatchObject({ class: 'cold', limit: 1 });
    await until(async () => (pools.report().used === 0 ? true : undefined));
  });

  test('hot tenants read from the replica where there is one, others and writes do not', async () => {
    let now = 1_000_000;
    const replica = new URL(database.url);
    replica.searchParams.set('application_name', 'replica');
    const pools = open({}, { now: () => now, replicaUrlOf: async () => replica.toString() });
    const nameOf = (connection: TenantConnection) => answerOf(connection, 'SHOW application_name');
    expect(await pools.use('a', nameOf, { readOnly: true })).toBe('tidemark-tenant-pool');
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const work = [1, 2].map(() => pools.use('a', () => held));
    await until(async () => (pools.report().tenants[0]?.lent === 2 ? true : undefined));
    now += 60_000;
    pools.tend();
    await pools.use('a', async () => undefined, { readOnly: true });
    expect(pools.report().tenants[0]).toMatchObject({ class: 'hot', replicaBorrows: 1 });
    release();
    await Promise.all(work);
  });
});

test('the budget is what the settings allow, and never what the server needs for others', async () => {
  const budgetOf = (connections: number, administration: number, own: number) =>
    fitBudget(database.pool, { connections, administration, own });
  expect(await budgetOf(30, 20, 5)).toBe(10);
  expect(await budgetOf(1, 20, 5)).toBe(1);
  const { rows } = await database.pool.query<{ most: number }>(
    "SELECT current_setting('max_connections')::int AS most",
  );
  expect(await budgetOf(100_000, 20, 50)).toBeLessThanOrEqual((rows[0]?.most ?? 0) - 55);
  expect((await budgetOf(100_000, 20, 0)) - (await budgetOf(100_000, 20, 50))).toBe(35);
});

describe('under pressure', () => {
  test('200 tenants that ask for 5 at once are all served, within the budget, and nobody starves', async () => {
    const alerts: boolean[] = [];
    const budget = 20;
    let opened = 0;
    const urlOf = async () => {
      opened++;
      return database.url;
    };
    const pools = open({ budget }, { onAlert: ({ on }) => alerts.push(on), urlOf });
    let most = 0;
    const served = new Map<string, number>();
    const all = Array.from({ length: 200 }, (_, i) => `t${i}`).flatMap((tenant) =>
      Array.from({ length: 5 }, () =>
        pools.use(tenant, async (connection) => {
          most = Math.max(most, pools.report().used);
          await connection.query('SELECT 1');
          served.set(tenant, (served.get(tenant) ?? 0) + 1);
        }),
      ),
    );
    await Promise.all(all);
    expect([...served.values()]).toEqual(Array.from({ length: 200 }, () => 5));
    expect(most).toBeLessThanOrEqual(budget);
    // Fair, and yet not one connection a request.
    expect(opened).toBeLessThan(400);
    expect(alerts[0]).toBe(true);
    await until(async () => ((await serverCount()) <= budget ? true : undefined));
  });

  test('one tenant that floods its queue does not keep another waiting', async () => {
    const pools = open({ budget: 2 });
    let done = 0;
    const flood = Array.from({ length: 100 }, () =>
      pools.use('greedy', async (connection) => {
        await connection.query('SELECT pg_sleep(0.02)');
        done++;
      }),
    );
    await pools.use('modest', (connection) => connection.query('SELECT 1'));
    expect(done).toBeLessThan(50);
    await Promise.all(flood);
  });

  test('who waits too long is told, and so is who queues behind too many', async () => {
    const pools = open({ ...ONE, waitMs: 200, queue: 2 });
    // Opening one may itself take longer on a busy machine.
    await until(() => pools.use('a', pidOf).catch(() => undefined));
    const before = pools.report().tenants[0]?.timeouts ?? 0;
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const first = pools.use('a', () => held);
    await until(async () => (pools.report().tenants[0]?.lent === 1 ? true : undefined));
    const waiting = [1, 2].map(() => pools.use('a', async () => undefined));
    await expect(pools.use('a', async () => undefined)).rejects.toMatchObject({ code: 'pool_queue_full' });
    for (const one of waiting) await expect(one).rejects.toMatchObject({ code: 'pool_timeout' });
    expect(pools.report().tenants[0]).toMatchObject({ timeouts: before + 2, waiting: 0 });
    release();
    await first;
  });

  test('P14: ending never hangs: waiters are refused, a borrower that does not end is cut off', async () => {
    const pools = open(ONE);
    const stuck = pools.use('a', (connection) => connection.query('SELECT pg_sleep(60)')).catch(() => 'cut');
    await until(async () => (pools.report().tenants[0]?.lent === 1 ? true : undefined));
    const waiting = pools.use('a', async () => undefined);
    const refused = expect(waiting).rejects.toMatchObject({ code: 'shutting_down' });
    const began = performance.now();
    await pools.end(100);
    expect(performance.now() - began).toBeLessThan(3_000);
    await refused;
    expect(await stuck).toBe('cut');
    await expect(pools.use('a', async () => undefined)).rejects.toMatchObject({ code: 'shutting_down' });
  });

  test('a tenant whose database refuses it gets that error, and the slot is free again', async () => {
    const bad = new URL(database.url);
    bad.password = 'wrong';
    const pools = open({}, { urlOf: async (tenant) => (tenant === 'bad' ? bad.toString() : database.url) });
    await expect(pools.use('bad', async () => undefined)).rejects.toMatchObject({ code: '28P01' });
    expect(pools.report().used).toBe(0);
    await pools.use('good', (connection) => connection.query('SELECT 1'));
  });
});
