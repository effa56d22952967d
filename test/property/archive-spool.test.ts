import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { exactSum, readSum } from '../../tiering/archive/exact-sum.ts';
import { readSpool, spool, withSpool } from '../../tiering/archive/part-file.ts';
import { copyOf, planDay } from '../../tiering/archive/plan.ts';
import { type Duck, literal, openDuck } from '../../tiering/duckdb.ts';
import { scaled, unscaled } from '../../tiering/manifest.ts';
import { takeIn } from '../support/archive.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { event } from '../support/processors.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
process.stderr.write(`archive spool: SEED=${seed}\n`);

const START = Date.UTC(2026, 0, 1);
const folder = mkdtempSync(join(tmpdir(), 'tidemark-spool-'));
const path = join(folder, 'spool');
const { signal } = new AbortController();
let database: TestDatabase;
let duck: Duck;
beforeAll(async () => {
  database = await createTestDatabase();
  duck = await openDuck({ scratch: folder, memoryBytes: 128e6, threads: 1, isWriter: true });
}, 120_000);
afterAll(async () => {
  await duck.close();
  await database.drop();
  rmSync(folder, { recursive: true, force: true });
});

/** What CSV, COPY and JSON each have a meaning for. */
const text = fc
  .array(
    fc.oneof(
      fc.constantFrom('\\', '\\N', '\\n', '\n', '\t', '\r', '\b', '\f', '\v', '"', "'", ',', '\u0001', '{', '.'),
      fc.string({ unit: 'grapheme' }),
    ),
    { minLength: 1, maxLength: 6 },
  )
  .map((parts) => parts.join(''))
  .filter((whole) => whole.isWellFormed() && !whole.includes('\0'));

test('P9: whatever stands in a text comes through the spool as it was, and a row that does not is found out', async () => {
  const sent = fc
    .sample(
      fc.record({
        type: text,
        user: text,
        request: fc.option(text),
        endpoint: text,
        message: fc.option(text),
        rest: text,
      }),
      { seed, numRuns: 300 },
    )
    .map((texts, i) => ({ ...texts, key: `${i}${texts.type}` }));
  await takeIn(
    database.pool,
    sent.map(({ key, type, user, request, endpoint, message, rest }, i) =>
      event(key, {
        type,
        timestamp: START + i,
        user_id: user,
        request_id: request,
        attributes: new Map(
          Object.entries({ endpoint, ...(message === null ? {} : { message }) }).map(([name, value]) => [
            name,
            { kind: 'string' as const, value },
          ]),
        ),
        data: JSON.stringify({ rest }),
      }),
    ),
  );
  const plan = await planDay(database.pool, '2026-01-01', [], 1_000);
  const [slice] = plan.slices;
  if (slice === undefined) throw new Error('nothing planned');
  const spooled = await spool(database.pool, copyOf(plan, slice), path, signal);
  expect(spooled.rows).toBe(sent.length);
  const totals = await withSpool(duck, spooled, async (found) => {
    const rows = await duck.rows('SELECT * FROM part ORDER BY "timestamp"');
    rows.forEach((row, i) => {
      const { key, type, user, request, endpoint, message, rest } = sent[i] ?? sent[0] ?? fail();
      expect(row).toMatchObject({ idempotency_key: key, type, user_id: user, request_id: request });
      expect(JSON.parse(String(row.data))).toEqual({ endpoint, ...(message === null ? {} : { message }), rest });
    });
    return found;
  });
  expect(totals.rows).toBe(sent.length);
  expect((await readSpool(duck, spooled)).hash).toBe(totals.hash);

  const whole = readFileSync(path);
  const letter = whole.indexOf('rest');
  const flipped = Buffer.from(whole);
  flipped.write('R', letter);
  const otherDigit = Buffer.from(whole);
  otherDigit.write('9', whole.indexOf('2026-01-01') + 3);
  const isDamaged = async (damaged: Buffer, crc: number) => {
    writeFileSync(path, damaged);
    await expect(readSpool(duck, { ...spooled, crc })).rejects.toMatchObject({ code: 'archive_damaged' });
    await expect(withSpool(duck, { ...spooled, crc }, async () => undefined)).rejects.toMatchObject({
      code: 'archive_damaged',
    });
  };
  for (const damaged of [flipped, otherDigit]) await isDamaged(damaged, spooled.crc);
  // Also where the bytes are those that came, but DuckDB were to read them as another row.
  for (const damaged of [
    Buffer.concat([whole.subarray(0, whole.lastIndexOf('\t')), Buffer.from('\t7\n')]),
    Buffer.concat([whole.subarray(0, letter), whole.subarray(letter + 1)]),
  ])
    await isDamaged(damaged, crc32(damaged));
}, 120_000);

function fail(): never {
  throw new Error('more rows than were sent');
}

test('P12: sums of decimals of any length are exact', async () => {
  const digits = (least: number, most: number) =>
    fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: least, maxLength: most });
  const decimal = fc
    .tuple(fc.boolean(), digits(1, 20), fc.option(digits(1, 18)))
    .map(
      ([isNegative, whole, behind]) => `${isNegative ? '-' : ''}${BigInt(whole)}${behind === null ? '' : `.${behind}`}`,
    );
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(decimal), { minLength: 1, maxLength: 30 }), async (values) => {
      const list = values.map((value) => `(${value === null ? 'NULL' : literal(value)})`).join(', ');
      const [row = {}] = await duck.rows(
        `SELECT ${exactSum('v', 'sum')} FROM (VALUES ${list}, (NULL::VARCHAR)) AS t(v)`,
      );
      expect(readSum(row, 'sum')).toBe(unscaled(values.reduce((sum, value) => sum + scaled(value ?? '0'), 0n)));
    }),
    { seed, numRuns: 200 },
  );
}, 120_000);
