import type { ClientBase, Pool } from 'pg';
import { Fenced, Forgotten } from './ports.ts';

/** Bumps the epoch: from here on former owners can't commit. */
const ACQUIRE = `
  INSERT INTO log_offsets (topic, partition, epoch) VALUES ($1, $2, 1)
  ON CONFLICT (topic, partition) DO UPDATE SET epoch = log_offsets.epoch + 1
  RETURNING shard, next::float8 AS next, epoch::text AS epoch, generation::text AS generation,
    CASE WHEN isfinite(watermark) THEN (extract(epoch FROM watermark) * 1000)::float8 ELSE '-infinity'::float8 END AS watermark,
    CASE WHEN isfinite(folded_until) THEN (extract(epoch FROM folded_until) * 1000)::float8 ELSE '-infinity'::float8 END AS folded_until,
    CASE WHEN isfinite(coarse_until) THEN (extract(epoch FROM coarse_until) * 1000)::float8 ELSE '-infinity'::float8 END AS coarse_until`;

const ADVANCE = `
  UPDATE log_offsets SET next = $4, watermark = greatest(watermark, $5::timestamptz), committed_at = clock_timestamp()
  WHERE topic = $1 AND partition = $2 AND next = $3 AND epoch = $6
  RETURNING generation::text AS generation`;

const FOLD = `
  UPDATE log_offsets SET folded_until = $3
  WHERE topic = $1 AND partition = $2 AND epoch = $4
  RETURNING generation::text AS generation`;

const COARSE = `
  UPDATE log_offsets SET coarse_until = $3
  WHERE topic = $1 AND partition = $2 AND epoch = $4`;

/** What a new owner finds. Times are Unix ms, -Infinity where there is none yet. */
export interface Ownership {
  topic: string;
  partition: number;
  shard: number;
  next: number;
  epoch: string;
  /** raised when what an owner holds in memory is taken away */
  generation: string;
  watermark: number;
  foldedUntil: number;
  coarseUntil: number;
}

export async function acquire(pool: Pool, topic: string, partition: number): Promise<Ownership> {
  const { rows } = await pool.query<{
    shard: number;
    next: number;
    epoch: string;
    generation: string;
    watermark: number;
    folded_until: number;
    coarse_until: number;
  }>(ACQUIRE, [topic, partition]);
  const row = rows[0];
  if (row === undefined) throw new Error('log_offsets returned no row');
  const { shard, next, epoch, generation, watermark, folded_until: foldedUntil, coarse_until: coarseUntil } = row;
  return { topic, partition, shard, next, epoch, generation, watermark, foldedUntil, coarseUntil };
}

/**
 * Moves the commit point from `from` to `to`; first statement of every batch.
 * @param watermark latest event time of the batch (Unix ms), -Infinity for none
 * @throws {Fenced} another owner has taken over
 * @throws {Forgotten} start over from the database
 */
export async function advance(
  client: ClientBase,
  own: Ownership,
  from: number,
  to: number,
  watermark: number,
): Promise<void> {
  const { rows } = await client.query<{ generation: string }>({
    name: 'advance',
    text: ADVANCE,
    values: [
      own.topic,
      own.partition,
      from,
      to,
      Number.isFinite(watermark) ? new Date(watermark) : '-infinity',
      own.epoch,
    ],
  });
  check(own, rows[0]);
}

/** Marks hours before `until` as folded; the same fence. @throws {Fenced} | {Forgotten} */
export async function advanceFold(client: ClientBase, own: Ownership, until: number): Promise<void> {
  const { rows } = await client.query<{ generation: string }>(FOLD, [
    own.topic,
    own.partition,
    new Date(until),
    own.epoch,
  ]);
  check(own, rows[0]);
}

/** Still the owner, and nothing it holds in memory was taken away? */
function check(own: Ownership, row: { generation: string } | undefined): void {
  if (row === undefined)
    throw new Fenced(`partition ${own.partition} of ${own.topic} has another owner than epoch ${own.epoch}`);
  if (row.generation !== own.generation)
    throw new Forgotten(`what partition ${own.partition} of ${own.topic} holds in memory was taken away`);
}

/** Marks hours before `until` as having coarse rows; the same fence. @throws {Fenced} */
export async function advanceCoarse(client: ClientBase, own: Ownership, until: number): Promise<void> {
  const { rowCount } = await client.query(COARSE, [own.topic, own.partition, new Date(until), own.epoch]);
  if (rowCount !== 1)
    throw new Fenced(`partition ${own.partition} of ${own.topic} has another owner than epoch ${own.epoch}`);
}

/** Makes sure that this owner still is the owner, for maintenance transactions; locks the row. @throws {Fenced} */
export async function confirm(client: ClientBase, own: Ownership): Promise<void> {
  const { rowCount } = await client.query(
    'SELECT 1 FROM log_offsets WHERE topic = $1 AND partition = $2 AND epoch = $3 FOR UPDATE',
    [own.topic, own.partition, own.epoch],
  );
  if (rowCount !== 1)
    throw new Fenced(`partition ${own.partition} of ${own.topic} has another owner than epoch ${own.epoch}`);
}
