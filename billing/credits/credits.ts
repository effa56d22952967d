import { TidemarkError } from '../../schemas/index.ts';
import { Exact, minorUnitOf, readDecimal, show, ZERO } from '../rating/index.ts';
import type { Queryable } from '../usage/ports.ts';

/** Prepaid credit, and what is left of it. */
export interface Grant {
  id: number;
  tenantId: string;
  currency: string;
  amount: string;
  left: Exact;
  note: string | null;
  grantedAt: Date;
  expiresAt: Date | null;
}

/** Credit that a statement burns. */
export interface Burn {
  grant: number;
  amount: string;
}

interface Row {
  id: number;
  tenant_id: string;
  currency: string;
  amount: string;
  burnt: string;
  note: string | null;
  granted_at: Date;
  expires_at: Date | null;
}

/** What expires first is burnt first, then what was granted first. */
const GRANTS = `
  SELECT g.id::float8 AS id, g.tenant_id, g.currency, g.amount::text AS amount, g.note, g.granted_at, g.expires_at,
    coalesce((SELECT sum(b.amount) FROM credit_burns AS b WHERE b.grant_id = g.id), 0)::text AS burnt
  FROM credit_grants AS g WHERE g.tenant_id = ANY ($1::uuid[]) ORDER BY g.expires_at NULLS LAST, g.granted_at, g.id`;

export async function loadGrants(database: Queryable, tenantIds: readonly string[]): Promise<Grant[]> {
  const { rows } = await database.query<Row>(GRANTS, [tenantIds]);
  return rows.map((row) => ({
    id: row.id,
    tenantId: row.tenant_id,
    currency: row.currency,
    amount: new Exact(row.amount).toFixed(minorUnitOf(row.currency)),
    left: new Exact(row.amount).minus(row.burnt),
    note: row.note,
    grantedAt: row.granted_at,
    expiresAt: row.expires_at,
  }));
}

/** @throws TidemarkError `invalid_currency` | `invalid_body` when the amount is no positive amount of minor units */
export async function grantCredit(
  database: Queryable,
  wanted: { tenantId: string; currency: string; amount: unknown; note: string | null; expiresAt: number | null },
): Promise<Grant> {
  const decimals = minorUnitOf(wanted.currency);
  const amount = readDecimal(wanted.amount);
  if (amount === undefined || !amount.gt(0) || amount.decimalPlaces() > decimals)
    throw new TidemarkError('invalid_body', `amount must be more than 0, with at most ${decimals} decimals`, {
      extensions: { field: 'amount' },
    });
  const { rows } = await database.query<{ id: number }>(
    'INSERT INTO credit_grants (tenant_id, currency, amount, note, expires_at) VALUES ($1, $2, $3, $4, $5) RETURNING id::float8 AS id',
    [
      wanted.tenantId,
      wanted.currency,
      show(amount),
      wanted.note,
      wanted.expiresAt === null ? null : new Date(wanted.expiresAt).toISOString(),
    ],
  );
  const made = (await loadGrants(database, [wanted.tenantId])).find((grant) => grant.id === rows[0]?.id);
  if (made === undefined) throw new Error('the grant is gone');
  return made;
}

/** What a statement asks credit for. */
export interface Payable {
  tenantId: string;
  currency: string;
  total: Exact;
  /** Unix ms; a grant that expired before is not touched */
  periodFrom: number;
}

/** Burns what a total needs, from the first grant on; `left` of the grants goes down. */
export function burn(grants: readonly Grant[], { tenantId, currency, total, periodFrom }: Payable): Burn[] {
  let due = total;
  const burns: Burn[] = [];
  for (const grant of grants) {
    if (!due.gt(0)) break;
    if (grant.tenantId !== tenantId || grant.currency !== currency || !grant.left.gt(0)) continue;
    if (grant.expiresAt !== null && grant.expiresAt.getTime() <= periodFrom) continue;
    const taken = Exact.min(due, grant.left);
    grant.left = grant.left.minus(taken);
    due = due.minus(taken);
    burns.push({ grant: grant.id, amount: taken.toFixed(minorUnitOf(currency)) });
  }
  return burns;
}

export const burntOf = (burns: readonly Burn[]): Exact => burns.reduce((sum, one) => sum.plus(one.amount), ZERO);
