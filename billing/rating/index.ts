export * from './charge.ts';
export * from './check-charges.ts';
export * from './currencies.ts';
export * from './decimals.ts';
export type { TierShare } from './models.ts';
export * from './preview.ts';
export * from './rate.ts';
