import { hash } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ClaimStore, openFilterBudget, openKeySet } from '../../processors/dedupe/index.ts';
import { probeOf } from '../../processors/dedupe/probe.ts';
import { forIndexes, printsOf, RunIndex } from '../../processors/dedupe/run-index.ts';
import type { Run } from '../../processors/dedupe/runs.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

const keyOf = (n: number): Buffer => hash('sha256', String(n), 'buffer').subarray(0, 16);
const DAY = 86_400_000;

test('P2: claims equal a plain set, through seals, merges, failed batches, and reloads with more or less memory', async () => {
  const step = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant('batch' as const),
        keys: fc.array(fc.nat(2000), { maxLength: 60, size: 'max' }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('lost' as const), keys: fc.array(fc.nat(400), { maxLength: 60 }) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('reload' as const), keys: fc.constant([] as number[]) }) },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 20, maxLength: 60, size: 'max' }),
      // None, an index of some runs, enough: what one opening had in an index, the next may have to merge.
      fc.infiniteStream(fc.constantFrom(0, 1_000, 1 << 20)),
      fc.constantFrom(8, 1000),
      async (steps, memory, sliceKeys) => {
        const { pool } = database;
        await pool.query('TRUNCATE dedupe_blocks, dedupe_runs, dedupe_pages');
        const open = () =>
          openKeySet(pool, 1, {
            sealKeys: 32,
            fanout: 3,
            sliceKeys,
            windowMs: 35 * DAY,
            budget: openFilterBudget(memory.next().value),
            now: () => 1_000,
          });
        const model = new Set<number>();
        let set: ClaimStore = await open();
        let block = 0;
        for (const { kind, keys } of steps) {
          if (kind === 'reload') {
            set = await open();
            continue;
          }
          const packed = Buffer.concat(keys.map(keyOf));
          const fresh = await set.claim(pool, packed, keys.length);
          const batch = new Set<number>();
          const expected = keys.map((key) => {
            const known = model.has(key) || batch.has(key);
            batch.add(key);
            return known ? 0 : 1;
          });
          expect([...fresh]).toEqual(expected);
          const claimed = Buffer.concat(keys.filter((_, i) => fresh[i] === 1).map(keyOf));
          set.add(claimed, claimed.length / 16);
          if (kind === 'lost') {
            // The batch was not committed: memory is ahead, and is dropped.
            set = await open();
            continue;
          }
          const client = await pool.connect();
          await set.persist(client, ++block, claimed);
          for (const key of batch) model.add(key);
          // One step at a time, or all there are: a merge may be half done when the set is opened anew.
          if (set.needsMaintenance()) await set.maintain(client, async () => undefined, sliceKeys === 8 ? 0 : 1_000);
          client.release();
        }
        const client = await pool.connect();
        while (set.needsMaintenance()) await set.maintain(client, async () => undefined, 0);
        client.release();
        const all = Buffer.concat([...model].map(keyOf));
        expect([...(await set.claim(pool, all, model.size))]).toEqual([...model].map(() => 0));
        const { rows } = await pool.query(
          'SELECT DISTINCT run FROM dedupe_pages EXCEPT SELECT run FROM dedupe_runs WHERE NOT garbage',
        );
        expect(rows).toEqual([]);
      },
    ),
    { numRuns: 25, endOnFailure: true },
  );
}, 120_000);

test('P2: bytes that stand across two keys of a page are no key', async () => {
  const { pool } = database;
  await pool.query('TRUNCATE dedupe_blocks, dedupe_runs, dedupe_pages');
  const low = Buffer.from(`${'00'.repeat(8)}${'ee'.repeat(8)}`, 'hex');
  const middle = Buffer.from('11'.repeat(16), 'hex');
  // The end of the first and the beginning of the second: in the page before the key itself, which sorts last.
  const across = Buffer.concat([low.subarray(8), middle.subarray(0, 8)]);
  for (const [held, fresh] of [
    [[low, middle], 1],
    [[low, middle, across], 0],
  ] as const) {
    // Without memory for filters every key is looked up.
    const set = await openKeySet(pool, 1, {
      sealKeys: held.length,
      windowMs: 35 * DAY,
      budget: openFilterBudget(0),
      now: () => 1_000,
    });
    const client = await pool.connect();
    set.add(Buffer.concat(held), held.length);
    await set.maintain(client, async () => undefined, 1_000);
    client.release();
    expect(set.stats()).toMatchObject({ recent: 0, filterBytes: 0 });
    expect([...(await set.claim(pool, Buffer.concat([across, middle]), 2))]).toEqual([fresh, 0]);
  }
});

test('P1, P2: keys chosen so that they crowd into one page are sealed, merged and found', async () => {
  const { pool } = database;
  await pool.query('TRUNCATE dedupe_blocks, dedupe_runs, dedupe_pages');
  const set = await openKeySet(pool, 1, {
    sealKeys: 1_000,
    fanout: 2,
    windowMs: 35 * DAY,
    budget: openFilterBudget(0),
    now: () => 1_000,
  });
  const client = await pool.connect();
  const keys = Buffer.concat(
    Array.from({ length: 2_000 }, (_, n) => Buffer.concat([Buffer.alloc(4), keyOf(n).subarray(4)])),
  );
  for (const half of [keys.subarray(0, keys.length / 2), keys.subarray(keys.length / 2)]) {
    set.add(half, 1_000);
    await set.maintain(client, async () => undefined, 1_000);
  }
  client.release();
  expect(set.stats()).toMatchObject({ recent: 0, runs: 1, sealed: 2_000 });
  expect((await set.claim(pool, keys, 2_000)).includes(1)).toBe(false);
});

test('P2, P13: keys are remembered for the window and then forgotten', async () => {
  const { pool } = database;
  await pool.query('TRUNCATE dedupe_blocks, dedupe_runs, dedupe_pages');
  let now = 0;
  const set = await openKeySet(pool, 1, {
    sealKeys: 1_000,
    windowMs: 35 * DAY,
    budget: openFilterBudget(1 << 20),
    now: () => now,
  });
  const client = await pool.connect();
  const keys = keyOf(1);
  set.add(keys, 1);
  await set.persist(client, 1, keys);
  for (const [days, fresh] of [
    [2, 0],
    [34, 0],
    [36, 1],
  ] as const) {
    now = days * DAY;
    if (set.needsMaintenance()) await set.maintain(client, async () => undefined, 1_000);
    expect([days, ...(await set.claim(pool, keys, 1))]).toEqual([days, fresh]);
  }
  const { rows } = await client.query(
    'SELECT (SELECT count(*)::int FROM dedupe_pages) AS pages, (SELECT count(*)::int FROM dedupe_runs) AS runs',
  );
  expect(rows[0]).toEqual({ pages: 0, runs: 0 });
  client.release();
});

test('P2: an index of runs names the run of every key that it was given, whatever their words, and no run that it forgot', () => {
  // Words that meet in a cell, in a place, in what is kept of them; at the edges of their range, and anywhere.
  const word = fc.oneof(fc.constantFrom(0, 1, 15, 16, -1, -16, 0x7fffffff, -0x80000000, 0x0fffffff), fc.integer());
  const key = fc.tuple(fc.integer(), fc.integer(), word, word);
  fc.assert(
    fc.property(
      fc.array(fc.array(key, { minLength: 1, maxLength: 300 }), { minLength: 1, maxLength: 4 }),
      (batches) => {
        const index = new RunIndex<Run>(batches.flat().length);
        const runs = batches.map((keys, run): Run => {
          return { run, level: 0, keys: keys.length, pages: 1, oldest: 0, newest: 0, filter: null, index };
        });
        batches.forEach((keys, i) => {
          expect(index.hasRoom(keys.length)).toBe(true);
          index.add(runs[i] as Run, printsOf(Int32Array.from(keys.flat()), keys.length));
        });
        expect(index.hasRoom(1)).toBe(false);
        for (const [i, keys] of batches.entries()) {
          const packed = Buffer.from(Int32Array.from(keys.flat()).buffer).swap32();
          const probe = forIndexes(probeOf(packed, Int32Array.from(keys.keys())));
          const ask = () => {
            const named = keys.map(() => new Set<Run>());
            index.mayHave(probe, (at, run) => named[probe.places[at] as number]?.add(run));
            return named;
          };
          for (const named of ask()) expect(named).toContain(runs[i]);
          index.forget(runs[i] as Run);
          for (const named of ask()) expect(named).not.toContain(runs[i]);
        }
        expect(index.isEmpty).toBe(true);
      },
    ),
  );
  // Places so fine that every bit that places a key counts.
  const index = new RunIndex<Run>(1 << 24);
  const keys = Buffer.concat(Array.from({ length: 4_000 }, (_, n) => keyOf(n)));
  const words = new Int32Array(new Uint8Array(Buffer.from(keys).swap32()).buffer);
  index.add(
    { run: 1, level: 0, keys: 4_000, pages: 1, oldest: 0, newest: 0, filter: null, index },
    printsOf(words, 4_000),
  );
  const named = new Set<number>();
  index.mayHave(
    forIndexes(
      probeOf(
        keys,
        Int32Array.from({ length: 4_000 }, (_, n) => n),
      ),
    ),
    (at) => named.add(at),
  );
  expect(named.size).toBe(4_000);
});
