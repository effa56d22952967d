/** What days that have passed leave in a database: one day comes in through the server, the others are copies of it, made in SQL. */
import { randomFillSync } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { openFilterBudget, openKeySet } from '../processors/dedupe/index.ts';
import { TIME_TABLES } from '../schemas/index.ts';
import { detectEngine } from '../sinks/index.ts';
import { openEmbeddedPostgresPool } from './database.ts';
import { makeLoad, postAll, type Totals } from './load.ts';
import { KEY, startBenchServer } from './process.ts';
import { copyData, fresh, SCRATCH } from './report.ts';

const DAY = 86_400_000;
const HOUR = 3_600_000;
const MINUTE = 60_000;
/** Of a day, in one minute of each hour: as many minute rows as hour rows. */
const EVENTS = 40_000;
export const HISTORY_TENANTS = 50;
/** Of a day. A key takes 16 bytes, an event and its rollups 1,000, so there are keys of more events. */
const KEYS = 300_000;
const WINDOW_DAYS = 35;
const BASE = 'history';

export interface History {
  days: number;
  /** data folder */
  name: string;
  /** what its server has counted: events that came in, tokens of copies too */
  counted: Totals[];
  events: number;
  rollupRows: number;
  claimKeys: number;
}

/** A data folder for each number of days, ascending. */
export async function makeHistories(numbers: readonly number[]): Promise<History[]> {
  const last = Math.floor((Date.now() - 27 * HOUR) / DAY) * DAY;
  const [day, end] = await firstDay(last);
  const made: History[] = [];
  let before = 1;
  let keyDays = 0;
  for (const days of numbers) {
    const server = await startBenchServer(`${SCRATCH}${BASE}`, { ROLES: 'query' });
    const database = await openEmbeddedPostgresPool(`${SCRATCH}${BASE}`);
    const { pool } = database;
    await copyDays(pool, last, before, days);
    const claimed = Math.min(days, WINDOW_DAYS);
    await claimKeys(pool, keyDays, claimed);
    await pool.query('VACUUM ANALYZE');
    const stored = { ...(await counts(pool)), claimKeys: claimed * KEYS };
    await database.close();
    await server.stop();
    const name = `${BASE}-${days}`;
    await copyData(BASE, name);
    made.push({ days, name, counted: [{ ...day, tokens: day.tokens * days }, end], ...stored });
    before = days;
    keyDays = claimed;
  }
  return made;
}

/** One day, over for some hours: its hours are folded, its coarse rows made. */
async function firstDay(last: number): Promise<[Totals, Totals]> {
  const perHour = EVENTS / 22;
  // From its third hour on: what is late is of this day too.
  const at = (i: number) => last + (2 + Math.floor(i / perHour)) * HOUR + ((i % perHour) / perHour) * MINUTE;
  const day = makeLoad(EVENTS, 1000, 'history', at, HISTORY_TENANTS);
  const end = makeLoad(1_000, 1000, 'end', () => last + DAY + 3 * HOUR, HISTORY_TENANTS);
  const server = await fresh(BASE, { ROLLUP_REFOLD_SECONDS: '0' });
  for (const { bodies } of [day, end]) {
    await postAll(server.url, KEY, bodies, { connections: 1 });
    await server.settled(performance.now());
  }
  const database = await openEmbeddedPostgresPool(`${SCRATCH}${BASE}`);
  while ((await unfolded(database.pool, last + DAY)) > 0) await delay(100);
  await database.close();
  await server.stop();
  return [day, end];
}

async function unfolded(pool: pg.Pool, until: number): Promise<number> {
  const { rows } = await pool.query<{ left: number }>(
    `SELECT ((SELECT count(*) FROM log_offsets WHERE coarse_until < $1) + (SELECT count(*) FROM stale_hours)
       + (SELECT count(*) FROM unmerged_hours WHERE hour < $1))::int AS left`,
    [new Date(until)],
  );
  return rows[0]?.left ?? 0;
}

/** The day at `last` again, `from` to `to` - 1 days earlier. */
async function copyDays(pool: pg.Pool, last: number, from: number, to: number): Promise<void> {
  const back = Array.from({ length: to - from }, (_, i) => from + i);
  const client = await pool.connect();
  const engine = await detectEngine(pool);
  const tables = Object.values(TIME_TABLES);
  const times = back.map((days) => last - days * DAY);
  for (const table of tables) await engine.ensureChunks(client, table, times);
  client.release();
  const left = back.values();
  const copy = async () => {
    for (const days of left)
      for (const { table, column } of tables) await pool.query(await copyOf(pool, table, column, last, days));
  };
  await Promise.all([copy(), copy()]);
}

/** Times move, keys of events are new ones. */
async function copyOf(pool: pg.Pool, table: string, time: string, last: number, days: number): Promise<pg.QueryConfig> {
  const { rows } = await pool.query<{ name: string; type: string }>(
    `SELECT quote_ident(attname) AS name, atttypid::regtype::text AS type FROM pg_attribute
     WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [table],
  );
  const sourceOf = ({ name, type }: { name: string; type: string }) => {
    if (name === 'key') return 'gen_random_uuid()';
    return type === 'timestamp with time zone' ? `${name} - make_interval(days => $3)` : name;
  };
  return {
    text: `INSERT INTO ${table} (${rows.map(({ name }) => name).join(', ')}) SELECT ${rows.map(sourceOf).join(', ')}
           FROM ${table} WHERE "${time}" >= $1 AND "${time}" < $2`,
    values: [new Date(last), new Date(last + DAY), days],
  };
}

/** Claims random keys of days `from` to `to` - 1 ago, for all shards alike: a seal a day, with the upkeep that falls due. */
async function claimKeys(pool: pg.Pool, from: number, to: number): Promise<void> {
  const { rows } = await pool.query<{ shard: number }>('SELECT shard FROM log_offsets ORDER BY shard');
  const client = await pool.connect();
  const sealKeys = Math.round(KEYS / rows.length);
  for (const { shard } of rows) {
    let now = 0;
    const budget = openFilterBudget(256 << 20);
    const set = await openKeySet(pool, shard, { sealKeys, windowMs: WINDOW_DAYS * DAY, budget, now: () => now });
    for (let day = from; day < to; day++) {
      now = Date.now() - day * DAY;
      set.add(randomFillSync(Buffer.allocUnsafe(sealKeys * 16)), sealKeys);
      while (set.needsMaintenance()) await set.maintain(client, async () => undefined, 1_000);
    }
    set.close();
  }
  client.release();
}

async function counts(pool: pg.Pool): Promise<{ events: number; rollupRows: number }> {
  const count = (table: string) => `(SELECT count(*) FROM ${table})`;
  const rollups = Object.keys(TIME_TABLES).filter((table) => table !== 'events');
  const { rows } = await pool.query<{ events: number; rollups: number }>(
    `SELECT ${count('events')}::float8 AS events, (${rollups.map(count).join(' + ')})::float8 AS rollups`,
  );
  return { events: rows[0]?.events ?? 0, rollupRows: rows[0]?.rollups ?? 0 };
}
