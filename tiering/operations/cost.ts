import { readFileSync } from 'node:fs';
import { TIME_TABLES } from '../../schemas/index.ts';
import { daysWithFiles } from '../archive/day-state.ts';
import { dayOfKey, EVENTS_PREFIX } from '../layout.ts';
import { scaled, unscaled } from '../manifest.ts';
import type { TieringDeps } from '../ports.ts';

interface Prices {
  currency: string;
  /** decimal literals, per 10^9 bytes and month */
  perGbMonth: Record<string, string>;
}
const PRICES: Prices = JSON.parse(readFileSync(new URL('./prices.json', import.meta.url), 'utf8'));
const GB = 1_000_000_000n;

export interface CostLine {
  /** hot, or the store's class */
  tier: string;
  bytes: number;
  rows: number;
  /** decimal literal, a month */
  cost: string;
}

export interface CostView {
  currency: string;
  tiers: CostLine[];
  /** what files hold, shared out by rows */
  tenants: { tenant_id: string; customer_id: string; rows: number; bytes: number; cost: string }[];
  /** a month, everything */
  total: string;
  /** a month, if the archive stood in the database as the hot days do */
  if_all_hot: string | null;
}

/** Bytes and monthly price by tier, and of the archive by tenant. */
export async function costView(deps: TieringDeps): Promise<CostView> {
  const { pool, engine, store } = deps;
  const chunks = await engine.listChunks(pool, TIME_TABLES.events);
  const { rows: estimate } = await pool.query<{ rows: number }>(
    'SELECT coalesce(sum(greatest(reltuples, 0)), 0)::float8 AS rows FROM pg_class WHERE relname = ANY ($1::text[])',
    [chunks.map((chunk) => chunk.name)],
  );
  const hotBytes = chunks.reduce((sum, chunk) => sum + chunk.bytes, 0);
  const hotRows = Math.round(estimate[0]?.rows ?? 0);
  const classes = new Map<string, string>();
  for await (const object of store.list(EVENTS_PREFIX))
    if (dayOfKey(object.key) !== undefined) classes.set(object.key, object.storageClass);
  const tiers = new Map<string, { bytes: number; rows: number }>([['hot', { bytes: hotBytes, rows: hotRows }]]);
  const tenants = new Map<string, { customer_id: string; rows: number; bytes: number; cost: bigint }>();
  for (const { current } of await daysWithFiles(pool, '0001-01-01', '9999-12-31')) {
    if (current === undefined || current.manifest.rows === 0) continue;
    const { manifest } = current;
    let cost = 0n;
    for (const file of manifest.files) {
      const tier = classes.get(file.key) ?? 'STANDARD';
      const known = tiers.get(tier) ?? { bytes: 0, rows: 0 };
      tiers.set(tier, { bytes: known.bytes + file.bytes, rows: known.rows + file.rows });
      cost += priceOf(tier, file.bytes);
    }
    for (const [id, { customer_id, rows }] of Object.entries(manifest.tenants)) {
      const known = tenants.get(id) ?? { customer_id, rows: 0, bytes: 0, cost: 0n };
      tenants.set(id, {
        customer_id,
        rows: known.rows + rows,
        bytes: known.bytes + Math.round((manifest.bytes * rows) / manifest.rows),
        cost: known.cost + (cost * BigInt(rows)) / BigInt(manifest.rows),
      });
    }
  }
  const lines = [...tiers].map(([tier, { bytes, rows }]) => ({ tier, bytes, rows, price: priceOf(tier, bytes) }));
  const archivedRows = lines.reduce((sum, line) => (line.tier === 'hot' ? sum : sum + line.rows), 0);
  return {
    currency: PRICES.currency,
    tiers: lines.map(({ tier, bytes, rows, price }) => ({ tier, bytes, rows, cost: money(price) })),
    tenants: [...tenants]
      .map(([id, { cost, ...rest }]) => ({ tenant_id: id, ...rest, cost: money(cost) }))
      .sort((a, b) => b.bytes - a.bytes),
    total: money(lines.reduce((sum, line) => sum + line.price, 0n)),
    if_all_hot: hotRows > 0 ? money(priceOf('hot', hotBytes + Math.round((hotBytes / hotRows) * archivedRows))) : null,
  };
}

/** In units of 10^-18 of the currency. */
const priceOf = (tier: string, bytes: number): bigint =>
  (scaled(PRICES.perGbMonth[tier] ?? PRICES.perGbMonth.STANDARD ?? '0') * BigInt(bytes)) / GB;

/** To a millionth: a small archive costs less than a cent. */
const money = (value: bigint): string => unscaled((value / 10n ** 12n) * 10n ** 12n);
