import { type Meter, TidemarkError } from '../../schemas/index.ts';
import { EXACT_AGGREGATIONS } from '../../sinks/index.ts';
import { type CheckedCharge, checkCharges, minorUnitOf } from '../rating/index.ts';
import { INTERVALS, type Interval } from '../subscriptions/periods.ts';
import type { Queryable } from '../usage/ports.ts';

/** One version of a plan. */
export interface Plan {
  key: string;
  version: number;
  name: string;
  currency: string;
  interval: Interval;
  charges: readonly CheckedCharge[];
  createdAt: Date;
}

export interface NewPlan {
  key: string;
  name: string;
  currency: string;
  interval: string;
  charges: unknown;
}

interface PlanRow {
  key: string;
  version: number;
  name: string;
  currency: string;
  interval: Interval;
  charges: unknown;
  created_at: Date;
}
const COLUMNS = 'key, version, name, currency, interval, charges, created_at';
const BY_WORD: Record<string, Interval> = { monthly: 'month', quarterly: 'quarter', yearly: 'year', annual: 'year' };

/**
 * Makes a plan, or its next version where the key exists and the prices differ.
 * @param findMeter by slug; the meters of charges must exist
 * @throws TidemarkError `invalid_charge` | `invalid_currency` | `invalid_body` | `unknown_meter` | `unknown_group` | `unbillable_meter`
 */
export async function createPlan(
  database: Queryable,
  findMeter: (slug: string) => Promise<Meter | undefined>,
  plan: NewPlan,
): Promise<Plan> {
  minorUnitOf(plan.currency);
  const interval = INTERVALS.find((one) => one === plan.interval) ?? BY_WORD[plan.interval];
  if (interval === undefined)
    throw new TidemarkError('invalid_body', `interval must be one of ${INTERVALS.join(', ')}`, {
      extensions: { field: 'interval' },
    });
  const charges = checkCharges(plan.charges);
  for (const [i, charge] of charges.entries()) await checkMeter(findMeter, charge, `charges[${i}]`);
  // Two at once would take the same version: the second one asks again.
  for (;;) {
    const { rows } = await database.query<PlanRow>(
      `WITH last AS (SELECT ${COLUMNS} FROM plans WHERE key = $1 ORDER BY version DESC LIMIT 1),
        same AS (SELECT * FROM last WHERE name = $2 AND currency = $3 AND interval = $4 AND charges = $5::jsonb),
        made AS (INSERT INTO plans (key, version, name, currency, interval, charges)
          SELECT $1, coalesce((SELECT version FROM last), 0) + 1, $2, $3, $4, $5::jsonb WHERE NOT EXISTS (SELECT FROM same)
          ON CONFLICT DO NOTHING RETURNING ${COLUMNS})
      SELECT * FROM same UNION ALL SELECT * FROM made`,
      [plan.key, plan.name, plan.currency, interval, JSON.stringify(charges.map((one) => one.charge))],
    );
    if (rows[0] !== undefined) return toPlan(rows[0]);
  }
}

async function checkMeter(
  findMeter: (slug: string) => Promise<Meter | undefined>,
  { charge, model }: CheckedCharge,
  place: string,
): Promise<void> {
  if (model.model === 'flat' || charge.meter === undefined) return;
  const meter = await findMeter(charge.meter);
  const at = (field: string) => ({ extensions: { field: `${place}.${field}` } });
  if (meter === undefined)
    throw new TidemarkError('unknown_meter', `${place}.meter: there is no meter ${charge.meter}`, at('meter'));
  if (!isBillable(meter, model.model === 'percentage'))
    throw new TidemarkError(
      'unbillable_meter',
      `${place}.meter: ${meter.slug} is a ${meter.aggregation}${model.model === 'percentage' ? '; a percentage needs a COUNT or SUM' : ''}`,
      at('meter'),
    );
  for (const [field, names] of [
    ['filters', Object.keys(charge.filters ?? {})],
    ['group_by', charge.group_by ?? []],
  ] as const)
    for (const name of names)
      if (!meter.groupBy.includes(name))
        throw new TidemarkError(
          'unknown_group',
          `${place}.${field}: ${meter.slug} has no group-by "${name}"`,
          at(field),
        );
}

const isBillable = ({ aggregation }: Meter, byEvents: boolean): boolean =>
  byEvents ? aggregation === 'COUNT' || aggregation === 'SUM' : EXACT_AGGREGATIONS.includes(aggregation);

/** A plan by `key` (its latest version) or `key@version`. */
export async function findPlan(database: Queryable, reference: string): Promise<Plan | undefined> {
  const [, key = reference, version] = /^(.+)@(\d{1,9})$/.exec(reference) ?? [];
  const { rows } = await database.query<PlanRow>(
    `SELECT ${COLUMNS} FROM plans WHERE key = $1 AND ($2::int IS NULL OR version = $2) ORDER BY version DESC LIMIT 1`,
    [key, version ?? null],
  );
  return rows[0] === undefined ? undefined : toPlan(rows[0]);
}

/** Latest versions by key, after `after`; or every version of one plan. */
export async function listPlans(
  database: Queryable,
  page: { after: string; limit: number } | { key: string },
): Promise<Plan[]> {
  const { rows } =
    'key' in page
      ? await database.query<PlanRow>(`SELECT ${COLUMNS} FROM plans WHERE key = $1 ORDER BY version DESC`, [page.key])
      : await database.query<PlanRow>(
          `SELECT DISTINCT ON (key) ${COLUMNS} FROM plans WHERE key > $1 ORDER BY key, version DESC LIMIT $2`,
          [page.after, page.limit],
        );
  return rows.map(toPlan);
}

/** Several exact versions, by `key@version`. */
export async function loadPlans(
  database: Queryable,
  wanted: readonly { key: string; version: number }[],
): Promise<Map<string, Plan>> {
  const { rows } = await database.query<PlanRow>(
    `SELECT ${COLUMNS} FROM plans WHERE (key, version) IN (SELECT * FROM unnest($1::text[], $2::int[]))`,
    [wanted.map((one) => one.key), wanted.map((one) => one.version)],
  );
  return new Map(rows.map((row) => [`${row.key}@${row.version}`, toPlan(row)]));
}

function toPlan(row: PlanRow): Plan {
  const { created_at: createdAt, charges, ...rest } = row;
  return { ...rest, charges: checkCharges(charges), createdAt };
}
