import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Pool } from 'pg';
import pino from 'pino';
import { BUILTIN_METERS } from '../../metering/index.ts';
import { type ProcessorDeps, type ProcessorSettings, runProcessors } from '../../processors/index.ts';
import { encodeEvent, type PlainEvent } from '../../schemas/index.ts';
import {
  detectEngine,
  type EventLog,
  openEmbeddedLog,
  openTenantDirectory,
  type RecordBatch,
} from '../../sinks/index.ts';
import { until } from './server.ts';

/** A log in a folder of its own. */
export async function openTestLog(partitions = 1): Promise<EventLog & { dispose(): Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-log-'));
  const log = await openEmbeddedLog({ directory, partitions, pollMs: 1 });
  return Object.assign(log, {
    dispose: async () => {
      await log.close();
      rmSync(directory, { recursive: true, force: true });
    },
  });
}

/** Small enough that a few hundred events meet every limit. */
export const TEST_SETTINGS: ProcessorSettings = {
  batchEvents: 100,
  batchBytes: 1 << 20,
  lingerMs: 0,
  cacheRows: 1_000,
  dedupeMemoryBytes: 1 << 20,
  dedupeSealKeys: 1_000,
  windowMs: 35 * 86_400_000,
  unknownTenants: 'create',
  meterRefreshMs: 20,
  groupsMax: 10_000,
  refoldMs: 0,
};

export const startProcessors = async (pool: Pool, log: EventLog, more: Partial<ProcessorDeps> = {}) =>
  runProcessors({
    pool,
    engine: await detectEngine(pool),
    log,
    directory: openTenantDirectory(pool),
    meters: BUILTIN_METERS,
    logger: pino({ level: process.env.TEST_LOG ?? 'silent' }),
    now: Date.now,
    settings: TEST_SETTINGS,
    ...more,
  });

/** An api_call of tenant acme. */
export const event = (key: string, more: Partial<PlainEvent> = {}): PlainEvent => ({
  tenant: 'acme',
  idempotency_key: key,
  source: null,
  keyed_by_source: false,
  type: 'api_call',
  timestamp: Date.UTC(2026, 0, 1),
  received_at: Date.UTC(2026, 0, 1),
  user_id: null,
  request_id: null,
  attributes: new Map([['tokens_consumed', { kind: 'long', value: 10 }]]),
  data: null,
  ...more,
});

export function records(partition: number, all: readonly (PlainEvent | Buffer)[]): RecordBatch {
  const bytes = all.map((one) => (Buffer.isBuffer(one) ? one : encodeEvent(one)));
  let end = 0;
  return {
    partition,
    count: bytes.length,
    bytes: Buffer.concat(bytes),
    ends: Uint32Array.from(bytes, (one) => (end += one.length)),
  };
}

/** Waits until the commit points add up to `offset`. */
export const committed = (pool: Pool, offset: number) =>
  until(async () => {
    const { rows } = await pool.query<{ n: number }>('SELECT coalesce(sum(next), 0)::float8 AS n FROM log_offsets');
    return (rows[0]?.n ?? 0) >= offset ? true : undefined;
  }, 15_000);

/** Processes until the log's end is committed. */
export async function drain(pool: Pool, log: EventLog): Promise<void> {
  const end = (await log.ranges()).reduce((sum, range) => sum + range.end, 0);
  const running = await startProcessors(pool, log);
  await committed(pool, end);
  await running.stop();
}

/** The whole accounting. */
export async function account(pool: Pool) {
  const { rows } = await pool.query<{ received: number; accepted: number; duplicate: number; dead: number }>(
    `SELECT sum(received)::int AS received, sum(accepted)::int AS accepted, sum(duplicate)::int AS duplicate,
       sum(dead_lettered)::int AS dead FROM accounting`,
  );
  return rows[0];
}
