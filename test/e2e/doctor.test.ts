import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tidemark-doctor-'));
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(async () => {
  await database.drop();
  rmSync(folder, { recursive: true, force: true });
});

function doctor(env: Record<string, string>, ...args: string[]) {
  const { PATH = '' } = process.env;
  const run = spawnSync(process.execPath, [MAIN, 'doctor', ...args], {
    env: { PATH, TIDEMARK_DATA: join(folder, 'data'), ...env },
    encoding: 'utf8',
  });
  return { code: run.status, output: run.stdout + run.stderr };
}

test('before the first start doctor finds nothing wrong, and makes nothing', () => {
  const { code, output } = doctor({});
  expect(output).toContain('All is well.');
  expect(code).toBe(0);
  expect(existsSync(join(folder, 'data'))).toBe(false);
});

test('doctor says the version, migrations and storage engine of the database, as a table and as JSON', () => {
  const { code, output } = doctor({ DATABASE_URL: database.url }, '--json');
  const { ok, checks } = JSON.parse(output) as { ok: boolean; checks: { name: string; ok: boolean; detail: string }[] };
  const details = new Map(checks.map((one) => [one.name, one.detail]));
  expect([ok, code]).toEqual([true, 0]);
  expect(details.get('database version')).toMatch(/^PostgreSQL 1[5-9]/);
  expect(details.get('migrations')).toMatch(/^\d+ applied$/);
  expect(details.get('storage engine')).toMatch(/^(native partitions|TimescaleDB 2.*hypertables)/);
  expect(doctor({ DATABASE_URL: database.url }).output).toMatch(/✓ database durability +fsync on/);
});

test('what is wrong is named with what to do, exits 1, and never shows a password', async () => {
  const setting = doctor({ PORT: 'x' });
  expect([setting.code, setting.output]).toEqual([1, expect.stringContaining('✗ settings  PORT must be')]);
  const url = new URL(database.url);
  url.password = 'hunter2-hunter2';
  url.port = '1';
  const unreachable = doctor({ DATABASE_URL: url.toString(), KAFKA_BROKERS: '127.0.0.1:1' });
  expect(unreachable.code).toBe(1);
  expect(unreachable.output).toContain('✗ database');
  expect(unreachable.output).toContain('✗ kafka');
  expect(unreachable.output).not.toContain('hunter2');
  await database.pool.query("UPDATE schema_migrations SET sha256 = 'x' WHERE version = 5");
  await database.pool.query('DELETE FROM schema_migrations WHERE version = 80');
  const changed = doctor({ DATABASE_URL: database.url });
  expect(changed.code).toBe(1);
  expect(changed.output).toMatch(/✗ migrations +missing 80.*changed after they were applied: 5/);
}, 120_000);
