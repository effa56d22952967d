/** Carries a migration run out in a process of its own, which kills itself when a step is passed for the n-th time. */
import { driveMigration } from '../../tenants/index.ts';
import { until } from './server.ts';
import { openFleet } from './tenant-fleet.ts';
import { SAMPLES } from './tenant-migrations.ts';

const [url = '', runId = '', sample = '', at = '', count = '1'] = process.argv.slice(2);
const migration = Object.entries(SAMPLES).find(([name]) => name === sample)?.[1];
if (migration === undefined) throw new Error(`there is no sample ${sample}`);
let left = Number(count);
const fleet = openFleet(url, [migration], {
  onStep: (_, step) => {
    if (step === at && --left === 0) process.kill(process.pid, 'SIGKILL');
  },
});
// The lease of one that was killed ends within a second.
await until(() =>
  driveMigration(fleet.deps, runId, new AbortController().signal).catch((error) => {
    if (error instanceof Error && 'code' in error && error.code === 'conflict') return undefined;
    throw error;
  }),
);
await fleet.close();
