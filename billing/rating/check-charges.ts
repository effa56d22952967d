import { TidemarkError } from '../../schemas/index.ts';
import { type Charge, type CheckedCharge, type CheckedModel, type CheckedTier, MODELS, type Model } from './charge.ts';
import { type Exact, readDecimal, show, ZERO } from './decimals.ts';

const MOST_CHARGES = 500;
const MOST_TIERS = 1_000;
/** No control characters, no lone surrogates: neither can be stored. */
const NAME = /^[^\p{Cc}\p{Cs}]{1,256}$/u;

const COMMON = [
  'key',
  'name',
  'meter',
  'filters',
  'group_by',
  'model',
  'included',
  'minimum',
  'maximum',
  'discount_amount',
  'discount_percent',
];
const OWN: Record<Model, readonly string[]> = {
  flat: ['amount'],
  per_unit: ['unit_amount'],
  graduated: ['tiers'],
  volume: ['tiers'],
  package: ['package_size', 'package_amount'],
  percentage: ['rate_percent', 'fixed_amount', 'free_events', 'free_units'],
};

type Fields = Readonly<Record<string, unknown>>;

/**
 * Checks the charges of a plan or a preview, of any origin.
 * @throws TidemarkError `invalid_charge` naming the place, as `charges[1].tiers[0].up_to`
 */
export function checkCharges(value: unknown): CheckedCharge[] {
  if (!Array.isArray(value)) throw wrong('charges', 'must be an array of charges');
  if (value.length > MOST_CHARGES) throw wrong('charges', `has more than ${MOST_CHARGES} charges`);
  const checked = value.map((one: unknown, i) => checkCharge(one, `charges[${i}]`, String(i + 1)));
  const keys = new Set<string>();
  checked.forEach(({ key }, i) => {
    if (keys.has(key)) throw wrong(`charges[${i}].key`, `"${key}" names two charges`);
    keys.add(key);
  });
  return checked;
}

function checkCharge(value: unknown, place: string, position: string): CheckedCharge {
  const fields = fieldsOf(value, place);
  const model = MODELS.find((one) => one === fields.model);
  if (model === undefined) throw wrong(`${place}.model`, `must be one of ${MODELS.join(', ')}`);
  const admitted = [...COMMON, ...OWN[model]];
  for (const name of Object.keys(fields))
    if (!admitted.includes(name)) throw wrong(`${place}.${name}`, `is no field of a charge of model ${model}`);
  const optional = (name: string) => (given(fields[name]) ? amountOf(fields[name], `${place}.${name}`) : undefined);
  const meter = optionalName(fields, 'meter', place);
  if (meter === undefined && model !== 'flat') throw wrong(`${place}.meter`, `is needed for model ${model}`);
  const filters = given(fields.filters) ? filtersOf(fields.filters, `${place}.filters`) : undefined;
  const groupBy = given(fields.group_by) ? namesOf(fields.group_by, `${place}.group_by`) : undefined;
  if (model === 'flat' && (filters ?? groupBy) !== undefined)
    throw wrong(`${place}.${filters === undefined ? 'group_by' : 'filters'}`, 'a flat charge counts nothing');
  const limits = {
    included: optional('included'),
    minimum: optional('minimum'),
    maximum: optional('maximum'),
    discountAmount: optional('discount_amount'),
    discountPercent: optional('discount_percent'),
  };
  if (limits.discountPercent?.gt(100)) throw wrong(`${place}.discount_percent`, 'must be at most 100');
  if (limits.minimum !== undefined && limits.maximum !== undefined && limits.minimum.gt(limits.maximum))
    throw wrong(`${place}.minimum`, `${show(limits.minimum)} is more than the maximum ${show(limits.maximum)}`);
  const ready = checkModel(model, fields, place);
  const key = optionalName(fields, 'key', place);
  const name = optionalName(fields, 'name', place);
  const charge: Charge = {
    ...(key === undefined ? {} : { key }),
    ...(name === undefined ? {} : { name }),
    ...(meter === undefined ? {} : { meter }),
    ...(filters === undefined ? {} : { filters }),
    ...(groupBy === undefined ? {} : { group_by: groupBy }),
    model,
    ...plainModel(ready, fields),
    ...plainNumbers(fields, ['included', 'minimum', 'maximum', 'discount_amount', 'discount_percent']),
  };
  return { charge, key: key ?? position, model: ready, ...limits };
}

function checkModel(model: Model, fields: Fields, place: string): CheckedModel {
  const needed = (name: string) => amountOf(fields[name], `${place}.${name}`);
  const orZero = (name: string) => (given(fields[name]) ? needed(name) : ZERO);
  switch (model) {
    case 'flat':
      return { model, amount: needed('amount') };
    case 'per_unit':
      return { model, unitAmount: needed('unit_amount') };
    case 'graduated':
    case 'volume':
      return { model, tiers: checkTiers(fields.tiers, `${place}.tiers`) };
    case 'package': {
      const size = needed('package_size');
      if (size.isZero()) throw wrong(`${place}.package_size`, 'must be more than 0');
      return { model, size, amount: needed('package_amount') };
    }
    case 'percentage':
      return {
        model,
        rate: needed('rate_percent'),
        fixed: orZero('fixed_amount'),
        freeEvents: orZero('free_events'),
        freeUnits: orZero('free_units'),
      };
  }
}

/** Ordered by their bounds, without overlap, the last one open. */
function checkTiers(value: unknown, place: string): CheckedTier[] {
  if (!Array.isArray(value) || value.length === 0) throw wrong(place, 'must be an array of at least one tier');
  if (value.length > MOST_TIERS) throw wrong(place, `has more than ${MOST_TIERS} tiers`);
  let before = ZERO;
  return value.map((one: unknown, i): CheckedTier => {
    const at = `${place}[${i}]`;
    const fields = fieldsOf(one, at);
    for (const name of Object.keys(fields))
      if (!['up_to', 'unit_amount', 'flat_amount'].includes(name))
        throw wrong(`${at}.${name}`, 'is no field of a tier');
    if (!given(fields.unit_amount) && !given(fields.flat_amount))
      throw wrong(`${at}.unit_amount`, 'a tier has a unit_amount, a flat_amount, or both');
    const prices = {
      unitAmount: given(fields.unit_amount) ? amountOf(fields.unit_amount, `${at}.unit_amount`) : ZERO,
      flatAmount: given(fields.flat_amount) ? amountOf(fields.flat_amount, `${at}.flat_amount`) : ZERO,
    };
    const isLast = i === value.length - 1;
    if (!given(fields.up_to)) {
      if (!isLast) throw wrong(`${at}.up_to`, 'only the last tier is open: the ones after it would never be reached');
      return { upTo: undefined, ...prices };
    }
    const upTo = amountOf(fields.up_to, `${at}.up_to`);
    if (upTo.lte(before))
      throw wrong(`${at}.up_to`, `${show(upTo)} is not more than the bound before it, ${show(before)}`);
    if (isLast)
      throw wrong(`${at}.up_to`, 'the last tier must be open (up_to null), so that every quantity has a price');
    before = upTo;
    return { upTo, ...prices };
  });
}

const given = (value: unknown): boolean => value !== undefined && value !== null;

function fieldsOf(value: unknown, place: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(place, 'must be an object');
  return { ...value };
}

function amountOf(value: unknown, place: string): Exact {
  const amount = readDecimal(value);
  if (amount === undefined) throw wrong(place, 'must be a decimal below 1e20 with at most 18 decimals');
  if (amount.isNegative() && !amount.isZero()) throw wrong(place, 'must not be negative');
  return amount.abs();
}

function optionalName(fields: Fields, name: string, place: string): string | undefined {
  const value = fields[name];
  if (!given(value)) return undefined;
  if (typeof value !== 'string' || !NAME.test(value))
    throw wrong(`${place}.${name}`, 'must be a text of 1 to 256 characters');
  return value;
}

function namesOf(value: unknown, place: string): string[] {
  const names = typeof value === 'string' ? [value] : value;
  if (!Array.isArray(names) || names.length === 0 || !names.every((one) => typeof one === 'string' && NAME.test(one)))
    throw wrong(place, 'must be a list of attribute names');
  return [...new Set<string>(names)];
}

function filtersOf(value: unknown, place: string): Record<string, string[]> {
  const filters: Record<string, string[]> = {};
  for (const [name, any] of Object.entries(fieldsOf(value, place))) {
    if (!NAME.test(name)) throw wrong(place, 'must name attributes');
    const values = Array.isArray(any) ? any : [any];
    if (
      values.length === 0 ||
      !values.every((one) => typeof one === 'string' && one.isWellFormed() && !one.includes('\0'))
    )
      throw wrong(`${place}.${name}`, 'must be a text or a list of texts');
    filters[name] = values;
  }
  return filters;
}

function plainModel(ready: CheckedModel, fields: Fields): Partial<Charge> {
  if (ready.model !== 'graduated' && ready.model !== 'volume') return plainNumbers(fields, OWN[ready.model]);
  return {
    tiers: ready.tiers.map((tier) => ({
      up_to: tier.upTo === undefined ? null : show(tier.upTo),
      unit_amount: show(tier.unitAmount),
      ...(tier.flatAmount.isZero() ? {} : { flat_amount: show(tier.flatAmount) }),
    })),
  };
}

/** Numbers as decimal strings; they were checked before. */
function plainNumbers(fields: Fields, names: readonly string[]): Record<string, string> {
  const plain: Record<string, string> = {};
  for (const name of names) {
    const value = given(fields[name]) ? readDecimal(fields[name]) : undefined;
    if (value !== undefined) plain[name] = show(value);
  }
  return plain;
}

const wrong = (place: string, what: string) =>
  new TidemarkError('invalid_charge', `${place} ${what}`, { extensions: { field: place } });
