import { TidemarkError } from '../../schemas/index.ts';
import { checkCharges } from './check-charges.ts';
import { minorUnitOf } from './currencies.ts';
import { type Exact, readDecimal, ZERO } from './decimals.ts';
import { type Line, ONCE, rateCharge, totalOf, type Usage, usageOf } from './rate.ts';

export interface Preview {
  currency: string;
  total: string;
  lines: Line[];
}

/**
 * Rates charges for given usage: stores nothing, meters need not exist. Usage is looked up by the charge's key, then by
 * its meter; what is not given is zero.
 * @param request as a body came in: `usage` is {meter: quantity | {quantity, events}}
 * @throws TidemarkError `invalid_currency` | `invalid_charge` | `negative_quantity` | `invalid_body`
 */
export function previewRating(request: { currency: string; charges: unknown; usage?: unknown }): Preview {
  const decimals = minorUnitOf(request.currency);
  const charges = checkCharges(request.charges);
  const usage = readUsage(request.usage ?? {});
  const lines = charges.map((charge) => {
    if (charge.model.model === 'flat') return rateCharge(charge, ONCE, decimals);
    const used =
      (charge.charge.key === undefined ? undefined : usage.get(charge.charge.key)) ??
      usage.get(charge.charge.meter ?? '');
    return rateCharge(charge, used ?? NOTHING, decimals);
  });
  return { currency: request.currency, total: totalOf(lines, request.currency), lines };
}

const NOTHING: Usage = { quantity: ZERO, events: ZERO };

function readUsage(value: unknown): Map<string, Usage> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed('usage');
  const usage = new Map<string, Usage>();
  for (const [name, given] of Object.entries(value)) {
    const place = `usage.${name}`;
    if (typeof given !== 'object' || given === null) {
      usage.set(name, usageOf(quantityOf(given, place), ZERO, place));
      continue;
    }
    const { quantity, events } = { quantity: undefined, events: undefined, ...given };
    usage.set(
      name,
      usageOf(
        quantity === undefined || quantity === null ? ZERO : quantityOf(quantity, `${place}.quantity`),
        events === undefined || events === null ? ZERO : quantityOf(events, `${place}.events`),
        place,
      ),
    );
  }
  return usage;
}

function quantityOf(value: unknown, place: string): Exact {
  const quantity = readDecimal(value);
  if (quantity === undefined) throw malformed(place);
  return quantity;
}

const malformed = (place: string) =>
  new TidemarkError('invalid_body', `${place} must be a decimal, or {quantity, events}`, {
    extensions: { field: place },
  });
