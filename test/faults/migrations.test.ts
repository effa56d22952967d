import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  driveMigration,
  getRun,
  listTargets,
  oldSchemaOf,
  readStructure,
  schemaOf,
  startMigration,
  startRollback,
} from '../../tenants/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { until } from '../support/server.ts';
import { createTenants, type Fleet, openFleet, RUN_OPTIONS } from '../support/tenant-fleet.ts';
import { SAMPLES } from '../support/tenant-migrations.ts';

const CHILD = fileURLToPath(new URL('../support/migration-child.ts', import.meta.url));
const never = new AbortController().signal;
let database: TestDatabase;
let ids: string[];
let fleet: Fleet;
beforeAll(async () => {
  database = await createTestDatabase();
  ids = await createTenants(database.pool, 3);
});
afterEach(async () => {
  await fleet.close();
  await database.pool.query('DELETE FROM migration_runs');
});
afterAll(() => database.drop());

type Sample = keyof typeof SAMPLES;

/** @returns the signal that ended it */
async function child(...args: string[]): Promise<NodeJS.Signals | null> {
  const started = spawn(process.execPath, [CHILD, database.url, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  return new Promise((resolve) => {
    started.once('close', (_, signal) => resolve(signal));
  });
}

const structures = () => Promise.all(ids.map((id) => readStructure(database.pool, schemaOf(id))));
const rows = async () =>
  (
    await Promise.all(
      ids.map((id) => database.pool.query(`SELECT id, title, created_at FROM ${schemaOf(id)}.tasks ORDER BY id`)),
    )
  ).map((answer) => answer.rows);
const besides = async () =>
  (
    await database.pool.query<{ name: string }>(
      `SELECT nspname AS name FROM pg_namespace WHERE nspname ~ '^tenant_.*_(next|old)$' ORDER BY 1`,
    )
  ).rows.map((row) => row.name);

async function begin(sample: Sample): Promise<string> {
  fleet = openFleet(database.url, [SAMPLES[sample]]);
  return (await startMigration(fleet.deps, { options: { ...RUN_OPTIONS, parallel: 1 } })).id;
}

/** Kills one process after another, each a step further on, then finishes here. */
async function survive(runId: string, sample: Sample, steps: readonly string[]): Promise<string | null> {
  for (const step of steps) {
    const [at = '', count = '1'] = step.split(':');
    expect(await child(runId, sample, at, count), `killed at ${step}`).toBe('SIGKILL');
  }
  // The lease of the last one ends within a second.
  return until(() => driveMigration(fleet.deps, runId, never).catch(() => undefined));
}

describe('P10: kill -9 at every step', { timeout: 180_000 }, () => {
  test('in place: forward, and back', async () => {
    const before = await structures();
    const kept = await rows();
    const id = await begin('labels');
    // Of the first tenant, then of later ones, so that finished, begun and untouched tenants are met.
    const steps = ['snapshot', 'apply', 'committing', 'applied', 'health:2'];
    expect(await survive(id, 'labels', steps)).toBe('succeeded');
    const after = await structures();
    for (const one of after) expect(one).toContain("column agents.label text not null default 'none'::text");
    expect((await listTargets(database.pool, id)).map((one) => one.status)).toEqual(ids.map(() => 'succeeded'));
    const { id: back } = await startRollback(fleet.deps, id);
    expect(await survive(back, 'labels', ['undo', 'committing', 'undone'])).toBe('succeeded');
    expect(await structures()).toEqual(before);
    expect(await rows()).toEqual(kept);
  });

  test('one that breaks health is taken back all the same', async () => {
    const before = await structures();
    const id = await begin('unreadable');
    expect(await survive(id, 'unreadable', ['undo', 'committing', 'undone'])).toBe('failed');
    expect(await getRun(database.pool, id)).toMatchObject({ status: 'failed' });
    expect(await structures()).toEqual(before);
  });

  test('blue/green: forward, and back', async () => {
    const before = await structures();
    const kept = await rows();
    const id = await begin('dropTokens');
    const steps = ['build', 'committing', 'built', 'switch', 'committing:2', 'switched'];
    expect(await survive(id, 'dropTokens', steps)).toBe('succeeded');
    expect(await besides()).toEqual(ids.map(oldSchemaOf).sort());
    expect(await rows()).toEqual(kept);
    for (const one of await structures()) expect(one.join()).not.toContain('tasks.tokens');
    const { id: back } = await startRollback(fleet.deps, id);
    expect(await survive(back, 'dropTokens', ['committing', 'undone'])).toBe('succeeded');
    expect(await structures()).toEqual(before);
    expect(await rows()).toEqual(kept);
    expect(await besides()).toEqual([]);
  });

  test('blue/green that breaks health is switched back all the same', async () => {
    const before = await structures();
    const kept = await rows();
    const id = await begin('dropAndBreak');
    expect(await survive(id, 'dropAndBreak', ['health', 'undo', 'committing', 'undone'])).toBe('failed');
    expect(await structures()).toEqual(before);
    expect(await rows()).toEqual(kept);
    expect(await besides()).toEqual([]);
  });

  test('two processes never carry out one run at once', async () => {
    const id = await begin('notes');
    const first = driveMigration(fleet.deps, id, never);
    await expect(driveMigration(fleet.deps, id, never)).rejects.toMatchObject({ code: 'conflict' });
    expect(await first).toBe('succeeded');
    const { id: back } = await startRollback(fleet.deps, id);
    expect(await driveMigration(fleet.deps, back, never)).toBe('succeeded');
  });
});
