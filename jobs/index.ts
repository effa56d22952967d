export { createHistoryJob } from './history.ts';
export { openJobQueue } from './queue.ts';
export { type JobRunner, type JobRunnerDeps, startJobs } from './runner.ts';
