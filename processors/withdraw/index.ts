export { WITHDRAWAL_ATTRIBUTES } from './collect.ts';
export { lockBackfill, mendBackfilled, RawIncomplete } from './mend.ts';
export { createWithdrawStep, settleArrivals, type Withdrawn } from './step.ts';
export { keyText, readOrphans, writeArrivals, writeWithdrawals } from './withdrawal.ts';
