import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { decimalFrom } from '../../metering/index.ts';
import {
  BinaryCopy,
  copyInto,
  generateKey,
  migrate,
  openKeyStore,
  openTenantDirectory,
  quoteIdentifier,
  readMigrations,
} from '../../sinks/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { until } from '../support/server.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

describe('migrations', () => {
  test('are applied once, by however many processes', async () => {
    await database.pool.query('DROP SCHEMA tidemark CASCADE');
    const applied = await Promise.all([1, 2, 3].map(() => migrate(database.pool)));
    expect(applied.map((versions) => versions.length).sort((a, b) => a - b)).toEqual([0, 0, readMigrations().length]);
  });
  test('that were changed after they were applied are refused', async () => {
    const changed = readMigrations().map((one) => (one.version === 2 ? { ...one, sha256: 'other' } : one));
    await expect(migrate(database.pool, changed)).rejects.toMatchObject({
      code: 'migration_changed',
      message: expect.stringContaining('api_keys'),
    });
  });
  test('that this build lacks are refused', async () => {
    await expect(migrate(database.pool, readMigrations().slice(0, -1))).rejects.toMatchObject({
      code: 'migration_missing',
    });
  });
  test('that fail leave nothing half-done', async () => {
    const bad = { version: 99, name: 'bad', sql: 'CREATE TABLE half (x int); SELECT 1/0', sha256: 'x' };
    await expect(migrate(database.pool, [...readMigrations(), bad])).rejects.toThrow(/division by zero/);
    const { rows } = await database.pool.query("SELECT to_regclass('half') AS half");
    expect(rows[0]).toEqual({ half: null });
  });
});

test('P12: numeric, bigint and arrays arrive through binary COPY as they were', async () => {
  const { pool } = database;
  await pool.query('CREATE TABLE copied (i int, n numeric, b bigint, t timestamptz, a text[], k int[], c bigint[])');
  const literal = fc.tuple(fc.bigInt({ min: -(10n ** 24n), max: 10n ** 24n }), fc.nat(18)).map(([unscaled, scale]) => {
    const digits = (unscaled < 0n ? -unscaled : unscaled).toString().padStart(scale + 1, '0');
    return `${unscaled < 0n ? '-' : ''}${scale === 0 ? digits : `${digits.slice(0, -scale)}.${digits.slice(-scale)}`}`;
  });
  const rows = fc.sample(
    fc.record({
      n: literal,
      b: fc.maxSafeInteger(),
      t: fc.integer({ min: 0, max: 4_102_444_800_000 }),
      a: fc.array(fc.string({ unit: 'grapheme' }).filter((s) => !s.includes('\0') && s.isWellFormed())),
      k: fc.array(fc.integer()),
    }),
    { numRuns: 300, seed: 1 },
  );
  const copy = new BinaryCopy(64);
  rows.forEach((row, i) => {
    copy.row(7);
    copy.int4(i);
    copy.numeric(decimalFrom(row.n));
    copy.int8(row.b);
    copy.timestamptz(row.t);
    copy.textArray(row.a);
    copy.int4Array(row.k, row.k.length);
    copy.int8Array(row.k, row.k.length);
  });
  const client = await pool.connect();
  await copyInto(client, 'COPY copied FROM STDIN (FORMAT binary)', copy.finish());
  client.release();
  const { rows: back } = await pool.query('SELECT n::text, b::text, t, a, k, c::int[] FROM copied ORDER BY i');
  back.forEach((row, i) => {
    const sent = rows[i];
    const negativeZero = /^-[0.]+$/.test(sent?.n ?? '') ? (sent?.n ?? '').slice(1) : sent?.n;
    expect(row).toEqual({
      n: negativeZero,
      b: String(sent?.b),
      t: new Date(sent?.t ?? 0),
      a: sent?.a,
      k: sent?.k,
      c: sent?.k,
    });
  });
});

describe('keys and tenants', () => {
  const adminKey = 'a'.repeat(32);
  test('P7: a key is its tenant and scopes; unknown, mistyped and revoked keys are nobody', async () => {
    const { pool } = database;
    let now = 0;
    const store = openKeyStore(pool, { adminKey, now: () => now });
    const tenants = await openTenantDirectory(pool).discover(['acme']);
    const tenant = tenants.get('acme');
    const key = generateKey();
    await pool.query("INSERT INTO api_keys (id, tenant_id, scopes, secret_sha256) VALUES ($1, $2, '{read}', $3)", [
      key.id,
      tenant?.id,
      key.sha256,
    ]);
    expect(await store.authenticate(key.secret)).toMatchObject({
      keyId: key.id,
      tenant: { customerId: 'acme' },
      scopes: new Set(['read']),
    });
    expect(
      await store.authenticate(`${key.secret.slice(0, -1)}${key.secret.endsWith('A') ? 'B' : 'A'}`),
    ).toBeUndefined();
    expect(await store.authenticate(generateKey().secret)).toBeUndefined();
    expect((await store.authenticate(adminKey))?.scopes.size).toBe(3);
    await pool.query('UPDATE api_keys SET revoked_at = now()');
    now += 10_001;
    expect(await store.authenticate(key.secret)).toBeUndefined();
  });
  test('discovering is idempotent, and finds by name, slug and id', async () => {
    const { pool } = database;
    const names = ["o'brien", '"; DROP TABLE tenants; --', 'ünïcode'];
    const found = await Promise.all([1, 2, 3].map(() => openTenantDirectory(pool).discover(names)));
    expect(new Set(found.map((one) => one.get("o'brien")?.id)).size).toBe(1);
    const id = found[0]?.get('ünïcode')?.id ?? '';
    expect((await openTenantDirectory(pool).find(id))?.customerId).toBe('ünïcode');
    expect(await openTenantDirectory(pool).find('nobody')).toBeUndefined();
  });
  test('tenants whose time is over are asked for together; until the answer is here the old one is good', async () => {
    const { pool } = database;
    let now = 0;
    const directory = openTenantDirectory(pool, { ttlMs: 1_000, now: () => now });
    const names = Array.from({ length: 50 }, (_, i) => `stale-${i}`);
    await directory.discover(names);
    await pool.query("UPDATE tenants SET tier = 'enterprise' WHERE customer_id = ANY ($1)", [names]);
    const tiers = () => new Set(names.map((name) => directory.peek(name)?.tier));
    const before = tiers();
    expect([before.size, before.has('enterprise')]).toEqual([1, false]);
    now += 1_001;
    const asked = vi.spyOn(pool, 'query');
    expect(tiers()).toEqual(before);
    await until(async () => tiers().has('enterprise') || undefined);
    expect(tiers()).toEqual(new Set(['enterprise']));
    expect(asked).toHaveBeenCalledTimes(1);
    asked.mockRestore();
  });
  test('identifiers are quoted', () => {
    expect(quoteIdentifier('a"b')).toBe('"a""b"');
    expect(() => quoteIdentifier('a\0')).toThrow(RangeError);
  });
});
