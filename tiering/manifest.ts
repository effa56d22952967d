import { createHash } from 'node:crypto';
import { TidemarkError } from '../schemas/index.ts';
import { type Day, SCHEMA_VERSION } from './layout.ts';

/** Up to which record of a partition of the log a day's events are in these files. */
export interface LogPosition {
  topic: string;
  partition: number;
  shard: number;
  /** first offset that is not */
  next: number;
}

export interface TenantTotals {
  customer_id: string;
  rows: number;
  /** decimal literals: sums over `data` */
  tokens_consumed: string;
  duration_ms: string;
}

export interface ManifestFile {
  key: string;
  rows: number;
  bytes: number;
  /** of the file, hex */
  sha256: string;
  /** of the manifest that first had it */
  generation: number;
  /** of `timestamp`, Unix ms, both inclusive */
  first: number;
  last: number;
  /** the log that `log_partition` and `log_offset` belong to */
  topic: string;
  /** false: `source` is no part of these events' idempotency keys */
  source_in_key: boolean;
}

/** What a day's archive is, and what it must add up to. */
export interface Manifest {
  manifest_version: 1;
  schema_version: number;
  /** identity of the database that wrote it, UUID */
  database: string;
  day: Day;
  /** counts the manifests of this day */
  generation: number;
  /** SHA-256 of the one before, hex; null for the first */
  previous: string | null;
  written_at: string;
  rows: number;
  bytes: number;
  first: number | null;
  last: number | null;
  files: ManifestFile[];
  /** by tenant's UUID */
  tenants: Record<string, TenantTotals>;
  positions: LogPosition[];
}

/** A manifest and the text that stands for it. */
export interface SignedManifest {
  manifest: Manifest;
  text: string;
  sha256: string;
}

export const sha256 = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex');

export function sign(manifest: Manifest): SignedManifest {
  const text = `${JSON.stringify(manifest, null, 1)}\n`;
  return { manifest, text, sha256: sha256(text) };
}

/** @throws TidemarkError `archive_damaged` */
export function parseManifest(text: string, day: Day): SignedManifest {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new TidemarkError('archive_damaged', `the manifest of ${day} is no JSON`);
  }
  if (manifest.manifest_version !== 1 || manifest.day !== day || !Array.isArray(manifest.files))
    throw new TidemarkError('archive_damaged', `the manifest of ${day} is of another day or version`);
  return { manifest, text, sha256: sha256(text) };
}

export const emptyManifest = (day: Day): Manifest => ({
  manifest_version: 1,
  schema_version: SCHEMA_VERSION,
  database: '',
  day,
  generation: 0,
  previous: null,
  written_at: new Date(0).toISOString(),
  rows: 0,
  bytes: 0,
  first: null,
  last: null,
  files: [],
  tenants: {},
  positions: [],
});

const SCALE = 18;
const UNIT = 10n ** BigInt(SCALE);

/** A decimal literal in units of 10^-18. */
export function scaled(literalText: string): bigint {
  const match = /^(-?)(\d+)(?:\.(\d{1,18}))?$/.exec(literalText);
  if (match === null) throw new TidemarkError('archive_damaged', `not a decimal: ${literalText}`);
  const [, sign = '', whole = '0', rest = ''] = match;
  const value = BigInt(whole) * UNIT + BigInt(rest.padEnd(SCALE, '0'));
  return sign === '-' ? -value : value;
}

/** The other way, without zeros at the end. */
export function unscaled(value: bigint): string {
  const digits = (value < 0n ? -value : value).toString().padStart(SCALE + 1, '0');
  const rest = digits.slice(-SCALE).replace(/0+$/, '');
  return `${value < 0n ? '-' : ''}${digits.slice(0, -SCALE)}${rest === '' ? '' : `.${rest}`}`;
}

/** `a` + `sign` · `b` by tenant; who has no rows left is left out. */
export function addTenants(
  a: Readonly<Record<string, TenantTotals>>,
  b: Readonly<Record<string, TenantTotals>>,
  sign: 1 | -1 = 1,
): Record<string, TenantTotals> {
  const sum: Record<string, TenantTotals> = { ...a };
  const add = (x: string | undefined, y: string) => unscaled(scaled(x ?? '0') + BigInt(sign) * scaled(y));
  for (const [id, more] of Object.entries(b)) {
    const known = sum[id];
    sum[id] = {
      customer_id: more.customer_id,
      rows: (known?.rows ?? 0) + sign * more.rows,
      tokens_consumed: add(known?.tokens_consumed, more.tokens_consumed),
      duration_ms: add(known?.duration_ms, more.duration_ms),
    };
  }
  return Object.fromEntries(Object.entries(sum).filter(([, { rows }]) => rows !== 0));
}
