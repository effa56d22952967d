/** An archiver in a process of its own, to be killed: arguments are database, folder, step and its count, as JSON. */
import pino from 'pino';
import { connect, detectEngine, openFileStore, openS3Store } from '../../sinks/index.ts';
import { ARCHIVE_STEPS, RECALL_STEPS, recallDay, runArchive, type TieringDeps } from '../../tiering/index.ts';
import { always, NOW, TEST_TIERING } from './archive.ts';

const { url, root, step, count, recall, s3 } = JSON.parse(process.argv[2] ?? '{}') as {
  url: string;
  root: string;
  step?: string;
  count: number;
  /** a day that is brought back; absent: days are archived */
  recall?: string;
  s3?: { bucket: string; endpoint: string };
};
const pool = connect(url, { max: 4, name: 'tidemark-test-archiver' });
let left = count;
const deps: TieringDeps = {
  pool,
  engine: await detectEngine(pool),
  store: s3 === undefined ? await openFileStore(`${root}/objects`) : openS3Store({ ...s3, region: 'us-east-1' }),
  scratch: `${root}/scratch-${process.pid}`,
  settings: { ...TEST_TIERING, leaseMs: 300 },
  logger: pino({ level: process.env.TEST_LOG ?? 'silent' }),
  now: () => NOW,
  fault: (passed) => {
    if (passed === [...ARCHIVE_STEPS, ...RECALL_STEPS].find((one) => one === step) && --left === 0)
      process.kill(process.pid, 'SIGKILL');
  },
};
const result = await (recall === undefined ? runArchive(deps, always()) : recallDay(deps, always(), recall, 7));
await pool.end();
process.stdout.write(JSON.stringify(result));
