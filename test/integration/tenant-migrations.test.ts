import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  driveMigration,
  getRun,
  listTargets,
  type MigrationDeps,
  oldSchemaOf,
  pauseRun,
  planMigration,
  type RunOptions,
  readStructure,
  readTenantMigrations,
  resumeRun,
  retryTargets,
  type Strategy,
  schemaOf,
  skipTarget,
  startMigration,
  startRollback,
  type TenantMigration,
  wavesOf,
} from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { createTenants, type Fleet, openFleet, RUN_OPTIONS } from '../support/tenant-fleet.ts';
import { SAMPLES } from '../support/tenant-migrations.ts';

const never = new AbortController().signal;
let database: TestDatabase;
let ids: string[];
const fleets: Fleet[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
  ids = await createTenants(database.pool, 12);
});
/** Every test leaves every tenant as it found it: rolled back by itself, or here. */
afterEach(async () => {
  await Promise.all(fleets.splice(0).map((fleet) => fleet.close()));
  await database.pool.query('DELETE FROM migration_runs');
});
afterAll(() => database.drop());

function open(extra: readonly TenantMigration[], more: Partial<MigrationDeps> = {}): MigrationDeps {
  const fleet = openFleet(database.url, extra, more);
  fleets.push(fleet);
  return fleet.deps;
}

const at = (i: number): string => ids[i] ?? '';
async function run(deps: MigrationDeps, options: Partial<RunOptions> = {}, strategy?: Strategy) {
  const made = await startMigration(deps, { options: { ...RUN_OPTIONS, ...options }, strategy });
  await driveMigration(deps, made.id, never);
  return finished(deps, made.id);
}
async function finished(deps: MigrationDeps, id: string) {
  const targets = await listTargets(deps.pool, id);
  const of = (tenant: string) => targets.find((one) => one.tenantId === tenant);
  return { id, run: await getRun(deps.pool, id), targets, of };
}
async function takeBack(deps: MigrationDeps) {
  const made = await startRollback(deps);
  await driveMigration(deps, made.id, never);
  return finished(deps, made.id);
}
const structures = () => Promise.all(ids.map((id) => readStructure(database.pool, schemaOf(id))));
const rowsOf = async (tenant: string, sql: string) =>
  (await database.pool.query(sql.replaceAll('$schema', schemaOf(tenant)))).rows;

test('waves: a few, a quarter, half, all', () => {
  const sizes = (total: number) =>
    [...Map.groupBy(wavesOf(total, 5), (wave) => wave).values()].map((one) => one.length);
  expect(sizes(100)).toEqual([5, 20, 25, 50]);
  expect(sizes(12)).toEqual([5, 1, 6]);
  expect(sizes(3)).toEqual([3]);
  expect(sizes(0)).toEqual([]);
});

describe('plan', () => {
  const timeouts = { lockMs: 1_000, statementMs: 20_000 };
  test('shows the SQL and the difference it makes, and leaves nothing behind', async () => {
    const before = await database.pool.query('SELECT count(*)::int AS n FROM pg_namespace');
    const plan = await planMigration(open([SAMPLES.labels, SAMPLES.notes]), timeouts);
    expect(plan.strategy).toBe('in_place');
    expect(plan.tenants.toSorted()).toEqual(ids.toSorted());
    expect(plan.versions.map((one) => [one.version, one.undo])).toEqual([
      [1001, 'exact'],
      [1002, 'exact'],
    ]);
    expect(plan.versions[0]?.up).toBe(SAMPLES.labels.up);
    expect(plan.diff.removed).toEqual([]);
    expect(plan.diff.added).toContain("column agents.label text not null default 'none'::text");
    expect(plan.diff.added.some((line) => line.startsWith('table notes'))).toBe(true);
    expect((await database.pool.query('SELECT count(*)::int AS n FROM pg_namespace')).rows).toEqual(before.rows);
  });
  test('is blue/green where something is lost, or the way back leaves a difference', async () => {
    const lossy = await planMigration(open([SAMPLES.dropTokens]), timeouts);
    expect(lossy).toMatchObject({ strategy: 'blue_green', losses: [expect.stringContaining('column tasks.tokens')] });
    const forgetful = await planMigration(open([SAMPLES.forgetful]), timeouts);
    expect(forgetful.strategy).toBe('blue_green');
    expect(forgetful.reasons).toEqual(['undoing 1009_forgetful leaves a difference']);
  });
  test('refuses what PostgreSQL refuses, and a file that would end its own transaction', async () => {
    await expect(planMigration(open([SAMPLES.commits]), timeouts)).rejects.toMatchObject({ code: 'invalid_migration' });
    const typo = { ...SAMPLES.notes, up: 'CREATE TABEL x ()' };
    await expect(planMigration(open([typo]), timeouts)).rejects.toThrow(/syntax error.*42601/);
  });
  test('refuses changed files, and versions before applied ones', async () => {
    const deps = open([]);
    const [first] = readTenantMigrations();
    if (first === undefined) throw new Error('there is a first migration');
    const changed = { ...deps, migrations: () => [{ ...first, sha256: 'other' }] };
    await expect(planMigration(changed, timeouts)).rejects.toMatchObject({ code: 'migration_changed' });
    const early = { ...deps, migrations: () => [{ ...SAMPLES.notes, version: 0 }, ...readTenantMigrations()] };
    await expect(planMigration(early, timeouts)).rejects.toMatchObject({ code: 'migration_order' });
  });
  test("reads Prisma's folders beside numbered files", () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-prisma-'));
    mkdirSync(join(folder, '20260101120000_init'));
    writeFileSync(join(folder, 'migration_lock.toml'), 'provider = "postgresql"');
    writeFileSync(
      join(folder, '20260101120000_init/migration.sql'),
      '-- CreateSchema\nCREATE SCHEMA IF NOT EXISTS "public";\n\nCREATE TABLE "User" ("id" SERIAL PRIMARY KEY);',
    );
    const read = readTenantMigrations(folder);
    expect(read.map((one) => one.version)).toEqual([1, 20260101120000]);
    expect(read[1]?.up).not.toContain('SCHEMA IF');
    expect(read[1]?.down).toBeNull();
    writeFileSync(join(folder, '20260101120000_init/down.sql'), 'DROP TABLE "User";');
    expect(readTenantMigrations(folder)[1]?.down).toBe('DROP TABLE "User";');
    mkdirSync(join(folder, 'whatever'));
    expect(() => readTenantMigrations(folder)).toThrow(expect.objectContaining({ code: 'invalid_migration' }));
    rmSync(folder, { recursive: true });
  });
});

describe('P10: in place', () => {
  test('every tenant gets it in waves; a rollback puts every structure and row back', async () => {
    const before = await structures();
    const deps = open([SAMPLES.labels, SAMPLES.notes]);
    const { run: made, targets } = await run(deps);
    expect(made).toMatchObject({ status: 'succeeded', error: null });
    expect(targets.map((one) => one.status)).toEqual(ids.map(() => 'succeeded'));
    expect([...new Set(targets.map((one) => one.wave))]).toEqual([1, 2, 3]);
    expect(await rowsOf(at(3), 'SELECT label FROM $schema.agents')).toHaveLength(3);
    await expect(startMigration(deps, { options: RUN_OPTIONS })).rejects.toMatchObject({ code: 'nothing_to_migrate' });
    const back = await takeBack(deps);
    expect(back.run).toMatchObject({ error: null, status: 'succeeded', kind: 'rollback', undoes: made.id });
    expect(await structures()).toEqual(before);
    expect(await rowsOf(at(3), 'SELECT name FROM $schema.agents')).toHaveLength(3);
  });

  test('one that fails on the 7th tenant leaves that tenant as it was and aborts the rest', async () => {
    await rowsOf(at(6), `INSERT INTO $schema.agents (name, agent_type) VALUES ('bad', 'chat')`);
    const before = await structures();
    const deps = open([SAMPLES.labels, SAMPLES.noBadNames]);
    const { id, run: made, targets, of } = await run(deps, { parallel: 1 });
    expect(made).toMatchObject({ status: 'failed', error: expect.stringContaining(at(6)) });
    expect(of(at(6))).toMatchObject({ status: 'failed', error: expect.stringContaining('good_name') });
    expect(Map.groupBy(targets, (one) => one.status).get('succeeded')).toHaveLength(6);
    expect(Map.groupBy(targets, (one) => one.status).get('pending')).toHaveLength(5);
    const after = await structures();
    expect(after[6]).toEqual(before[6]);
    expect(after[7]).toEqual(before[7]);
    expect(after[0]).not.toEqual(before[0]);
    // Skipped, the rest goes on; mended, the tenant is retried.
    await skipTarget(deps.pool, id, at(6));
    await resumeRun(deps.pool, id);
    expect(await driveMigration(deps, id, never)).toBe('succeeded');
    expect((await structures())[6]).toEqual(before[6]);
    await rowsOf(at(6), `DELETE FROM $schema.agents WHERE name = 'bad'`);
    await retryTargets(deps.pool, id, at(6));
    await database.pool.query(`UPDATE migration_runs SET status = 'paused' WHERE id = $1`, [id]);
    await resumeRun(deps.pool, id);
    expect(await driveMigration(deps, id, never)).toBe('succeeded');
    expect((await structures())[6]).toEqual((await structures())[0]);
    await takeBack(deps);
    expect(await structures()).toEqual(before);
  });

  test('one that never ends is cut off', async () => {
    const before = await structures();
    const deps = open([]);
    // The test schema has no tenant's rows: only there it never ends.
    const stuck = {
      ...SAMPLES.endless,
      up: `DO $$ BEGIN WHILE EXISTS (SELECT FROM agents) LOOP PERFORM 1; END LOOP; END $$`,
    };
    const { run: made } = await run(
      { ...deps, migrations: () => [...readTenantMigrations(), stuck] },
      { statementMs: 500 },
    );
    expect(made).toMatchObject({ status: 'failed', error: expect.stringContaining('57014') });
    expect(await structures()).toEqual(before);
  });

  test('one that passes and breaks health is taken back', async () => {
    const before = await structures();
    const { run: made, targets } = await run(open([SAMPLES.labels, SAMPLES.unreadable]), { parallel: 1 });
    expect(made).toMatchObject({ status: 'failed', error: expect.stringContaining('division by zero') });
    expect(targets[0]).toMatchObject({ status: 'failed', step: 'undo' });
    expect(await structures()).toEqual(before);
  });

  test('going on after failures ends with the third in a row', async () => {
    const before = await structures();
    const { run: made, targets } = await run(open([SAMPLES.unreadable]), { parallel: 1, onFailure: 'continue' });
    expect(made).toMatchObject({ status: 'failed', failures: 3, error: expect.stringMatching(/^3 failures in a row/) });
    expect(targets.filter((one) => one.status === 'failed')).toHaveLength(3);
    expect(await structures()).toEqual(before);
  });

  test('a tenant that has more than its migrations made gets the same change', async () => {
    await database.pool.query(`CREATE TABLE ${schemaOf(at(1))}.agents_label_seen (x int)`);
    const deps = open([SAMPLES.labels]);
    const { run: made } = await run(deps);
    expect(made).toMatchObject({ status: 'succeeded', error: null });
    await takeBack(deps);
    await database.pool.query(`DROP TABLE ${schemaOf(at(1))}.agents_label_seen`);
  });

  test('a lock that is not free is waited for, a while, and tried again', async () => {
    const holder = await database.pool.connect();
    await holder.query(`BEGIN; LOCK TABLE ${schemaOf(at(0))}.agents IN ACCESS SHARE MODE`);
    let tries = 0;
    const deps = open([SAMPLES.labels], {
      delay: async () => {
        tries++;
        if (tries === 2) await holder.query('COMMIT');
      },
    });
    const { run: made, of } = await run(deps, { lockMs: 50 });
    holder.release();
    expect(tries).toBe(2);
    expect(made).toMatchObject({ status: 'succeeded', error: null });
    expect(of(at(0))?.status).toBe('succeeded');
    await takeBack(deps);
  });

  test('paused, no further tenant is begun; resumed, it goes on; one run at a time', async () => {
    const pool = database.pool;
    let seen = 0;
    const deps = open([SAMPLES.labels], {
      onStep: (_, step) => {
        if (step === 'applied' && ++seen === 2) void pauseRun(pool, id);
      },
    });
    const { id } = await startMigration(deps, { options: { ...RUN_OPTIONS, parallel: 1 } });
    await expect(startMigration(deps, { options: RUN_OPTIONS })).rejects.toMatchObject({ code: 'conflict' });
    expect(await driveMigration(deps, id, never)).toBe('paused');
    const { targets } = await finished(deps, id);
    const begun = targets.filter((one) => one.status !== 'pending').length;
    expect(begun).toBeGreaterThanOrEqual(2);
    expect(begun).toBeLessThanOrEqual(4);
    await resumeRun(deps.pool, id);
    expect(await driveMigration(deps, id, never)).toBe('succeeded');
    await takeBack(deps);
  });

  test('who has lost the lease commits nothing', async () => {
    const before = await structures();
    const deps = open([SAMPLES.labels], {
      leaseSeconds: 3600,
      onStep: (_, step) => {
        if (step === 'apply')
          stolen ??= database.pool.query(`UPDATE migration_runs SET lease_owner = gen_random_uuid()`);
      },
      migrations: () => [
        ...readTenantMigrations(),
        { ...SAMPLES.labels, up: `${SAMPLES.labels.up} SELECT pg_sleep(0.5);` },
      ],
    });
    let stolen: Promise<unknown> | undefined;
    const { id } = await startMigration(deps, { options: { ...RUN_OPTIONS, parallel: 1 } });
    await expect(driveMigration(deps, id, never)).rejects.toThrow('lease');
    await stolen;
    expect(await structures()).toEqual(before);
  });
});

describe('P10: blue/green', () => {
  test('builds beside, copies, switches by rename; going back is a rename', async () => {
    const before = await structures();
    const rows = await rowsOf(at(2), 'SELECT * FROM $schema.tasks ORDER BY id');
    const deps = open([SAMPLES.dropTokens]);
    const { run: made } = await run(deps);
    expect(made).toMatchObject({ status: 'succeeded', strategy: 'blue_green' });
    expect(await rowsOf(at(2), 'SELECT title, cost::text FROM $schema.tasks ORDER BY id')).toEqual(
      rows.map((row) => ({ title: row.title, cost: '1.5' })),
    );
    expect(await rowsOf(at(2), `SELECT count(*)::int AS n FROM ${oldSchemaOf(at(2))}.tasks`)).toEqual([{ n: 3 }]);
    const back = await takeBack(deps);
    expect(back.run.status).toBe('succeeded');
    expect(await structures()).toEqual(before);
    expect(await rowsOf(at(2), 'SELECT * FROM $schema.tasks ORDER BY id')).toEqual(rows);
    const { rows: left } = await database.pool.query(
      `SELECT nspname FROM pg_namespace WHERE nspname ~ '^tenant_.*_(next|old)$'`,
    );
    expect(left).toEqual([]);
  });

  test('that breaks health is switched back at once', async () => {
    const before = await structures();
    const { run: made } = await run(open([SAMPLES.dropAndBreak]), { parallel: 2 });
    expect(made).toMatchObject({ status: 'failed', strategy: 'blue_green' });
    expect(await structures()).toEqual(before);
    expect(await rowsOf(at(0), 'SELECT tokens FROM $schema.tasks')).toHaveLength(3);
  });
});
