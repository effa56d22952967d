import type pg from 'pg';
import type { Meter, MeterCatalogue, MeterDefinition, MeterEntry } from '../../schemas/index.ts';

const SELECT = `
  SELECT m.key, m.slug, m.tenant_id, m.name, m.description, m.metadata, m.created_at, m.updated_at,
    v.id, v.definition, v.complete_at IS NOT NULL AS complete,
    ARRAY(SELECT DISTINCT g.day::text FROM meter_gaps AS g WHERE g.meter_id = v.id ORDER BY 1) AS missing_days, n.id AS next_id, n.definition AS next_definition
  FROM meters AS m
  JOIN meter_versions AS v ON v.meter = m.key AND v.state = 'serving'
  LEFT JOIN meter_versions AS n ON n.meter = m.key AND n.state = 'next'
  WHERE m.deleted_at IS NULL ORDER BY m.slug`;

interface MeterRow {
  key: string;
  slug: string;
  tenant_id: string | null;
  name: string;
  description: string;
  metadata: Record<string, string> | null;
  created_at: Date;
  updated_at: Date;
  id: number;
  definition: MeterDefinition;
  complete: boolean;
  missing_days: string[];
  next_id: number | null;
  next_definition: MeterDefinition | null;
}

const BUILT_IN_SINCE = new Date('2026-01-01T00:00:00Z');

/** The defined meters as they stand in the database now. */
export async function readMeters(database: pg.Pool | pg.ClientBase): Promise<MeterEntry[]> {
  const { rows } = await database.query<MeterRow>({ name: 'read_meters', text: SELECT });
  return rows.map(toEntry);
}

function toEntry(row: MeterRow): MeterEntry {
  const version = (id: number, definition: MeterDefinition): Meter => ({
    ...definition,
    id,
    slug: row.slug,
    name: row.name,
    description: row.description,
    ...(row.tenant_id === null ? {} : { tenantId: row.tenant_id }),
  });
  return {
    meter: version(row.id, row.definition),
    next: row.next_id === null || row.next_definition === null ? null : version(row.next_id, row.next_definition),
    key: row.key,
    builtin: false,
    complete: row.complete,
    missingDays: row.missing_days,
    metadata: row.metadata,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/**
 * The catalogue of built-in and defined meters, cached for `ttlMs`.
 * @param builtin come first; their slugs are taken
 */
export function openMeterCatalogue(
  pool: pg.Pool,
  builtin: readonly Meter[],
  { ttlMs = 1_000, now = Date.now } = {},
): MeterCatalogue {
  const own: MeterEntry[] = builtin.map((meter) => ({
    meter,
    next: null,
    key: meter.slug,
    builtin: true,
    complete: true,
    missingDays: [],
    metadata: null,
    createdAt: BUILT_IN_SINCE,
    updatedAt: BUILT_IN_SINCE,
  }));
  let cached: { until: number; entries: Promise<readonly MeterEntry[]> } | undefined;

  const list = (): Promise<readonly MeterEntry[]> => {
    if (cached !== undefined && cached.until > now()) return cached.entries;
    const entries = readMeters(pool).then((defined) => [...own, ...defined]);
    const mine = { until: now() + ttlMs, entries };
    cached = mine;
    entries.catch(() => {
      if (cached === mine) cached = undefined;
    });
    return entries;
  };
  return {
    list,
    find: async (reference) => {
      const known = own.find((entry) => entry.meter.slug === reference);
      if (known !== undefined) return known;
      return (await list()).find((entry) => entry.meter.slug === reference || entry.key === reference);
    },
    forget: () => {
      cached = undefined;
    },
  };
}
