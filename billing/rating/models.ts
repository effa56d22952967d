import type { CheckedModel, CheckedTier } from './charge.ts';
import { Exact, show, ZERO } from './decimals.ts';

/** What the model charges, and how: enough to redo it by hand. */
export interface Priced {
  /** exact, not rounded */
  amount: Exact;
  shown: {
    unit_amount?: string;
    tiers?: TierShare[];
    packages?: string;
    package_size?: string;
    package_amount?: string;
    rate_percent?: string;
    rated_quantity?: string;
    fixed_amount?: string;
    charged_events?: string;
  };
}

/** A tier's part of a line. */
export interface TierShare {
  /** units above this one … */
  from: string;
  /** … up to and including this one; null: open */
  up_to: string | null;
  quantity: string;
  unit_amount: string;
  flat_amount?: string;
  amount: string;
}

/** Prices a quantity ≥ 0. @param events for the percentage's fixed fee */
export function priceOf(model: CheckedModel, quantity: Exact, events: Exact): Priced {
  switch (model.model) {
    case 'flat':
      return { amount: model.amount, shown: { unit_amount: show(model.amount) } };
    case 'per_unit':
      return { amount: quantity.times(model.unitAmount), shown: { unit_amount: show(model.unitAmount) } };
    case 'graduated':
      return ofShares(graduated(model.tiers, quantity));
    case 'volume':
      return ofShares([volume(model.tiers, quantity)]);
    case 'package': {
      const packages = quantity.div(model.size).ceil();
      return {
        amount: packages.times(model.amount),
        shown: { packages: show(packages), package_size: show(model.size), package_amount: show(model.amount) },
      };
    }
    case 'percentage': {
      const rated = Exact.max(ZERO, quantity.minus(model.freeUnits));
      const charged = Exact.max(ZERO, events.minus(model.freeEvents));
      return {
        amount: rated.times(model.rate).div(100).plus(charged.times(model.fixed)),
        shown: {
          rate_percent: show(model.rate),
          rated_quantity: show(rated),
          ...(model.fixed.isZero() ? {} : { fixed_amount: show(model.fixed), charged_events: show(charged) }),
        },
      };
    }
  }
}

interface Share {
  amount: Exact;
  shown: TierShare;
}

const ofShares = (shares: readonly Share[]): Priced => ({
  amount: shares.reduce((sum, share) => sum.plus(share.amount), ZERO),
  shown: { tiers: shares.map((share) => share.shown) },
});

/** Units fill the tiers in order; a tier that is reached charges its flat amount, the first one always. */
function graduated(tiers: readonly CheckedTier[], quantity: Exact): Share[] {
  const shares: Share[] = [];
  let from = ZERO;
  for (const tier of tiers) {
    if (shares.length > 0 && quantity.lte(from)) break;
    const upTo = tier.upTo === undefined ? quantity : Exact.min(quantity, tier.upTo);
    shares.push(shareOf(tier, from, upTo.minus(from)));
    from = tier.upTo ?? quantity;
  }
  return shares;
}

/** The tier that the whole quantity reaches prices all of it. */
function volume(tiers: readonly CheckedTier[], quantity: Exact): Share {
  let from = ZERO;
  for (const tier of tiers) {
    if (tier.upTo === undefined || quantity.lte(tier.upTo)) return shareOf(tier, from, quantity);
    from = tier.upTo;
  }
  throw new RangeError('the last tier is not open');
}

function shareOf(tier: CheckedTier, from: Exact, quantity: Exact): Share {
  const amount = quantity.times(tier.unitAmount).plus(tier.flatAmount);
  return {
    amount,
    shown: {
      from: show(from),
      up_to: tier.upTo === undefined ? null : show(tier.upTo),
      quantity: show(quantity),
      unit_amount: show(tier.unitAmount),
      ...(tier.flatAmount.isZero() ? {} : { flat_amount: show(tier.flatAmount) }),
      amount: show(amount, 38),
    },
  };
}
