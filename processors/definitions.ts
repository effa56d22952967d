import type { ClientBase, Pool } from 'pg';
import type { Meter } from '../schemas/index.ts';
import { readMeters, withTransaction } from '../sinks/index.ts';
import { confirm, type Ownership } from './ownership.ts';

/** The versions of meters that are counted. */
export interface Definitions {
  meters: readonly Meter[];
  /** changes whenever what is counted does */
  revision: string;
  /** first offset that a version counts live, by id; absent: it counts all */
  cuts: ReadonlyMap<number, number>;
}

/** Live counting of these begins here; where nothing came before, there is nothing to backfill. */
const CUT = `
  INSERT INTO meter_cuts (meter_id, shard, cut, finished_at)
  SELECT id, $2::int, $3::bigint, CASE WHEN $3::bigint = 0 THEN now() END FROM unnest($1::int[]) AS id
  ON CONFLICT (meter_id, shard) DO NOTHING`;

async function readDefinitions(
  database: Pool | ClientBase,
  builtin: readonly Meter[],
): Promise<Omit<Definitions, 'cuts'>> {
  const entries = await readMeters(database);
  const defined = entries.flatMap(({ meter, next }) => (next === null ? [meter] : [meter, next]));
  // A new name or description is no new meaning.
  const meaning = defined.map(({ name, description, slug, ...rest }) => rest);
  return { meters: [...builtin, ...defined], revision: JSON.stringify(meaning) };
}

/**
 * Takes over what is to be counted from offset `next` on, in one fenced transaction: every version that this shard has
 * not counted yet gets its cut there. Nothing of the partition may be in flight.
 * An owner counts a version from its cut on, whoever recorded it; the backfill counts everything before.
 * @throws {Fenced}
 */
export function adoptDefinitions(
  pool: Pool,
  own: Ownership,
  next: number,
  builtin: readonly Meter[],
): Promise<Definitions> {
  return withTransaction(pool, async (client) => {
    await confirm(client, own);
    const definitions = await readDefinitions(client, builtin);
    const ids = definitions.meters.slice(builtin.length).map((meter) => meter.id);
    if (ids.length > 0) await client.query(CUT, [ids, own.shard, next]);
    const { rows } = await client.query<{ meter_id: number; cut: number }>(
      'SELECT meter_id, cut::float8 AS cut FROM meter_cuts WHERE shard = $1',
      [own.shard],
    );
    return { ...definitions, cuts: new Map(rows.map((row) => [row.meter_id, row.cut])) };
  });
}

/** Knows, a poll late at most, whether what is counted has changed. */
export class DefinitionWatch {
  /** of the last poll; undefined before it */
  revision: string | undefined;
  readonly #timer: NodeJS.Timeout;
  #polling: Promise<void> = Promise.resolve();

  constructor(pool: Pool, builtin: readonly Meter[], everyMs: number) {
    const poll = async () => {
      try {
        this.revision = (await readDefinitions(pool, builtin)).revision;
      } catch {
        // The database is away: batches fail too, and say so.
      }
    };
    let idle = true;
    this.#timer = setInterval(() => {
      if (!idle) return;
      idle = false;
      this.#polling = poll().then(() => {
        idle = true;
      });
    }, everyMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#polling;
  }
}
