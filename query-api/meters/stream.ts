import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from 'pg';
import type { ServerSentEvent } from '../event-stream.ts';
import type { MeterQuery, MeterRow } from './meter-query.ts';
import { runMeterQuery } from './run-query.ts';

/** How often commits are looked for: one query for all streams of this process. */
const LOOK_MS = 250;
/** Rows that a stream follows; a question with more is one for a query. */
export const MOST_FOLLOWED = 5_000;

/** What all commits so far add up to: it grows with every one. */
async function commitsOf(pool: Pool): Promise<number> {
  const { rows } = await pool.query<{ n: number }>('SELECT coalesce(sum(next), 0)::float8 AS n FROM log_offsets');
  return rows[0]?.n ?? 0;
}

/** Tells streams of new commits; asks the database only while there are any. */
export class CommitWatch {
  readonly #pool: Pool;
  #looking: Promise<void> | undefined;
  #commits = 0;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** Waits until there are more commits than `known`. @returns how many; `known` itself when the signal fires first */
  async after(known: number, signal: AbortSignal): Promise<number> {
    while (!signal.aborted) {
      if (this.#commits > known) return this.#commits;
      this.#looking ??= this.#look().finally(() => {
        this.#looking = undefined;
      });
      await this.#looking;
    }
    return known;
  }

  async #look(): Promise<void> {
    this.#commits = Math.max(this.#commits, await commitsOf(this.#pool).catch(() => 0));
    await delay(LOOK_MS);
  }
}

/**
 * New values of a meter as batches commit: first all rows, then those that changed. An event's id is how far commits had
 * come before its rows were read, so a reader that comes back with it misses nothing: where more has happened it gets all
 * rows again, and values are absolute. A reader that is slow gets the newest values, not every one in between.
 * @param query asked anew for every event, so that an open end moves on
 * @param after the last id that the reader has seen; 0: none
 */
export async function* followMeter(
  pool: Pool,
  watch: CommitWatch,
  query: () => MeterQuery,
  after: number,
  signal: AbortSignal,
): AsyncGenerator<ServerSentEvent> {
  let known = after;
  let before: Map<string, string> | undefined;
  if (after === 0) {
    known = await commitsOf(pool);
    const answer = await read(pool, query());
    before = answer.values;
    yield { id: known, event: 'rows', data: { rows: answer.rows } };
  }
  while (!signal.aborted) {
    const commits = await watch.after(known, signal);
    if (signal.aborted) return;
    known = commits;
    const answer = await read(pool, query());
    const last = before;
    const changed = answer.rows.filter((row) => last?.get(keyOf(row)) !== row.value);
    before = answer.values;
    // Commits that change nothing here move the reader's id on all the same.
    if (changed.length > 0 || last === undefined) yield { id: known, event: 'rows', data: { rows: changed } };
  }
}

interface FollowedRow {
  windowStart: string;
  windowEnd: string;
  subject: string | null;
  groupBy: Record<string, string | null>;
  value: string;
  quantiles?: MeterRow['quantiles'];
}

const keyOf = (row: FollowedRow): string => JSON.stringify([row.windowStart, row.subject, row.groupBy]);

async function read(pool: Pool, query: MeterQuery): Promise<{ rows: FollowedRow[]; values: Map<string, string> }> {
  const { rows } = await runMeterQuery(pool, { ...query, limit: MOST_FOLLOWED });
  const first = query.bySubject ? 1 : 0;
  const shown = rows.map(
    (row): FollowedRow => ({
      windowStart: new Date(row.windowStart).toISOString(),
      windowEnd: new Date(row.windowEnd).toISOString(),
      subject: query.bySubject ? (row.key[0] ?? null) : null,
      groupBy: Object.fromEntries(query.groupBy.map((name, i) => [name, row.key[first + i] ?? null])),
      value: row.value,
      ...(row.quantiles === undefined ? {} : { quantiles: row.quantiles }),
    }),
  );
  return { rows: shown, values: new Map(shown.map((row) => [keyOf(row), row.value])) };
}
