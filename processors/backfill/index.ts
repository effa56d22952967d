export { type Cut, millisecondsOf, shareOf } from './cut.ts';
export { type BackfillDeps, createBackfillJob } from './job.ts';
