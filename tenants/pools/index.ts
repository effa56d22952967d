export { fitBudget } from './budget.ts';
export { openTenantPools, type PoolFigures, type PoolReport, type PoolSettings, type TenantPools } from './pools.ts';
export type { PoolClass, PoolSizes } from './ranking.ts';
export { rank } from './ranking.ts';
export type { TenantConnection } from './session.ts';
