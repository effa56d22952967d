import { TidemarkError } from '../../schemas/index.ts';
import type { CheckedCharge, Model } from './charge.ts';
import { minorUnitOf } from './currencies.ts';
import { Exact, type Fraction, prorate, show, ZERO } from './decimals.ts';
import { type Priced, priceOf } from './models.ts';

/** Values of a charge's group_by. */
export type Group = Readonly<Record<string, string | null>>;

/** What a meter counted for a charge in a period. */
export interface Usage {
  quantity: Exact;
  /** how many events; for a percentage's fixed fee */
  events: Exact;
  /** values of the charge's group_by */
  group?: Group;
}

/** One line of a bill. Every number is a decimal string; `amount` has the currency's decimals, the others are exact. */
export type Line = {
  charge: string;
  name?: string;
  meter: string | null;
  model: Model;
  group?: Group;
  /** as metered */
  quantity: string;
  events?: string;
  /** of `included`, what was used up */
  included?: string;
  /** what the model prices */
  billable: string;
  /** part of the period that fixed amounts are charged for */
  proration?: Fraction;
  /** amount after each rule that changed it, in their order */
  steps: Step[];
  amount: string;
} & Priced['shown'];

export interface Step {
  rule: 'model' | 'proration' | 'discount_amount' | 'discount_percent' | 'minimum' | 'maximum' | 'rounding';
  /** what the plan says, prorated */
  given?: string;
  amount: string;
}

/** Decimals of an allowance that is given for a part of a period: units, not money. */
const ALLOWANCE = 6;
/** Decimals to which a prorated figure is shown; it is not rounded for it. */
const SHOWN = 38;

/**
 * Rates one charge. Order: usage → included → model → discount amount (not below 0) → discount percent → minimum →
 * maximum → rounding to the minor unit, half up.
 * Of a part of a period, to the second: the flat amount, `included` (to 6 decimals), `discount_amount`, `minimum` and `maximum`; tiers,
 * packages and free units stay as they are.
 * @param decimals of the currency's minor unit
 */
export function rateCharge(charge: CheckedCharge, usage: Usage, decimals: number, fraction?: Fraction): Line {
  const part = fraction === undefined || fraction.seconds === fraction.of ? undefined : fraction;
  const isFlat = charge.model.model === 'flat';
  // A meter's sum may be negative (refunds): it is shown as it is, and costs what zero does.
  const counted = usage.quantity.isNegative() ? ZERO : usage.quantity;
  const included = isFlat || charge.included === undefined ? undefined : allowanceOf(charge.included, part, counted);
  const billable = included === undefined ? counted : counted.minus(included);
  const priced = priceOf(charge.model, billable, usage.events);
  const steps: Step[] = [{ rule: 'model', amount: show(priced.amount, SHOWN) }];
  let amount = priced.amount;
  const become = (rule: Step['rule'], given: Exact | undefined, changed: Exact) => {
    if (changed.eq(amount)) return;
    amount = changed;
    steps.push({ rule, ...(given === undefined ? {} : { given: show(given, SHOWN) }), amount: show(amount, SHOWN) });
  };
  if (isFlat) become('proration', undefined, prorate(amount, part));
  if (charge.discountAmount !== undefined) {
    const discount = prorate(charge.discountAmount, part);
    become('discount_amount', discount, Exact.max(ZERO, amount.minus(discount)));
  }
  if (charge.discountPercent !== undefined)
    become('discount_percent', charge.discountPercent, amount.times(HUNDRED.minus(charge.discountPercent)).div(100));
  if (charge.minimum !== undefined) {
    const minimum = prorate(charge.minimum, part);
    become('minimum', minimum, Exact.max(amount, minimum));
  }
  if (charge.maximum !== undefined) {
    const maximum = prorate(charge.maximum, part);
    become('maximum', maximum, Exact.min(amount, maximum));
  }
  if (amount.decimalPlaces() > decimals) become('rounding', undefined, amount.toDecimalPlaces(decimals));
  const { name, meter } = charge.charge;
  const quantity = show(usage.quantity);
  return {
    charge: charge.key,
    ...(name === undefined ? {} : { name }),
    meter: meter ?? null,
    model: charge.model.model,
    ...(usage.group === undefined ? {} : { group: usage.group }),
    quantity,
    ...(charge.model.model === 'percentage' ? { events: show(usage.events) } : {}),
    ...(included === undefined ? {} : { included: show(included, SHOWN) }),
    billable: billable === usage.quantity ? quantity : show(billable, SHOWN),
    ...priced.shown,
    ...(part === undefined ? {} : { proration: part }),
    steps,
    amount: amount.toFixed(decimals),
  };
}
const HUNDRED = new Exact(100);

/** What of an allowance is used up. */
const allowanceOf = (whole: Exact, part: Fraction | undefined, counted: Exact): Exact =>
  Exact.min(part === undefined ? whole : prorate(whole, part).toDecimalPlaces(ALLOWANCE), counted);

/** Quantity of a flat charge: one of it. */
export const ONCE: Usage = { quantity: new Exact(1), events: ZERO };

/** Adds up rounded amounts. */
export function totalOf(lines: Iterable<{ amount: string }>, currency: string): string {
  let total = ZERO;
  for (const line of lines) total = total.plus(line.amount);
  return total.toFixed(minorUnitOf(currency));
}

/** A metered value as usage. @throws TidemarkError `negative_quantity` */
export function usageOf(quantity: Exact, events: Exact, place: string): Usage {
  for (const [name, value] of [
    ['quantity', quantity],
    ['events', events],
  ] as const)
    if (value.isNegative() && !value.isZero())
      throw new TidemarkError('negative_quantity', `${place}: ${name} ${show(value)} is negative`, {
        extensions: { field: place },
      });
  return { quantity: quantity.abs(), events: events.abs() };
}
