/** Worked examples of public pricing documentation, as their authors computed them. */
export interface Vector {
  source: string;
  what: string;
  currency?: string;
  charges: unknown[];
  usage: Record<string, unknown>;
  total: string;
}

const STRIPE = 'docs.stripe.com/subscriptions/pricing-models/tiered-pricing';
const stripeTiers = [
  { up_to: 5, unit_amount: 7 },
  { up_to: 10, unit_amount: 6.5 },
  { up_to: null, unit_amount: 6 },
];
const stripe = (model: string, fonts: number, total: string): Vector => ({
  source: STRIPE,
  what: `${model}, ${fonts} fonts`,
  charges: [{ meter: 'fonts', model, tiers: stripeTiers }],
  usage: { fonts },
  total,
});

const LAGO = 'getlago.com/docs/guide/plans/charges/charge-models';
const lagoGraduated = [
  { up_to: '100', unit_amount: '1' },
  { up_to: '200', unit_amount: '0.50' },
  { up_to: null, unit_amount: '0.10' },
];
const lagoVolume = [
  { up_to: '10000', unit_amount: '0.0010', flat_amount: '10' },
  { up_to: '50000', unit_amount: '0.0008', flat_amount: '10' },
  { up_to: '100000', unit_amount: '0.0006', flat_amount: '10' },
  { up_to: null, unit_amount: '0.0004', flat_amount: '10' },
];

const ORB = 'docs.withorb.com/product-catalog/price-configuration';
const orbTiers = [
  { up_to: '10', unit_amount: '0.50' },
  { up_to: null, unit_amount: '0.10' },
];
const orbBulk = [
  { up_to: '10', unit_amount: '0.50' },
  { up_to: null, unit_amount: '0.40' },
];

const KILLBILL = 'docs.killbill.io/latest/consumable_in_arrear';
const killbill = (videos: number, total: string): Vector => ({
  source: KILLBILL,
  what: `$30 a month, the first 5 videos $2, the next ones $1: ${videos} videos`,
  charges: [
    { model: 'flat', amount: '30.00' },
    {
      meter: 'chocolate-videos',
      model: 'graduated',
      tiers: [
        { up_to: '5', unit_amount: '2' },
        { up_to: null, unit_amount: '1' },
      ],
    },
  ],
  usage: { 'chocolate-videos': videos },
  total,
});

const FLEXPRICE = 'docs.flexprice.io/docs/product-catalogue/plans/billing-models';
const flexpriceTiers = [
  { up_to: '10000', unit_amount: '0.0010' },
  { up_to: '50000', unit_amount: '0.0008' },
  { up_to: null, unit_amount: '0.0006' },
];
const flexpricePackages = [
  { up_to: '1000', flat_amount: '50' },
  { up_to: '5000', flat_amount: '200' },
  { up_to: null, flat_amount: '350' },
];

const ZUPLO = 'zuplo.com/docs/articles/monetization/pricing-models';
const zuploTiers = [
  { up_to: '1000', unit_amount: '0.10' },
  { up_to: '10000', unit_amount: '0.05' },
  { up_to: null, unit_amount: '0.01' },
];

export const vectors: Vector[] = [
  stripe('volume', 1, '7.00'),
  stripe('volume', 5, '35.00'),
  stripe('volume', 6, '39.00'),
  stripe('volume', 20, '120.00'),
  stripe('volume', 25, '150.00'),
  stripe('graduated', 1, '7.00'),
  stripe('graduated', 5, '35.00'),
  stripe('graduated', 6, '41.50'),
  stripe('graduated', 20, '127.50'),
  stripe('graduated', 25, '157.50'),
  {
    source: `${LAGO}/graduated`,
    what: '$1 for 100 calls, $0.50 for 100, then $0.10: 250 calls',
    charges: [{ meter: 'calls', model: 'graduated', tiers: lagoGraduated }],
    usage: { calls: '250' },
    total: '155.00',
  },
  {
    source: `${LAGO}/volume`,
    what: '65,000 calls × $0.0006 + $10',
    charges: [{ meter: 'calls', model: 'volume', tiers: lagoVolume }],
    usage: { calls: '65000' },
    total: '49.00',
  },
  {
    source: `${LAGO}/package`,
    what: '$5 per 100 units, the first 100 free: 201 units',
    charges: [{ meter: 'calls', model: 'package', package_size: '100', package_amount: '5', included: '100' }],
    usage: { calls: '201' },
    total: '10.00',
  },
  {
    source: 'getlago.com/docs/templates/per-transaction/stripe',
    what: 'card payments online, 2.9 % and $0.30 a transaction: $1,000 in 4',
    charges: [{ meter: 'payments', model: 'percentage', rate_percent: '2.9', fixed_amount: '0.30' }],
    usage: { payments: { quantity: '1000', events: 4 } },
    total: '30.20',
  },
  {
    source: `${LAGO}/percentage`,
    what: '1.2 % and $0.10, 3 events and $500 free: $700 in 5',
    charges: [
      {
        meter: 'transfers',
        model: 'percentage',
        rate_percent: '1.2',
        fixed_amount: '0.10',
        free_events: 3,
        free_units: '500',
      },
    ],
    usage: { transfers: { quantity: '700', events: 5 } },
    total: '2.60',
  },
  {
    source: ORB,
    what: 'tiered, 10 units at $0.50, then $0.10: 15 units',
    charges: [{ meter: 'units', model: 'graduated', tiers: orbTiers }],
    usage: { units: 15 },
    total: '5.50',
  },
  {
    source: ORB,
    what: 'bulk, 10 units',
    charges: [{ meter: 'units', model: 'volume', tiers: orbBulk }],
    usage: { units: 10 },
    total: '5.00',
  },
  {
    source: ORB,
    what: 'bulk, 101 units',
    charges: [{ meter: 'units', model: 'volume', tiers: orbBulk }],
    usage: { units: 101 },
    total: '40.40',
  },
  {
    source: ORB,
    what: 'package of 5, 4 units are billed as 5',
    charges: [{ meter: 'units', model: 'package', package_size: 5, package_amount: 5 }],
    usage: { units: 4 },
    total: '5.00',
  },
  {
    source: ORB,
    what: 'package of 5, 6 units are billed as 10',
    charges: [{ meter: 'units', model: 'package', package_size: 5, package_amount: 5 }],
    usage: { units: 6 },
    total: '10.00',
  },
  killbill(3, '36.00'),
  killbill(5, '40.00'),
  killbill(8, '43.00'),
  {
    source: `${FLEXPRICE}/tiered`,
    what: 'volume, 65,000 calls',
    charges: [{ meter: 'calls', model: 'volume', tiers: flexpriceTiers }],
    usage: { calls: '65000' },
    total: '39.00',
  },
  {
    source: `${FLEXPRICE}/tiered`,
    what: 'slab, 65,000 calls: $10 + $32 + $9',
    charges: [{ meter: 'calls', model: 'graduated', tiers: flexpriceTiers }],
    usage: { calls: '65000' },
    total: '51.00',
  },
  {
    source: `${FLEXPRICE}/tiered`,
    what: 'a started package is a full one: 4,500 calls in 5 packages of 1,000 at $1',
    charges: [{ meter: 'calls', model: 'package', package_size: '1000', package_amount: '1.00' }],
    usage: { calls: '4500' },
    total: '5.00',
  },
  {
    source: `${FLEXPRICE}/package`,
    what: 'flat tiers: 4,500 messages',
    charges: [{ meter: 'sms', model: 'volume', tiers: flexpricePackages }],
    usage: { sms: '4500' },
    total: '200.00',
  },
  {
    source: `${FLEXPRICE}/package`,
    what: 'flat tiers: 1,500 messages',
    charges: [{ meter: 'sms', model: 'volume', tiers: flexpricePackages }],
    usage: { sms: '1500' },
    total: '200.00',
  },
  {
    source: ZUPLO,
    what: 'graduated, 15,000 units: $100 + $450 + $50',
    charges: [{ meter: 'units', model: 'graduated', tiers: zuploTiers }],
    usage: { units: '15000' },
    total: '600.00',
  },
  {
    source: ZUPLO,
    what: 'volume, 15,000 units',
    charges: [{ meter: 'units', model: 'volume', tiers: zuploTiers }],
    usage: { units: '15000' },
    total: '150.00',
  },
  {
    source: 'docs.useautumn.com/documentation/modelling-pricing/graduated-pricing',
    what: '15,000 requests: 1,000 × $0.01 + 9,000 × $0.008 + 5,000 × $0.005',
    charges: [
      {
        meter: 'requests',
        model: 'graduated',
        tiers: [
          { up_to: '1000', unit_amount: '0.01' },
          { up_to: '10000', unit_amount: '0.008' },
          { up_to: null, unit_amount: '0.005' },
        ],
      },
    ],
    usage: { requests: '15000' },
    total: '107.00',
  },
  {
    source: 'chargebee.com/docs/billing/2.0/product-catalog/package-pricing',
    what: '1,500,000 tokens in packages of 1M at $1.25',
    charges: [{ meter: 'tokens', model: 'package', package_size: '1000000', package_amount: '1.25' }],
    usage: { tokens: '1500000' },
    total: '2.50',
  },
];
