import type { ClientBase, Pool } from 'pg';
import { uuidOf } from '../../schemas/index.ts';
import type { Rollups } from './rollups.ts';
import type { Series } from './row.ts';

/** Groups that were folded, of one meter and tenant. */
export interface Overflow {
  meterId: number;
  /** UUID */
  tenantId: string;
  folded: number;
}

const COUNTS = `
  SELECT k.i::int AS i, count(g.group_key)::int AS groups
  FROM unnest($1::int[], $2::uuid[]) WITH ORDINALITY AS k(meter_id, tenant_id, i)
  LEFT JOIN rollup_groups AS g USING (meter_id, tenant_id) GROUP BY 1`;
const EXISTING = 'SELECT uuid_send(group_key) AS key FROM rollup_groups WHERE group_key = ANY ($1::uuid[])';
const TELL = `
  INSERT INTO meter_overflows AS o (meter_id, tenant_id, shard, folded)
  SELECT k.meter_id, k.tenant_id, $1, k.folded FROM unnest($2::int[], $3::uuid[], $4::bigint[]) AS k(meter_id, tenant_id, folded)
  ON CONFLICT (meter_id, tenant_id, shard) DO UPDATE SET folded = o.folded + excluded.folded, last_at = now()`;

/**
 * Holds the number of groups of a meter and tenant to a limit: what is beyond is counted in one group, `other`. Groups
 * that the database knows stay what they are. Asks the database only about pairs that it does not know, and about
 * those that may be at the limit.
 */
export class CardinalityGuard {
  readonly #limit: number;
  /** at most so many groups are there, by meter and tenant */
  readonly #atMost = new Map<string, number>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * Folds what this batch saw first and what is too much.
   * @param settle waits until what was counted before can be read
   */
  async fold(rollups: Rollups, database: Pool | ClientBase, settle: () => Promise<void>): Promise<Overflow[]> {
    const fresh = rollups.newSeries.filter((one) => one.meter.groupSlots.length > 0 && !one.isOther);
    if (fresh.length === 0) return [];
    const pairs = Map.groupBy(fresh, pairOf);
    await this.#count(
      database,
      [...pairs.keys()].filter((pair) => !this.#atMost.has(pair)),
    );
    const beyond: Series[][] = [];
    for (const [pair, own] of pairs) {
      const groups = (this.#atMost.get(pair) ?? 0) + own.length;
      if (groups > this.#limit) beyond.push(own);
      else this.#atMost.set(pair, groups);
    }
    if (beyond.length === 0) return [];
    await settle();
    // Forgotten groups were counted twice: now it matters how many there are.
    await this.#count(
      database,
      beyond.map((own) => pairOf(own[0] as Series)),
    );
    const known = await existing(database, beyond.flat());
    return beyond.flatMap((own) => this.#admit(rollups, own, known));
  }

  async #count(database: Pool | ClientBase, pairs: readonly string[]): Promise<void> {
    if (pairs.length === 0) return;
    const places = pairs.map(placeOf);
    const { rows } = await database.query<{ i: number; groups: number }>(COUNTS, [
      places.map((place) => place.meterId),
      places.map((place) => place.tenantId),
    ]);
    for (const { i, groups } of rows) this.#atMost.set(pairs[i - 1] ?? '', groups);
  }

  #admit(rollups: Rollups, series: readonly Series[], known: ReadonlySet<string>): Overflow[] {
    const [first] = series;
    if (first === undefined) return [];
    const pair = pairOf(first);
    const before = this.#atMost.get(pair) ?? 0;
    const unknown = series.filter((one) => !known.has(hexOf(one.groupKey)));
    const admitted = Math.max(0, this.#limit - before);
    this.#atMost.set(pair, before + Math.min(admitted, unknown.length));
    const folded = unknown.slice(admitted);
    if (folded.length === 0) return [];
    rollups.foldIntoOther(folded);
    return [{ ...placeOf(pair), folded: folded.length }];
  }
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');
const pairOf = (series: Series): string => `${series.meter.meter.id} ${uuidOf(series.tenantId)}`;
function placeOf(pair: string): { meterId: number; tenantId: string } {
  const [meterId, tenantId = ''] = pair.split(' ', 2);
  return { meterId: Number(meterId), tenantId };
}

async function existing(database: Pool | ClientBase, series: readonly Series[]): Promise<Set<string>> {
  const { rows } = await database.query<{ key: Buffer }>(EXISTING, [series.map((one) => uuidOf(one.groupKey))]);
  return new Set(rows.map((row) => row.key.toString('hex')));
}

/** Notes whose groups were folded, within the batch's transaction. */
export async function writeOverflows(client: ClientBase, shard: number, overflows: readonly Overflow[]): Promise<void> {
  if (overflows.length === 0) return;
  await client.query(TELL, [
    shard,
    overflows.map((one) => one.meterId),
    overflows.map((one) => one.tenantId),
    overflows.map((one) => one.folded),
  ]);
}
