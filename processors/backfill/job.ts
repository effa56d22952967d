import { setTimeout as delay } from 'node:timers/promises';
import type { Pool, PoolClient } from 'pg';
import { Type } from 'typebox';
import { type Job, type JobContext, type Meter, TIME_TABLES } from '../../schemas/index.ts';
import { readMeters, type StorageEngine, withTransaction } from '../../sinks/index.ts';
import { HOUR } from '../rollups/rollups.ts';
import { removeRetired } from './retire.ts';
import { backfillHour, type Cut, Overtaken } from './step.ts';

export interface BackfillDeps {
  pool: Pool;
  engine: StorageEngine;
  /** of the log that is processed now: shards of another one have no owner any more */
  topic: string;
  /** as the processors' setting of that name */
  groupsMax: number;
  /** how long a run waits for owners that have not seen a new meter yet */
  waitMs?: number;
}

/** Rows of a backfill carry shards of this topic; partition = the shard whose events they count. */
const TWIN_TOPIC = 'backfill';
const POLL_MS = 100;

/** Shards without an owner count nothing live any more: all they have is the past. */
const CUT_OWNERLESS = `
  INSERT INTO meter_cuts (meter_id, shard, cut)
  SELECT v.id, o.shard, o.next FROM meter_versions AS v, log_offsets AS o
  WHERE v.state IN ('serving', 'next') AND v.complete_at IS NULL AND o.topic NOT IN ($1, '${TWIN_TOPIC}')
  ON CONFLICT (meter_id, shard) DO NOTHING`;
const PENDING = `
  SELECT c.meter_id, c.shard, c.cut::float8 AS cut,
    CASE WHEN isfinite(c.backfilled_until) THEN (extract(epoch FROM c.backfilled_until) * 1000)::float8 ELSE '-infinity'::float8 END AS until
  FROM meter_cuts AS c JOIN meter_versions AS v ON v.id = c.meter_id
  WHERE c.finished_at IS NULL AND v.state IN ('serving', 'next') ORDER BY c.meter_id, c.shard`;
const TWIN = `
  INSERT INTO log_offsets (topic, partition, folded_until) VALUES ('${TWIN_TOPIC}', $1, '2200-01-01Z')
  ON CONFLICT (topic, partition) DO NOTHING`;
/** Counts the past wherever it has a cut, on every shard. */
const COMPLETE = `
  UPDATE meter_versions AS v SET complete_at = now()
  WHERE v.state IN ('serving', 'next') AND v.complete_at IS NULL AND NOT EXISTS (
    SELECT FROM log_offsets AS o LEFT JOIN meter_cuts AS c ON c.meter_id = v.id AND c.shard = o.shard
    WHERE o.topic <> '${TWIN_TOPIC}' AND c.finished_at IS NULL)`;

/**
 * Counts the past of new and changed meters from raw events. Each owner has recorded from which offset it counts live;
 * what is below is counted here, an hour of event time a transaction, so a run may end at any point and goes on there.
 */
export function createBackfillJob(deps: BackfillDeps): Job {
  return {
    name: 'meter_backfill',
    schedule: '*/10 * * * *',
    params: Type.Object({ meter: Type.Optional(Type.String()), at: Type.Optional(Type.String()) }),
    run: (context) => new Backfill(deps, context).run(),
  };
}

class Backfill {
  readonly #deps: BackfillDeps;
  readonly #context: JobContext;
  #events = 0;
  #hours = 0;
  #toldAt = 0;

  constructor(deps: BackfillDeps, context: JobContext) {
    this.#deps = deps;
    this.#context = context;
  }

  async run(): Promise<Record<string, unknown>> {
    const { pool, engine, topic, waitMs = 30_000 } = this.#deps;
    const { signal } = this.#context;
    const deadline = Date.now() + waitMs;
    for (;;) {
      signal.throwIfAborted();
      await pool.query(CUT_OWNERLESS, [topic]);
      const worked = await this.#pending();
      const waiting = await this.#complete();
      if (waiting.length === 0 || (!worked && Date.now() > deadline)) {
        const removed = await removeRetired(pool, engine, signal);
        return { events: this.#events, hours: this.#hours, removed, ...(waiting.length === 0 ? {} : { waiting }) };
      }
      if (!worked) await delay(POLL_MS, undefined, { signal });
    }
  }

  /** @returns whether there was anything to do */
  async #pending(): Promise<boolean> {
    const { pool } = this.#deps;
    const { rows } = await pool.query<{ meter_id: number; shard: number; cut: number; until: number }>(PENDING);
    if (rows.length === 0) return false;
    const meters = new Map<number, Meter>();
    for (const { meter, next } of await readMeters(pool)) {
      meters.set(meter.id, meter);
      if (next !== null) meters.set(next.id, next);
    }
    for (const row of rows) {
      const meter = meters.get(row.meter_id);
      if (meter === undefined) continue;
      const twin = await twinOf(pool, row.shard);
      const { groupsMax } = this.#deps;
      await this.#shard({ meter, shard: row.shard, cut: row.cut, backfilledUntil: row.until, twin, groupsMax });
    }
    return true;
  }

  async #shard(cut: Cut): Promise<void> {
    const client = await this.#deps.pool.connect();
    let broken: Error | undefined;
    try {
      for (const chunk of await this.#chunks(client, cut)) {
        for (const hour of await hoursOf(client, cut, chunk)) {
          this.#context.signal.throwIfAborted();
          const { events } = await backfillHour(client, this.#deps.engine, cut, hour);
          cut.backfilledUntil = hour + HOUR;
          this.#events += events;
          this.#hours++;
          await this.#tell(cut);
        }
      }
      await client.query('UPDATE meter_cuts SET finished_at = now() WHERE meter_id = $1 AND shard = $2', [
        cut.meter.id,
        cut.shard,
      ]);
    } catch (error) {
      broken = error instanceof Error ? error : new Error(String(error));
      if (!(error instanceof Overtaken)) throw error;
    } finally {
      // A connection with an open transaction is never lent again.
      client.release(broken);
    }
  }

  /** Days with raw events that the mark has not passed, oldest first. */
  async #chunks(client: PoolClient, cut: Cut): Promise<{ from: number; to: number }[]> {
    const chunks = await this.#deps.engine.listChunks(client, TIME_TABLES.events);
    return chunks.filter((chunk) => chunk.to > cut.backfilledUntil).sort((a, b) => a.from - b.from);
  }

  async #tell({ meter, shard, backfilledUntil }: Cut): Promise<void> {
    if (Date.now() - this.#toldAt < 1_000) return;
    this.#toldAt = Date.now();
    await this.#context.progress({
      meter: meter.slug,
      shard,
      until: new Date(backfilledUntil).toISOString(),
      events: this.#events,
      hours: this.#hours,
    });
  }

  /** Versions that know the whole past take over. @returns slugs of those that do not yet */
  async #complete(): Promise<string[]> {
    return withTransaction(this.#deps.pool, async (client) => {
      await client.query(COMPLETE);
      // One statement after the other: a meter has one serving version at every moment.
      await client.query(
        `UPDATE meter_versions AS v SET state = 'retired', retired_at = now() FROM meter_versions AS n
         WHERE n.meter = v.meter AND n.state = 'next' AND n.complete_at IS NOT NULL AND v.state = 'serving'`,
      );
      await client.query(
        `UPDATE meter_versions SET state = 'serving' WHERE state = 'next' AND complete_at IS NOT NULL`,
      );
      const { rows } = await client.query<{ slug: string }>(
        `SELECT DISTINCT m.slug FROM meter_versions AS v JOIN meters AS m ON m.key = v.meter
         WHERE v.state IN ('serving', 'next') AND v.complete_at IS NULL ORDER BY 1`,
      );
      return rows.map((row) => row.slug);
    });
  }
}

/** The hours of a chunk that have events of the shard's past, at or after the mark. */
async function hoursOf(client: PoolClient, cut: Cut, chunk: { from: number; to: number }): Promise<number[]> {
  const { rows } = await client.query<{ hour: number }>(
    `SELECT DISTINCT (extract(epoch FROM date_bin('1 hour', e."timestamp", 'epoch')) * 1000)::float8 AS hour FROM events AS e
     WHERE e.shard = $1 AND e.log_offset < $2 AND e."timestamp" >= $3 AND e."timestamp" < $4 ORDER BY 1`,
    [cut.shard, cut.cut, new Date(Math.max(chunk.from, cut.backfilledUntil)), new Date(chunk.to)],
  );
  return rows.map((row) => row.hour);
}

/** The shard that backfilled rows of a shard carry; its hours count as folded from the start. */
async function twinOf(pool: Pool, shard: number): Promise<number> {
  await pool.query(TWIN, [shard]);
  const { rows } = await pool.query<{ shard: number }>(
    `SELECT shard FROM log_offsets WHERE topic = '${TWIN_TOPIC}' AND partition = $1`,
    [shard],
  );
  if (rows[0] === undefined) throw new Error(`shard ${shard} has no twin`);
  return rows[0].shard;
}
