import type { ClientBase } from 'pg';
import { type Meter, TIME_TABLES } from '../../schemas/index.ts';
import { advanceCoarse, type Ownership } from '../ownership.ts';
import type { ProcessorDeps } from '../ports.ts';
import { type CoarseDay, foldCoarse } from './fold-coarse.ts';
import { DAY, HOUR } from './rollups.ts';

/** Days with hour rows, of which some hours, or the day as a whole, have no coarse ones yet. */
const DAYS = `
  SELECT DISTINCT (extract(epoch FROM date_bin('1 day', bucket, 'epoch')) * 1000)::float8 AS day
  FROM rollups_hour WHERE shard = $1 AND bucket >= $2 AND bucket < $3 ORDER BY 1`;
const STALE = `
  SELECT (extract(epoch FROM hour) * 1000)::float8 AS hour FROM stale_hours WHERE shard = $1 AND hour < $2 ORDER BY hour LIMIT 1000`;
/** Making stale rows again takes at most one part in so many of the time. */
const SHARE = 20;

/** Keeps a shard's coarse rollups: makes them when hours have passed, and again when late events changed hours. A step is one day. */
export class CoarseKeeper {
  readonly #deps: ProcessorDeps;
  readonly #own: Ownership;
  /** hours before this have coarse rows unless they are stale (Unix ms) */
  #until: number;
  /** days ahead that have hour rows, as last looked up */
  #days: number[] = [];
  #nextLook: number;

  constructor(deps: ProcessorDeps, own: Ownership) {
    this.#deps = deps;
    this.#own = own;
    this.#until = own.coarseUntil;
    this.#nextLook = deps.now();
  }

  isDue(foldedUntil: number): boolean {
    return foldedUntil > this.#until || (this.#deps.now() >= this.#nextLook && Number.isFinite(this.#until));
  }

  /** Does one day's work; nothing of the partition may be in flight. @throws {Fenced} */
  async step(client: ClientBase, foldedUntil: number, meters: readonly Meter[]): Promise<void> {
    if (foldedUntil > this.#until) await this.#extend(client, foldedUntil, meters);
    else await this.#renew(client, meters);
  }

  async #extend(client: ClientBase, foldedUntil: number, meters: readonly Meter[]): Promise<void> {
    if (this.#days.length === 0) {
      // From the start of the day: its own row is due at its end, also where its last hours are empty.
      const from = Number.isFinite(this.#until) ? new Date(Math.floor(this.#until / DAY) * DAY) : '-infinity';
      const { rows } = await client.query<{ day: number }>(DAYS, [this.#own.shard, from, new Date(foldedUntil)]);
      this.#days = rows.map((row) => row.day);
    }
    const day = this.#days.shift();
    if (day === undefined) {
      await advanceCoarse(client, this.#own, foldedUntil);
      this.#until = foldedUntil;
      return;
    }
    const until = Math.min(day + DAY, foldedUntil);
    const hours = new Set<number>();
    for (let hour = Math.max(day, this.#until); hour < until; hour += HOUR) hours.add(hour);
    await this.#fold(client, { day, hours, wholeDay: until === day + DAY, again: false }, until, meters);
    this.#until = until;
  }

  async #renew(client: ClientBase, meters: readonly Meter[]): Promise<void> {
    const { refoldMs } = this.#deps.settings;
    const { rows } = await client.query<{ hour: number }>(STALE, [this.#own.shard, new Date(this.#until)]);
    const first = rows[0];
    const began = performance.now();
    if (first !== undefined) {
      const day = Math.floor(first.hour / DAY) * DAY;
      const hours = new Set(rows.map((row) => row.hour).filter((hour) => hour < day + DAY));
      await this.#fold(client, { day, hours, wholeDay: day + DAY <= this.#until, again: true }, this.#until, meters);
    }
    // An import of old events makes many days stale: one after another, each after a rest of its own length.
    const more = rows.some((row) => row.hour >= (first?.hour ?? 0) + DAY);
    const rest = (performance.now() - began) * SHARE;
    const wait = more ? rest : Math.max(refoldMs, rest);
    this.#nextLook = this.#deps.now() + (refoldMs === 0 ? 0 : wait);
  }

  async #fold(client: ClientBase, work: CoarseDay, until: number, meters: readonly Meter[]): Promise<void> {
    const { engine, fault, logger } = this.#deps;
    await engine.ensureChunks(client, TIME_TABLES.rollups_coarse, [work.day]);
    await client.query('BEGIN');
    await advanceCoarse(client, this.#own, until);
    await foldCoarse(client, this.#own.shard, work, meters);
    fault?.('coarse');
    await client.query('COMMIT');
    logger.debug(
      { partition: this.#own.partition, day: new Date(work.day), hours: work.hours.size, again: work.again },
      'coarse rollups made',
    );
  }
}
