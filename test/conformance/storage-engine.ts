import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TIME_TABLES, type TimeTableName } from '../../schemas/index.ts';
import type { Chunk, SqlSession, StorageEngine } from '../../sinks/index.ts';

/** A migrated database of one engine. */
export interface EngineUnderTest {
  /** whether `session()` gives another session each time */
  parallel: boolean;
  session(): Promise<SqlSession>;
  engine(chunkHours?: number): Promise<StorageEngine>;
  close(): Promise<void>;
}

const DAY = 86_400_000;
const HOUR = 3_600_000;
const FIRST = Date.UTC(2026, 5, 1);
const { events, rollups_minute: minutes, members_minute: members, rollups_hour: hours } = TIME_TABLES;
const ACME = '00000000-0000-4000-8000-00000000000a';
const GROUP = '00000000-0000-4000-8000-00000000000b';
const iso = (ms: number) => new Date(ms).toISOString();

const INSERT_EVENTS = `
  INSERT INTO events ("timestamp", received_at, log_offset, shard, tenant_id, key, keyed_by_source, idempotency_key, type, request_id, tokens_consumed)
  SELECT $1::timestamptz + i * interval '1 second', $1::timestamptz, i, 1, $2::uuid, md5($1::text || i)::uuid, false, 'k' || i, 'api_call', 'r' || i, 7
  FROM generate_series(0, $3::int - 1) AS i`;
/** As the processors write: absolute values, over what is there. */
const UPSERT_MINUTES = `
  INSERT INTO rollups_minute (bucket, meter_id, shard, tenant_id, group_key, count, sum, bins, bin_counts)
  SELECT $1::timestamptz + i * interval '1 minute', 1, 1, $2::uuid, $3::uuid, $5::bigint, 0.1, '{1,2}', '{1,1}'
  FROM generate_series(0, $4::int - 1) AS i
  ON CONFLICT (meter_id, tenant_id, bucket, group_key, shard) DO UPDATE SET count = excluded.count, sum = excluded.sum`;

/** What every storage engine must do; `compresses`: this one has a columnstore. */
export function describeStorageEngine(name: string, open: () => Promise<EngineUnderTest>, compresses: boolean): void {
  describe(`storage engine: ${name}`, () => {
    let under: EngineUnderTest;
    let engine: StorageEngine;
    let session: SqlSession;
    beforeAll(async () => {
      under = await open();
      engine = await under.engine();
      session = await under.session();
    }, 120_000);
    afterAll(() => under?.close());

    const writeEvents = async (from: number, count: number) => {
      await engine.ensureChunks(session, events, [from, from + (count - 1) * 1000]);
      await session.query(INSERT_EVENTS, [iso(from), ACME, count]);
    };
    const upsertMinutes = (from: number, count: number, value: number) =>
      session.query(UPSERT_MINUTES, [iso(from), ACME, GROUP, count, value]);
    const chunkOf = async (table: TimeTableName, at: number): Promise<Chunk> => {
      const chunks = await engine.listChunks(session, TIME_TABLES[table]);
      const found = chunks.find((one) => one.from <= at && at < one.to);
      if (found === undefined) throw new Error(`no chunk of ${table} at ${iso(at)}`);
      return found;
    };
    const countOf = async (from: string, where = 'true'): Promise<number> => {
      const { rows } = await session.query<{ n: number }>(`SELECT count(*)::float8 AS n FROM ${from} WHERE ${where}`);
      return rows[0]?.n ?? -1;
    };
    const planOf = async (sql: string): Promise<string> => {
      const { rows } = await session.query<{ 'QUERY PLAN': string }>(sql);
      return rows.map((row) => row['QUERY PLAN']).join('\n');
    };

    test('makes chunks on demand, many owners at once, and lists them in order with bounds and sizes', async () => {
      const times = [FIRST + 23 * HOUR, 0, Date.UTC(1999, 1, 28), FIRST];
      const own = async () => {
        const another = await under.engine();
        const itsSession = await under.session();
        for (const table of [events, hours]) await another.ensureChunks(itsSession, table, times);
      };
      if (under.parallel) await Promise.all([own(), own(), own(), own()]);
      else for (let i = 0; i < 2; i++) await own();
      const chunks = await engine.listChunks(session, events);
      expect(chunks.map((one) => [one.name, one.from, one.to, one.compressed])).toEqual([
        ['events_19700101', 0, DAY, false],
        ['events_19990228', Date.UTC(1999, 1, 28), Date.UTC(1999, 2, 1), false],
        ['events_20260601', FIRST, FIRST + DAY, false],
      ]);
      for (const chunk of chunks) expect(chunk.bytes).toBeGreaterThan(0);
      // 30 days from the epoch, whatever the month.
      for (const chunk of await engine.listChunks(session, hours)) {
        expect(chunk.from % (30 * DAY)).toBe(0);
        expect(chunk.to - chunk.from).toBe(30 * DAY);
      }
    });

    test('takes late writes: a day of its own for whatever time comes', async () => {
      await writeEvents(FIRST + DAY - 5_000, 10);
      await writeEvents(FIRST - 40 * DAY, 3);
      expect(await countOf('events_20260601')).toBe(5);
      expect(await countOf('events_20260602')).toBe(5);
      expect(await countOf('events')).toBe(13);
    });

    test('keeps keys unique and values absolute: an upsert changes the row that is there', async () => {
      await engine.ensureChunks(session, minutes, [FIRST]);
      await upsertMinutes(FIRST, 10, 1);
      await upsertMinutes(FIRST + 5 * 60_000, 10, 2);
      const { rows } = await session.query<{ n: number; counted: number; sum: string }>(
        'SELECT count(*)::float8 AS n, sum(count)::float8 AS counted, sum(sum)::text AS sum FROM rollups_minute',
      );
      expect(rows[0]).toEqual({ n: 15, counted: 25, sum: '1.5' });
    });

    test('a time range is answered from its own chunks, whether its bounds are known to the planner or not', async () => {
      for (let day = 0; day < 6; day++) await writeEvents(FIRST + day * DAY, 20);
      const range = `"timestamp" >= '2026-06-03' AND "timestamp" < '2026-06-04'`;
      const plan = await planOf(`EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM events WHERE ${range}`);
      expect(plan).toContain('events_20260603');
      expect(plan.match(/events_\d{8}/g)?.filter((chunk) => chunk !== 'events_20260603')).toEqual([]);
      await session.query('SET plan_cache_mode = force_generic_plan');
      await session.query(
        'PREPARE in_range (timestamptz, timestamptz) AS SELECT count(*) FROM events WHERE "timestamp" >= $1 AND "timestamp" < $2',
      );
      const generic = await planOf(
        `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE in_range ('2026-06-03Z', '2026-06-04Z')`,
      );
      await session.query('DEALLOCATE in_range');
      await session.query('RESET plan_cache_mode');
      expect(generic).toContain('events_20260603');
      expect(generic.match(/events_\d{8}/g)?.filter((chunk) => chunk !== 'events_20260603')).toEqual([]);
    });

    test(`compresses a chunk where it can (${compresses}), and takes late events and changed rollups afterwards`, async () => {
      const at = FIRST + 10 * DAY;
      await writeEvents(at, 5_000);
      await engine.ensureChunks(session, minutes, [at]);
      await upsertMinutes(at, 600, 1);
      for (const table of ['events', 'rollups_minute'] as const) {
        const before = await chunkOf(table, at);
        expect(await engine.compressChunk(session, before)).toBe(compresses);
        expect((await chunkOf(table, at)).compressed).toBe(compresses);
        if (compresses && table === 'events') expect((await chunkOf(table, at)).bytes).toBeLessThan(before.bytes / 2);
      }
      await writeEvents(at + 2 * HOUR, 50);
      await upsertMinutes(at + 300 * 60_000, 400, 3);
      expect(await countOf('events', `"timestamp" >= '${iso(at)}' AND "timestamp" < '${iso(at + DAY)}'`)).toBe(5_050);
      expect(await countOf('events', "request_id = 'r4999'")).toBe(1);
      const { rows } = await session.query<{ n: number; counted: number }>(
        'SELECT count(*)::float8 AS n, sum(count)::float8 AS counted FROM rollups_minute WHERE bucket >= $1::timestamptz AND bucket < $2::timestamptz',
        [iso(at), iso(at + DAY)],
      );
      expect(rows[0]).toEqual({ n: 700, counted: 300 + 3 * 400 });
      // What came late is compressed too when asked again.
      const again = await chunkOf('events', at);
      expect(await countOf(again.name), 'the chunk by its own name, as tiering counts it').toBe(5_050);
      expect(await engine.compressChunk(session, again)).toBe(compresses);
      expect(await countOf('events', `"timestamp" >= '${iso(at)}' AND "timestamp" < '${iso(at + DAY)}'`)).toBe(5_050);
    });

    test('P8: a transaction that began before a chunk was compressed reads what it would have read', async () => {
      const at = FIRST + 15 * DAY;
      await writeEvents(at, 1_000);
      const [reader, writer] = under.parallel ? [await under.session(), await under.session()] : [session, session];
      const day = `SELECT count(*)::int AS n FROM events WHERE "timestamp" >= '${iso(at)}' AND "timestamp" < '${iso(at + DAY)}'`;
      await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await reader.query('SELECT 1');
      await engine.compressChunk(writer, await chunkOf('events', at));
      expect((await reader.query(day)).rows).toEqual([{ n: 1_000 }]);
      await reader.query('COMMIT');
      expect((await reader.query(day)).rows).toEqual([{ n: 1_000 }]);
    });

    test.each([
      ['as it is', false],
      ['compressed', true],
    ])(
      'detaches a chunk (%s) as a table of its name, attaches it again for a late event, and drops it',
      async (_, compressed) => {
        const at = FIRST + (compressed ? 21 : 20) * DAY;
        await writeEvents(at, 100);
        const chunk = await chunkOf('events', at);
        if (compressed) await engine.compressChunk(session, chunk);
        const inAll = await countOf('events');
        await engine.detachChunk(session, chunk);
        expect(await countOf('events')).toBe(inAll - 100);
        expect(await countOf(chunk.name)).toBe(100);
        expect((await engine.listChunks(session, events)).map((one) => one.name)).not.toContain(chunk.name);
        await writeEvents(at + HOUR, 1);
        expect(await countOf('events')).toBe(inAll + 1);
        const again = await chunkOf('events', at);
        expect(again.name).toBe(chunk.name);
        await engine.detachChunk(session, again);
        await engine.dropChunk(session, again);
        expect((await session.query(`SELECT to_regclass('${chunk.name}')::text AS name`)).rows).toEqual([
          { name: null },
        ]);
      },
    );

    test('P9: takes a table in as a chunk, in one transaction, with the indexes of every chunk, and takes more into it', async () => {
      const at = FIRST + 25 * DAY;
      await writeEvents(at + DAY, 1);
      const inAll = await countOf('events');
      await engine.createDetached(session, events, 'events_aside');
      await session.query(INSERT_EVENTS.replace('INTO events', 'INTO events_aside'), [iso(at), ACME, 100]);
      const interval = { from: at, to: at + DAY };
      await engine.prepareDetached(session, events, 'events_aside', interval);
      for (const end of ['ROLLBACK', 'COMMIT']) {
        await session.query('BEGIN');
        await engine.attachDetached(session, events, 'events_aside', interval);
        expect(await countOf('events')).toBe(inAll + 100);
        await session.query(end);
        engine.forget();
        expect(await countOf('events')).toBe(end === 'COMMIT' ? inAll + 100 : inAll);
      }
      const chunk = await chunkOf('events', at);
      expect(chunk).toMatchObject({ name: 'events_20260626', ...interval });
      const indexes = `SELECT regexp_replace(indexdef, '^.* USING ', '') AS index FROM pg_indexes WHERE tablename = $1 ORDER BY 1`;
      const { rows: others } = await session.query(indexes, ['events_20260627']);
      expect((await session.query(indexes, [chunk.name])).rows).toEqual(others);
      await writeEvents(at + HOUR, 5);
      expect(await countOf(chunk.name)).toBe(105);
      await engine.dropChunk(session, chunk);
      expect(await countOf('events')).toBe(inAll);
    });

    test('drops an attached chunk and no other; dropping what is gone is no error', async () => {
      for (const day of [30, 31, 32]) await writeEvents(FIRST + day * DAY, 10);
      const inAll = await countOf('events');
      const chunk = await chunkOf('events', FIRST + 31 * DAY);
      await engine.compressChunk(session, chunk);
      await engine.dropChunk(session, chunk);
      await engine.dropChunk(session, chunk);
      expect(await countOf('events')).toBe(inAll - 10);
      expect(await countOf('events_20260701')).toBe(10);
      expect(await countOf('events_20260703')).toBe(10);
      // A late event of that day makes it anew, also through an engine that still remembers it.
      engine.forget();
      await writeEvents(FIRST + 31 * DAY, 1);
      expect(await countOf('events')).toBe(inAll - 9);
    });

    test('chunks take the width of the settings, and fit between those of another width', async () => {
      const at = FIRST + 50 * DAY;
      const narrow = await under.engine(6);
      await engine.ensureChunks(session, members, [at]);
      await narrow.ensureChunks(session, members, [at + 12 * HOUR, at + DAY + 7 * HOUR]);
      engine.forget();
      await engine.ensureChunks(session, members, [at + DAY + 13 * HOUR, at + DAY]);
      const chunks = await engine.listChunks(session, members);
      expect(chunks.map((one) => [one.name, (one.from - at) / HOUR, (one.to - at) / HOUR])).toEqual([
        ['members_minute_20260721', 0, 24],
        ['members_minute_20260722', 24, 30],
        ['members_minute_20260722_06', 30, 36],
        ['members_minute_20260722_12', 36, 48],
      ]);
    });
  });
}
