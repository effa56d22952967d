/** `npm run bench [-- NAME…]`: every figure from outside, durability on, its own result checked. One table, and bench/results.json. */
import { rmSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { table } from '../cli/demo/table.ts';
import { billing } from './billing.ts';
import { dedupeGrowth } from './dedupe.ts';
import { kafkaEndToEnd, kafkaPipeline, kafkaProduce, sameJob } from './kafka.ts';
import { migrations, pools } from './migrations.ts';
import { query } from './query.ts';
import { figures, RUNS, SCRATCH } from './report.ts';
import { endToEnd, freshness, ingest, memory, pipeline } from './road.ts';

/** In the order in which they run. */
const BENCHES: Record<string, () => Promise<void>> = {
  ingest,
  pipeline,
  e2e: endToEnd,
  freshness,
  'kafka-produce': kafkaProduce,
  'kafka-job': sameJob,
  'kafka-pipeline': kafkaPipeline,
  'kafka-e2e': kafkaEndToEnd,
  migrations,
  pools,
  memory,
  dedupe: dedupeGrowth,
  query,
  billing,
};

const wanted = process.argv.slice(2);
for (const [name, bench] of Object.entries(BENCHES)) if (wanted.length === 0 || wanted.includes(name)) await bench();
rmSync(SCRATCH, { recursive: true, force: true });
const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`;
writeFileSync(
  new URL('./results.json', import.meta.url),
  `${JSON.stringify({ machine, runs: RUNS, figures }, null, 2)}\n`,
);
process.stdout.write(
  `\n${table(
    ['bench', 'figure (median of 3, range)', 'yardstick', 'aim'],
    figures.map((one) => [one.bench, one.figure, one.yardstick, one.aim]),
  )}\n\n${machine}\n`,
);
