import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import { Type } from 'typebox';
import type { Job, JobContext } from '../../schemas/index.ts';
import { type StorageEngine, withTransaction } from '../../sinks/index.ts';
import type { ArchivedEvents } from '../archived-events.ts';
import { DAY } from '../rollups/rollups.ts';
import { dateOf } from '../utc-day.ts';
import { foldPast } from './coarse.ts';
import { type Cut, FINISH, finish, gapsOf, pendingCuts, TWIN_TOPIC } from './cut.ts';
import { backfillDay, daysWithEvents } from './days.ts';
import { removeRetired } from './retire.ts';
import type { StepDeps } from './step.ts';

export interface BackfillDeps {
  pool: Pool;
  engine: StorageEngine;
  archive: ArchivedEvents;
  /** of the log that is processed now: shards of another one have no owner any more */
  topic: string;
  /** as the processors' setting of that name */
  groupsMax: number;
  /** rollup rows that one step may have in memory */
  rowsMax: number;
  /** how long a run waits for owners that have not seen a new meter yet */
  waitMs?: number;
  fault?: StepDeps['fault'];
}

const POLL_MS = 100;

/** Shards without an owner count nothing live any more: all they have is the past. */
const CUT_OWNERLESS = `
  INSERT INTO meter_cuts (meter_id, shard, cut)
  SELECT v.id, o.shard, o.next FROM meter_versions AS v, log_offsets AS o
  WHERE v.state IN ('serving', 'next') AND v.complete_at IS NULL AND o.topic NOT IN ($1, '${TWIN_TOPIC}')
  ON CONFLICT (meter_id, shard) DO NOTHING`;
/** Counts the past wherever it has a cut, on every shard. */
const COMPLETE = `
  UPDATE meter_versions AS v SET complete_at = now()
  WHERE v.state IN ('serving', 'next') AND v.complete_at IS NULL AND NOT EXISTS (
    SELECT FROM log_offsets AS o LEFT JOIN meter_cuts AS c ON c.meter_id = v.id AND c.shard = o.shard
    WHERE o.topic <> '${TWIN_TOPIC}' AND c.finished_at IS NULL)`;
/** `blocked`: all that is left of it are days that can't be read now. */
const INCOMPLETE = `
  SELECT m.slug, bool_and(NOT EXISTS (
    SELECT FROM log_offsets AS o LEFT JOIN meter_cuts AS c ON c.meter_id = v.id AND c.shard = o.shard
    WHERE o.topic <> '${TWIN_TOPIC}' AND coalesce(c.backfilled_until, '-infinity') < 'infinity' AND c.finished_at IS NULL)) AS blocked
  FROM meter_versions AS v JOIN meters AS m ON m.key = v.meter
  WHERE v.state IN ('serving', 'next') AND v.complete_at IS NULL GROUP BY m.slug ORDER BY m.slug`;

/**
 * Counts the past of new and changed meters from raw events, in the database and in the archive. Each owner has
 * recorded from which offset it counts live; what is below is counted here, oldest day first, so a run may end at any
 * point and the next goes on there. Days that can't be read (a cold storage class) are left out and counted when they can.
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
  #until = Number.NEGATIVE_INFINITY;
  /** days that could not be read, and why */
  readonly #left = new Map<string, string>();
  #toldAt = 0;

  constructor(deps: BackfillDeps, context: JobContext) {
    this.#deps = deps;
    this.#context = context;
  }

  async run(): Promise<Record<string, unknown>> {
    const { pool, engine, topic, waitMs = 30_000 } = this.#deps;
    const { signal } = this.#context;
    const deadline = Date.now() + waitMs;
    await this.#gaps();
    for (;;) {
      signal.throwIfAborted();
      await pool.query(CUT_OWNERLESS, [topic]);
      const worked = await this.#pending();
      await pool.query(FINISH);
      const waiting = await this.#complete();
      if (waiting.every(({ blocked }) => blocked) || (!worked && Date.now() > deadline)) {
        await foldPast(pool, engine, signal);
        const removed = await removeRetired(pool, engine, signal);
        return {
          events: this.#events,
          removed,
          ...(waiting.length === 0 ? {} : { waiting: waiting.map(({ slug }) => slug) }),
          ...this.#leftOut(),
        };
      }
      if (!worked) await delay(POLL_MS, undefined, { signal });
    }
  }

  /** @returns whether there was anything to do */
  async #pending(): Promise<boolean> {
    const { pool, engine, archive } = this.#deps;
    const cuts = await pendingCuts(pool);
    if (cuts.length === 0) return false;
    let held = cuts;
    for (const day of await daysWithEvents(pool, engine, archive)) {
      const open = held.filter((cut) => cut.backfilledUntil < day + DAY);
      if (open.length === 0) continue;
      const overtaken = await this.#day(open, day);
      held = held.filter((cut) => !overtaken.includes(cut));
    }
    await finish(pool, held);
    return true;
  }

  /** Days that were passed by, and may be readable now. */
  async #gaps(): Promise<void> {
    const gaps = await gapsOf(this.#deps.pool);
    for (const [day, cuts] of Map.groupBy(gaps, (cut) => cut.gap ?? 0)) await this.#day(cuts, day);
  }

  async #day(cuts: readonly Cut[], day: number): Promise<Cut[]> {
    this.#context.signal.throwIfAborted();
    const { overtaken, passed } = await backfillDay(
      {
        ...this.#deps,
        signal: this.#context.signal,
        counted: async (own, events, to) => {
          this.#events += events;
          this.#until = to;
          await this.#tell(own);
        },
      },
      cuts,
      day,
    );
    const date = dateOf(day);
    if (passed === undefined) this.#left.delete(date);
    else this.#left.set(date, passed);
    return overtaken;
  }

  #leftOut() {
    const left = [...this.#left];
    if (left.length === 0) return {};
    const restore = left
      .filter(([, why]) => why === 'archive_frozen')
      .map(([day]) => `/api/v1/archives/${day}/restore`);
    return { left: Object.fromEntries(left), restore };
  }

  async #tell(cuts: readonly Cut[]): Promise<void> {
    if (Date.now() - this.#toldAt < 1_000) return;
    this.#toldAt = Date.now();
    await this.#context.progress({
      meters: [...new Set(cuts.map((cut) => cut.meter.slug))],
      until: new Date(this.#until).toISOString(),
      events: this.#events,
      ...this.#leftOut(),
    });
  }

  /** Versions that know the whole past take over. @returns slugs of those that do not yet */
  async #complete(): Promise<{ slug: string; blocked: boolean }[]> {
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
      const { rows } = await client.query<{ slug: string; blocked: boolean }>(INCOMPLETE);
      return rows;
    });
  }
}
