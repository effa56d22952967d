/** `npm run bench [-- NAME…]`: every figure from outside, durability on, its own result checked. One table, and bench/results.json (`npm run docs` puts it into the README). */
import { rmSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { table } from '../cli/demo/table.ts';
import { archive, archiveBeside, archiveQuery } from './archive.ts';
import { billing } from './billing.ts';
import { dedupeGrowth } from './dedupe.ts';
import { dropDatabases, externalServer } from './external-database.ts';
import { growth } from './growth.ts';
import { kafkaEndToEnd, kafkaPipeline, kafkaProduce, sameJob } from './kafka.ts';
import { migrations, pools } from './migrations.ts';
import { query } from './query.ts';
import { archiveRecall } from './recall.ts';
import { figures, SCRATCH } from './report.ts';
import { RESULTS, type Results, readResults } from './results.ts';
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
  growth,
  dedupe: dedupeGrowth,
  query,
  archive,
  'archive-beside': archiveBeside,
  'archive-query': archiveQuery,
  'archive-recall': archiveRecall,
  billing,
  provisioning,
};

/** They measure no database, or one that they lay out themselves. */
const EMBEDDED_ONLY = new Set(['ingest', 'kafka-produce', 'pools', 'dedupe', 'billing']);

const server = await externalServer();
const chosen = Object.keys(BENCHES).filter((name) => server === undefined || !EMBEDDED_ONLY.has(name));
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !chosen.includes(name));
if (unknown.length > 0)
  throw new Error(
    `no bench ${unknown.join(', ')}${server === undefined ? '' : ' on DATABASE_URL'}: ${chosen.join(', ')}`,
  );
const results = readResults();
results.machine = `${cpus().length} cores of ${cpus()[0]?.model ?? 'a CPU'}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.versions.node}`;
try {
  for (const name of chosen) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const from = figures.length;
    await BENCHES[name]?.();
    const measured = figures.slice(from);
    if (server !== undefined) for (const one of measured) one.bench += `, ${server.kind} ${server.version}`;
    const key = server === undefined ? name : `${name} on ${server.kind}`;
    results.benches[key] = { date: new Date().toISOString().slice(0, 10), figures: measured };
    // After each: what was measured outlives a later one's failure.
    writeFileSync(RESULTS, `${JSON.stringify({ ...results, benches: inOrder(results.benches) }, null, 2)}\n`);
  }
} finally {
  rmSync(SCRATCH, { recursive: true, force: true });
  await dropDatabases();
}
process.stdout.write(
  `\n${table(
    ['bench', 'figure', 'beside it, in the same run', 'aim'],
    figures.map((one) => [one.bench, one.figure, one.yardstick, one.aim]),
  )}\n\n${results.machine}\n`,
);

/** In the order of the list above, whatever was run when; those on another server behind the embedded one's. */
function inOrder(benches: Results['benches']): Results['benches'] {
  return Object.fromEntries(
    Object.keys(BENCHES).flatMap((name) =>
      Object.entries(benches).filter(([key]) => key === name || key.startsWith(`${name} on `)),
    ),
  );
}
