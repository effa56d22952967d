export { type Cut, millisecondsOf, shareOf } from './cut.ts';
export { type BackfillDeps, createBackfillJob } from './job.ts';
export { BACKFILL_STEPS } from './step.ts';
