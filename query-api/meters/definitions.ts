import { isDeepStrictEqual } from 'node:util';
import type { ClientBase, Pool } from 'pg';
import { type MeterDefinition, type MeterEntry, TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';

/** A checked new meter. */
export interface NewMeter {
  slug: string;
  tenantId: string | null;
  name: string;
  description: string;
  metadata: Readonly<Record<string, string>> | null;
  definition: MeterDefinition;
}

/** What may change; undefined leaves it. */
export interface MeterChange {
  name: string | undefined;
  description: string | undefined;
  metadata: Readonly<Record<string, string>> | null | undefined;
  definition: MeterDefinition;
}

const UNIQUE_VIOLATION = '23505';

/** @returns its key @throws TidemarkError `slug_in_use` */
export async function createMeter(pool: Pool, meter: NewMeter): Promise<string> {
  try {
    return await withTransaction(pool, async (client) => {
      const { rows } = await client.query<{ key: string }>(
        'INSERT INTO meters (slug, tenant_id, name, description, metadata) VALUES ($1, $2, $3, $4, $5) RETURNING key',
        [meter.slug, meter.tenantId, meter.name, meter.description, meter.metadata],
      );
      const key = rows[0]?.key ?? '';
      await addVersion(client, key, 'serving', meter.definition);
      return key;
    });
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === UNIQUE_VIOLATION)
      throw new TidemarkError('slug_in_use', `there is a meter ${meter.slug} already`);
    throw error;
  }
}

/**
 * Changes a meter. Other dimensions make a new version, which takes over when it has counted the past; so does
 * another meaning, as long as nothing was counted.
 * @throws TidemarkError `meter_in_use`
 */
export async function changeMeter(pool: Pool, entry: MeterEntry, change: MeterChange): Promise<void> {
  await withTransaction(pool, async (client) => {
    // Two changes at once follow one another.
    await client.query('SELECT FROM meters WHERE key = $1 FOR UPDATE', [entry.key]);
    await client.query(
      `UPDATE meters SET name = coalesce($2, name), description = coalesce($3, description),
         metadata = CASE WHEN $4 THEN $5::jsonb ELSE metadata END, updated_at = now() WHERE key = $1`,
      [entry.key, change.name, change.description, change.metadata !== undefined, change.metadata ?? null],
    );
    const { rows } = await client.query<{ id: number; state: 'serving' | 'next'; definition: MeterDefinition }>(
      `SELECT id, state, definition FROM meter_versions WHERE meter = $1 AND state IN ('serving', 'next')`,
      [entry.key],
    );
    const serving = rows.find((row) => row.state === 'serving');
    const newest = rows.find((row) => row.state === 'next') ?? serving;
    if (serving === undefined || isDeepStrictEqual(newest?.definition, change.definition)) return;
    if (!isDeepStrictEqual(meaningOf(serving.definition), meaningOf(change.definition)))
      await refuseWhereCounted(client, serving.id, entry.meter.slug);
    await client.query(
      `UPDATE meter_versions SET state = 'retired', retired_at = now() WHERE meter = $1 AND state = 'next'`,
      [entry.key],
    );
    if (!isDeepStrictEqual(serving.definition, change.definition))
      await addVersion(client, entry.key, 'next', change.definition);
  });
}

/** Everything but the dimensions. Round trips through JSON lose no member: all are plain. */
function meaningOf({ groupBy, groupByProperties, ...meaning }: MeterDefinition): object {
  return meaning;
}

async function refuseWhereCounted(client: ClientBase, id: number, slug: string): Promise<void> {
  const { rowCount } = await client.query('SELECT FROM rollup_groups WHERE meter_id = $1 LIMIT 1', [id]);
  if (rowCount !== 0)
    throw new TidemarkError('meter_in_use', `${slug} has counted events: only its names and groupBy may change`);
}

/** It counts no more; the backfill job removes what it has counted. */
export async function deleteMeter(pool: Pool, key: string): Promise<void> {
  await withTransaction(pool, async (client) => {
    await client.query('UPDATE meters SET deleted_at = now() WHERE key = $1', [key]);
    await client.query(
      `UPDATE meter_versions SET state = 'retired', retired_at = now() WHERE meter = $1 AND state IN ('serving', 'next')`,
      [key],
    );
  });
}

async function addVersion(
  client: ClientBase,
  meter: string,
  state: 'serving' | 'next',
  definition: MeterDefinition,
): Promise<void> {
  await client.query('INSERT INTO meter_versions (meter, state, definition) VALUES ($1, $2, $3)', [
    meter,
    state,
    definition,
  ]);
}
