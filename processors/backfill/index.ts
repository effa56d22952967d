export { type BackfillDeps, createBackfillJob } from './job.ts';
export { type Cut, countStored } from './step.ts';
