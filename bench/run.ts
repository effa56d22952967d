/** `npm run bench [-- NAME…]`: every figure from outside, durability on, its own result checked. One table, and bench/results.json (`npm run docs` puts it into the README). */
import { rmSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { table } from '../cli/demo/table.ts';
import { archive, archiveBeside, archiveQuery } from './archive.ts';
import { billing } from './billing.ts';
import { dedupeGrowth } from './dedupe.ts';
import { kafkaEndToEnd, kafkaPipeline, kafkaProduce, sameJob } from './kafka.ts';
import { migrations, pools } from './migrations.ts';
import { query } from './query.ts';
import { figures, SCRATCH } from './report.ts';
import { RESULTS, readResults } from './results.ts';
import { endToEnd, freshness, ingest, memory, pipeline } from './road.ts';
import { provisioning } from './tenants.ts';

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
  archive,
  'archive-beside': archiveBeside,
  'archive-query': archiveQuery,
  billing,
  provisioning,
};

const wanted = process.argv.slice(2);
const results = readResults();
for (const [name, bench] of Object.entries(BENCHES)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const from = figures.length;
  await bench();
  results.benches[name] = { date: new Date().toISOString().slice(0, 10), figures: figures.slice(from) };
}
rmSync(SCRATCH, { recursive: true, force: true });
results.machine = `${cpus().length} cores of ${cpus()[0]?.model ?? 'a CPU'}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.versions.node}`;
// In the order of the list above, whatever was run when.
results.benches = Object.fromEntries(
  Object.keys(BENCHES).flatMap((name) => (results.benches[name] === undefined ? [] : [[name, results.benches[name]]])),
);
writeFileSync(RESULTS, `${JSON.stringify(results, null, 2)}\n`);
process.stdout.write(
  `\n${table(
    ['bench', 'figure', 'beside it, in the same run', 'aim'],
    figures.map((one) => [one.bench, one.figure, one.yardstick, one.aim]),
  )}\n\n${results.machine}\n`,
);
