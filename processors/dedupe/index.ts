export { type FilterBudget, type KeySetOptions, openFilterBudget, openKeySet } from './key-set.ts';
export * from './port.ts';
