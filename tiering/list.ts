import { isFrozen, type ObjectStore, type StoredObject } from '../sinks/index.ts';
import { daysWithFiles } from './archive/day-state.ts';
import { type Day, dayOfKey, EVENTS_PREFIX, prefixOf } from './layout.ts';
import type { ManifestFile } from './manifest.ts';
import type { TieringDeps } from './ports.ts';

export const TIERS = ['warm', 'cold', 'restoring', 'restored'] as const;
/** warm: readable at once; cold: in Glacier; restoring: a copy is on its way; restored: it is there for some days. */
export type Tier = (typeof TIERS)[number];

export interface ArchivedDay {
  day: Day;
  tier: Tier;
  rows: number;
  bytes: number;
  manifest_sha256: string;
  verified_at: string | null;
  /** set while its rows are back in the database, and readers find them there */
  recalled_until: string | null;
  files: { key: string; rows: number; bytes: number; sha256: string }[];
}

const EARLIEST = '0001-01-01';
const LATEST = '9999-12-31';

/** Days in the archive, newest first, from the database; where their files are, from the store. */
export async function listDays(
  { pool, store }: Pick<TieringDeps, 'pool' | 'store'>,
  { from = EARLIEST, to = LATEST }: { from?: Day; to?: Day } = {},
): Promise<ArchivedDay[]> {
  const days = await daysWithFiles(pool, from, to);
  if (days.length === 0) return [];
  const { rows } = await pool.query<{ day: Day; verified_at: Date | null }>(
    'SELECT day::text AS day, verified_at FROM archive_days WHERE day BETWEEN $1 AND $2',
    [from, to],
  );
  const verified = new Map(rows.map((row) => [row.day, row.verified_at?.toISOString() ?? null]));
  const objects = await objectsOf(store, days.length === 1 ? prefixOf(days[0]?.day ?? '') : EVENTS_PREFIX);
  return days.flatMap(({ day, current, recalled }) => {
    if (current === undefined) return [];
    const { manifest, sha256 } = current;
    return [
      {
        day,
        tier: tierOf(manifest.files, objects),
        rows: manifest.rows,
        bytes: manifest.bytes,
        manifest_sha256: sha256,
        verified_at: verified.get(day) ?? null,
        recalled_until: recalled === undefined ? null : new Date(recalled.until).toISOString(),
        files: manifest.files.map(({ key, rows: count, bytes, sha256: hash }) => ({
          key,
          rows: count,
          bytes,
          sha256: hash,
        })),
      },
    ];
  });
}

/** By key; what is in a cold class is looked at closer, for a copy that may be there. */
async function objectsOf(store: ObjectStore, prefix: string): Promise<Map<string, StoredObject>> {
  const found = new Map<string, StoredObject>();
  for await (const object of store.list(prefix)) {
    if (dayOfKey(object.key) === undefined) continue;
    found.set(object.key, isFrozen(object) ? ((await store.head(object.key)) ?? object) : object);
  }
  return found;
}

/** The coldest of its files says it. */
export function tierOf(files: readonly ManifestFile[], objects: ReadonlyMap<string, StoredObject>): Tier {
  const own = files.flatMap((file) => objects.get(file.key) ?? []);
  const frozen = own.filter(isFrozen);
  if (frozen.some((object) => object.restore !== 'ongoing')) return 'cold';
  if (frozen.length > 0) return 'restoring';
  return own.some((object) => object.restore === 'done') ? 'restored' : 'warm';
}
