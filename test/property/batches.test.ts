import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { binOf, LEVEL, LEVELS, SketchSums } from '../../metering/index.ts';
import { STEPS, type Step } from '../../processors/index.ts';
import { type AttributeValue, encodeEvent, type PlainEvent } from '../../schemas/index.ts';
import { openEmbeddedLog, type RecordBatch } from '../../sinks/index.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { startProcessors, TEST_SETTINGS } from '../support/processors.ts';
import { until } from '../support/server.ts';

/** Two hours before a day ends, so that days are added up too. */
const BASE = Date.UTC(2026, 5, 1, 22);
const PARTITIONS = 2;
let database: TestDatabase;
beforeAll(async () => {
  database = await createTestDatabase();
});
afterAll(() => database.drop());

const event = fc
  .record({
    tenant: fc.constantFrom('a', 'b', 'c'),
    key: fc.nat(60),
    type: fc.constantFrom('api_call', 'agent_invocation', 'session'),
    minute: fc.oneof(
      { weight: 4, arbitrary: fc.nat(20) },
      { weight: 1, arbitrary: fc.integer({ min: -300, max: 200 }) },
    ),
    ms: fc.nat(59_999),
    user: fc.option(fc.nat(4), { nil: null }),
    endpoint: fc.option(fc.constantFrom('/x', '/y'), { nil: null }),
    tokens: fc.oneof(fc.nat(5_000).map(String), fc.constantFrom('0.1', '2.25', '99999999999999999999', 'none')),
    duration: fc.nat(10_000),
    status: fc.constantFrom(200, 404, 500),
  })
  .map((given): PlainEvent => {
    const attributes = new Map<string, AttributeValue>([
      ['duration_ms', { kind: 'long', value: given.duration }],
      ['status_code', { kind: 'long', value: given.status }],
      ['delta', { kind: 'long', value: given.duration % 2 === 0 ? 1 : -1 }],
    ]);
    if (given.endpoint !== null) attributes.set('endpoint', { kind: 'string', value: given.endpoint });
    if (given.tokens !== 'none') attributes.set('tokens_consumed', { kind: 'decimal', value: given.tokens });
    return {
      tenant: given.tenant,
      idempotency_key: `k${given.key}`,
      source: null,
      keyed_by_source: false,
      type: given.type,
      timestamp: BASE + given.minute * 60_000 + given.ms,
      received_at: BASE,
      user_id: given.user === null ? null : `u${given.user}`,
      request_id: null,
      attributes,
      data: null,
    };
  });

const scenario = fc.record({
  events: fc.array(event, { minLength: 1, maxLength: 120 }),
  appendAt: fc.integer({ min: 1, max: 40 }),
  batchEvents: fc.integer({ min: 1, max: 50 }),
  /** steps at which a batch fails, one after another, counted in passes of any step */
  failures: fc.array(fc.record({ step: fc.constantFrom(...STEPS), after: fc.nat(6) }), { maxLength: 3 }),
  restarts: fc.nat(2),
  cacheRows: fc.constantFrom(4, 60, 200, 100_000),
});

/** Events of one key differ, so which of them came first must be told from the log: it is the one that counts. */
function distinct(events: readonly PlainEvent[]): PlainEvent[] {
  const first = new Map<string, PlainEvent>();
  for (const one of events) {
    const key = `${one.tenant}\0${one.idempotency_key}`;
    if (!first.has(key)) first.set(key, one);
  }
  return [...first.values()];
}

test('P2, P3, P4: however events are split, repeated, late, failed and restarted, rollups equal a plain recomputation', async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async ({ events, appendAt, batchEvents, failures, restarts, cacheRows }) => {
      const { pool } = database;
      await pool.query(
        'TRUNCATE log_offsets, events, rollup_groups, rollups_minute, rollups_hour, rollups_coarse, stale_hours, unmerged_hours, members_minute, members_hour, dedupe_blocks, dedupe_runs, dedupe_pages, accounting, dead_letters RESTART IDENTITY',
      );
      const folder = mkdtempSync(join(tmpdir(), 'tidemark-property-'));
      const log = await openEmbeddedLog({ directory: folder, partitions: PARTITIONS, pollMs: 1 });
      const pending = failures.map((one) => ({ ...one }));
      const fault = (step: Step) => {
        const next = pending[0];
        if (next === undefined || next.step !== step || next.after-- > 0) return;
        pending.shift();
        throw Object.assign(new Error(`made to fail at ${step}`), { code: '40001' });
      };
      const start = () =>
        startProcessors(pool, log, {
          now: () => BASE + 4 * 3_600_000,
          fault,
          settings: { ...TEST_SETTINGS, batchEvents, cacheRows, dedupeSealKeys: 20 },
        });
      try {
        let running = await start();
        for (let i = 0; i < events.length; i += appendAt) await log.append(batchesOf(events.slice(i, i + appendAt)));
        for (let i = 0; i < restarts; i++) {
          await running.stop();
          running = await start();
        }
        await until(async () => {
          const { rows } = await pool.query<{ n: string }>('SELECT coalesce(sum(next), 0)::text AS n FROM log_offsets');
          return rows[0]?.n === String(events.length) ? true : undefined;
        });
        await running.stop();
        await compare(events);
      } finally {
        await log.close();
        rmSync(folder, { recursive: true, force: true });
      }
    }),
    { numRuns: 60, timeout: 30_000, endOnFailure: true },
  );
}, 180_000);

function batchesOf(events: readonly PlainEvent[]): RecordBatch[] {
  return [...Map.groupBy(events, (one) => one.tenant.charCodeAt(0) % PARTITIONS)].map(([partition, own]) => {
    const records = own.map(encodeEvent);
    let end = 0;
    return {
      partition,
      count: own.length,
      bytes: Buffer.concat(records),
      ends: Uint32Array.from(records, (record) => (end += record.length)),
    };
  });
}

/** The four kinds of rollup, minute by minute and hour by hour, against the distinct events. */
async function compare(events: readonly PlainEvent[]): Promise<void> {
  const { pool } = database;
  const counted = distinct(events);
  const { rows: accounts } = await pool.query<Record<string, string>>(
    'SELECT sum(received)::text AS received, sum(accepted)::text AS accepted, sum(duplicate)::text AS duplicate, sum(dead_lettered)::text AS dead FROM accounting',
  );
  expect(accounts[0]).toEqual({
    received: String(events.length),
    accepted: String(counted.length),
    duplicate: String(events.length - counted.length),
    dead: '0',
  });
  const { rows: raw } = await pool.query<{ n: string }>('SELECT count(*)::text AS n FROM events');
  expect(raw[0]?.n).toBe(String(counted.length));
  for (const [table, members, width, folded] of [
    ['rollups_minute', 'members_minute', 60_000, 'true'],
    ['rollups_hour', 'members_hour', 3_600_000, 'r.bucket < o.folded_until'],
  ] as const) {
    const { rows } = await pool.query<{ cell: string; count: string; sum: string | null; bins: string | null }>(
      `SELECT concat_ws('|', r.meter_id, t.customer_id, extract(epoch FROM r.bucket)::bigint, g.values::text) AS cell, r.count::text AS count,
         trim_scale(r.sum)::text AS sum, (SELECT string_agg(b || ':' || n, ',' ORDER BY b) FROM unnest(r.bins, coalesce(r.bin_counts::numeric[], r.levels)) AS u(b, n)) AS bins
       FROM ${table} AS r JOIN tenants AS t ON t.id = r.tenant_id JOIN rollup_groups AS g USING (group_key) JOIN log_offsets AS o ON o.shard = r.shard`,
    );
    const { rows: offsets } = await pool.query<{ customer_id: string; folded: number }>(
      `SELECT DISTINCT t.customer_id, coalesce((CASE WHEN isfinite(o.folded_until) THEN extract(epoch FROM o.folded_until) * 1000 ELSE -1e15 END), 0)::float8 AS folded
       FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id JOIN log_offsets AS o ON o.shard = e.shard`,
    );
    const foldedUntil = new Map(offsets.map((row) => [row.customer_id, row.folded]));
    const due = width === 60_000 ? counted : counted.filter((one) => hourOf(one) < (foldedUntil.get(one.tenant) ?? 0));
    expect(folded).toBeDefined();
    expect(Object.fromEntries(rows.map(({ cell, ...values }) => [cell, values]))).toEqual(recompute(due, width));
    const { rows: distinctUsers } = await pool.query<{ cell: string; n: string }>(
      `SELECT concat_ws('|', t.customer_id, extract(epoch FROM m.bucket)::bigint) AS cell, count(DISTINCT u)::text AS n
       FROM ${members} AS m JOIN tenants AS t ON t.id = m.tenant_id, unnest(m.members) AS u GROUP BY 1`,
    );
    const users = Map.groupBy(
      due.filter((one) => one.user_id !== null),
      (one) => `${one.tenant}|${(Math.floor(one.timestamp / width) * width) / 1000}`,
    );
    expect(Object.fromEntries(distinctUsers.map((row) => [row.cell, row.n]))).toEqual(
      Object.fromEntries([...users].map(([cell, own]) => [cell, String(new Set(own.map((one) => one.user_id)).size)])),
    );
  }
  await compareCoarse(counted);
}

const DAY = 86_400_000;

/** Coarse rows, where they may be read, against the same events. */
async function compareCoarse(counted: readonly PlainEvent[]): Promise<void> {
  const { pool } = database;
  const { rows: shards } = await pool.query<{ customer_id: string; until: number; stale: number[] }>(
    `SELECT DISTINCT t.customer_id, (CASE WHEN isfinite(o.coarse_until) THEN extract(epoch FROM o.coarse_until) * 1000 ELSE -1e15 END)::float8 AS until,
       ARRAY(SELECT (extract(epoch FROM hour) * 1000)::float8 FROM stale_hours AS h WHERE h.shard = o.shard) AS stale
     FROM events AS e JOIN tenants AS t ON t.id = e.tenant_id JOIN log_offsets AS o ON o.shard = e.shard`,
  );
  const byTenant = new Map(shards.map((row) => [row.customer_id, row]));
  for (const level of LEVELS) {
    const width = level & LEVEL.byDay ? DAY : 3_600_000;
    const { rows } = await pool.query<{ cell: string; count: string; sum: string | null; sketch: string | null }>(
      `SELECT concat_ws('|', r.meter_id, coalesce(t.customer_id, '*'), extract(epoch FROM r.bucket)::bigint, coalesce(g.values::text, '*')) AS cell,
         r.count::text AS count, trim_scale(r.sum)::text AS sum, r.sketch
       FROM rollups_coarse AS r JOIN log_offsets AS o ON o.shard = r.shard LEFT JOIN tenants AS t ON t.id = r.tenant_id LEFT JOIN rollup_groups AS g USING (group_key)
       WHERE r.level = $1 AND NOT EXISTS (SELECT FROM stale_hours AS h WHERE h.shard = r.shard AND h.hour >= r.bucket AND h.hour < r.bucket + $2 * interval '1 ms')`,
      [level, width],
    );
    // Rows of all tenants are one a shard: added up here.
    const found = new Map<string, { count: number; sum: bigint | null; bins: Map<number, number> | null }>();
    for (const { cell, count, sum, sketch } of rows) {
      const total = found.get(cell) ?? { count: 0, sum: null, bins: null };
      found.set(cell, total);
      total.count += Number(count);
      if (sum !== null) total.sum = (total.sum ?? 0n) + hundredths(sum);
      if (sketch === null) continue;
      const bins = total.bins ?? new Map<number, number>();
      total.bins = bins;
      const read = new SketchSums();
      read.addText(sketch);
      for (const [bin, n] of read.entries()) bins.set(bin, (bins.get(bin) ?? 0) + n);
    }
    const due = counted.filter((one) => {
      const shard = byTenant.get(one.tenant);
      const start = Math.floor(one.timestamp / width) * width;
      return (
        shard !== undefined &&
        start + width <= shard.until &&
        !shard.stale.some((hour) => hour >= start && hour < start + width)
      );
    });
    expect([level, shown(found)]).toEqual([level, recompute(due, width, level)]);
  }
}

const hourOf = (one: PlainEvent): number => Math.floor(one.timestamp / 3_600_000) * 3_600_000;

/** Meters 1 (count), 2 (percentile), 3 (exact sum), 6 (percentile), 4 (filtered count), 5 (count), 10 (steps), written plainly. */
function recompute(
  events: readonly PlainEvent[],
  width: number,
  level?: number,
): Record<string, { count: string; sum: string | null; bins: string | null }> {
  const cells = new Map<string, { count: number; sum: bigint | null; bins: Map<number, number> | null }>();
  const add = (
    meter: number,
    one: PlainEvent,
    groups: (string | null)[],
    value: string | null,
    bin: number | null,
    by = 1,
  ) => {
    const bucket = Math.floor(one.timestamp / width) * width;
    const grouped = level === undefined || (level & LEVEL.byGroup) !== 0;
    const finest = groups.length === 0 ? LEVEL.byTenant : LEVEL.byTenant | LEVEL.byGroup;
    if (level === finest && !PERCENTILES.has(meter)) return;
    if (level !== undefined && (LEVELS_LAST.has(meter) || (grouped && groups.length === 0))) return;
    const values = grouped ? `{${groups.map((group) => group ?? 'NULL').join(',')}}` : '*';
    const tenant = level === undefined || level & LEVEL.byTenant ? one.tenant : '*';
    const key = `${meter}|${tenant}|${bucket / 1000}|${values}`;
    const cell = cells.get(key) ?? { count: 0, sum: null, bins: null };
    cell.count++;
    if (value !== null) cell.sum = (cell.sum ?? 0n) + hundredths(value);
    if (bin !== null) {
      cell.bins ??= new Map();
      cell.bins.set(bin, (cell.bins.get(bin) ?? 0) + by);
    }
    cells.set(key, cell);
  };
  for (const one of events) {
    const get = (name: string) => one.attributes.get(name)?.value;
    const endpoint = get('endpoint')?.toString() ?? null;
    const duration = Number(get('duration_ms'));
    const status = String(get('status_code'));
    const tokens = get('tokens_consumed');
    if (one.type === 'api_call') {
      add(1, one, [endpoint, null, status], null, null);
      add(2, one, [endpoint, null], String(duration), binOf(duration));
    }
    if (one.type === 'agent_invocation') {
      add(5, one, [null, null], null, null);
      add(6, one, [null], String(duration), binOf(duration));
    }
    if (one.type === 'session') {
      const delta = Number(get('delta'));
      add(10, one, [], String(delta), one.timestamp - Math.floor(one.timestamp / width) * width, delta);
    }
    if (tokens !== undefined) add(3, one, [endpoint, null], String(tokens), null);
    if (status === '500') add(4, one, [endpoint, null, status], null, null);
  }
  return shown(cells);
}

const PERCENTILES = new Set([2, 6]);
/** Levels that last until they change: no coarse rows. */
const LEVELS_LAST = new Set([10]);

function shown(cells: ReadonlyMap<string, { count: number; sum: bigint | null; bins: Map<number, number> | null }>) {
  return Object.fromEntries(
    [...cells].map(([key, { count, sum, bins }]) => [
      key,
      {
        count: String(count),
        sum: sum === null ? null : fromHundredths(sum),
        bins:
          bins === null
            ? null
            : [...bins]
                .sort(([a], [b]) => a - b)
                .map(([bin, n]) => `${bin}:${n}`)
                .join(','),
      },
    ]),
  );
}

function hundredths(literal: string): bigint {
  const [integer = '0', fraction = ''] = literal.replace('-', '').split('.');
  const value = BigInt(integer) * 100n + BigInt(fraction.padEnd(2, '0'));
  return literal.startsWith('-') ? -value : value;
}

function fromHundredths(value: bigint): string {
  const digits = (value < 0n ? -value : value).toString().padStart(3, '0');
  const fraction = digits.slice(-2).replace(/0+$/, '');
  return `${value < 0n ? '-' : ''}${digits.slice(0, -2)}${fraction === '' ? '' : `.${fraction}`}`;
}
