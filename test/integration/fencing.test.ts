import { afterAll, beforeAll, expect, test } from 'vitest';
import { acquire, advance, advanceFold } from '../../processors/ownership.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

test('P5: an owner whose epoch has passed moves neither the commit point nor the fold', async () => {
  const { pool } = database;
  const old = await acquire(pool, 'fenced', 0);
  const now = await acquire(pool, 'fenced', 0);
  expect(now.shard).toBe(old.shard);
  const client = await pool.connect();
  await expect(advance(client, old, 0, 5, 1_000)).rejects.toMatchObject({ name: 'Fenced' });
  await expect(advanceFold(client, old, 1_000)).rejects.toMatchObject({ name: 'Fenced' });
  await advance(client, now, 0, 5, 1_000);
  await expect(advance(client, now, 0, 5, 1_000)).rejects.toMatchObject({ name: 'Fenced' });
  client.release();
});

test('P2, P5: two processors that both believe to own a partition count every event once', async () => {
  const { pool } = database;
  // Two logs of the same topic with the same records: each group knows nothing of the other.
  const [first, second] = [await openTestLog(), await openTestLog()];
  const events = Array.from({ length: 3_000 }, (_, i) => event(`k${i}`));
  for (const log of [first, second])
    for (let i = 0; i < events.length; i += 50) await log.append([records(0, events.slice(i, i + 50))]);
  const running = await Promise.all([startProcessors(pool, first), startProcessors(pool, second)]);
  await committed(pool, events.length + 5);
  await Promise.all(running.map((one) => one.stop()));
  const { rows } = await pool.query(
    `SELECT (SELECT count(*)::int FROM events) AS raw, (SELECT sum(accepted)::int FROM accounting) AS accepted, (SELECT sum(received)::int FROM accounting) AS received,
       (SELECT sum(sum)::int FROM rollups_minute WHERE meter_id = 3) AS tokens, (SELECT max(epoch)::int FROM log_offsets) AS epochs`,
  );
  expect(rows[0]).toMatchObject({ raw: 3_000, accepted: 3_000, received: 3_000, tokens: 30_000 });
  expect((rows[0] as { epochs: number }).epochs).toBeGreaterThanOrEqual(2);
  await first.dispose();
  await second.dispose();
});
