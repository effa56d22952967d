import { afterAll, beforeAll, expect, test } from 'vitest';
import { encodeEvent } from '../../schemas/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { committed, event, openTestLog, records, startProcessors } from '../support/processors.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

test('P1, P4, P6: what another producer got wrong becomes a dead letter with its bytes and reason, and the stream goes on', async () => {
  const { pool } = database;
  const log = await openTestLog();
  const unknown = Buffer.from(encodeEvent(event('x')));
  unknown[5] = 0;
  const whole = encodeEvent(event('t'));
  const bad: [Buffer, string][] = [
    [unknown, 'unknown_schema'],
    [whole.subarray(0, whole.length - 3), 'undecodable'],
    [Buffer.concat([encodeEvent(event('too long')), Buffer.from([1])]), 'undecodable'],
    [Buffer.alloc(0), 'undecodable'],
    [Buffer.from('not avro at all'), 'undecodable'],
    [encodeEvent(event('nul', { user_id: 'a\0b' })), 'invalid_character'],
    [encodeEvent(event('year 3000', { timestamp: Date.UTC(3000, 0, 1) })), 'invalid_timestamp'],
    [encodeEvent(event('bad json', { data: '{"a":' })), 'inapplicable'],
    [encodeEvent(event('no tenant', { tenant: '' })), 'missing_field'],
  ];
  const good = Array.from({ length: 60 }, (_, i) => event(`good-${i}`));
  const mixed = good.flatMap((one, i) => [one, ...(i < bad.length ? [bad[i]?.[0] ?? Buffer.alloc(0)] : [])]);
  await log.append([records(0, mixed)]);
  const running = await startProcessors(pool, log);
  await committed(pool, mixed.length);
  await running.stop();
  const { rows: letters } = await pool.query<{ payload: Buffer; reason: string }>(
    'SELECT payload, reason FROM dead_letters ORDER BY log_offset',
  );
  expect(letters.map(({ payload, reason }) => [payload.toString('hex'), reason])).toEqual(
    bad.map(([bytes, reason]) => [bytes.toString('hex'), reason]),
  );
  const { rows } = await pool.query(
    'SELECT sum(received)::int AS received, sum(accepted)::int AS accepted, sum(duplicate)::int AS duplicate, sum(dead_lettered)::int AS dead FROM accounting',
  );
  expect(rows[0]).toEqual({ received: mixed.length, accepted: good.length, duplicate: 0, dead: bad.length });
  const { rows: calls } = await pool.query('SELECT sum(count)::int AS n FROM rollups_minute WHERE meter_id = 1');
  expect(calls[0]).toEqual({ n: good.length });
  await log.dispose();
});

test('P2: a dead letter does not claim its key: the same event, mended, counts', async () => {
  const { pool } = database;
  await pool.query(
    'TRUNCATE log_offsets, events, accounting, dead_letters, dedupe_blocks, dedupe_runs, rollups_minute, members_minute CASCADE',
  );
  const log = await openTestLog();
  await log.append([records(0, [event('k', { timestamp: Date.UTC(3000, 0, 1) }), event('k'), event('k')])]);
  const running = await startProcessors(pool, log);
  await committed(pool, 3);
  await log.append([records(0, [event('k')])]);
  await committed(pool, 4);
  await running.stop();
  const { rows } = await pool.query(
    'SELECT sum(accepted)::int AS accepted, sum(dead_lettered)::int AS dead, sum(received)::int AS received FROM accounting',
  );
  expect(rows[0]).toEqual({ accepted: 1, dead: 1, received: 4 });
  await log.dispose();
});
