/** What a claim costs as the keys in the window grow: the set of one shard on a real PostgreSQL, filled through its own seals and merges. */
import { randomFillSync } from 'node:crypto';
import { rmSync } from 'node:fs';
import { type ClaimStore, openFilterBudget, openKeySet } from '../processors/dedupe/index.ts';
import { connect, migrate, startEmbeddedPostgres } from '../sinks/index.ts';
import { add, median, SCRATCH } from './report.ts';

const BATCH = 20_000;
const BATCHES = 40;
const DUPLICATES = BATCH / 20;
const SEAL = 1_250_000;

export async function dedupeGrowth(): Promise<void> {
  rmSync(`${SCRATCH}dedupe`, { recursive: true, force: true });
  const server = await startEmbeddedPostgres(`${SCRATCH}dedupe`);
  const pool = connect(server.url, { max: 4, name: 'tidemark-bench' });
  await migrate(pool);
  const client = await pool.connect();
  const budget = openFilterBudget(256 << 20);
  const open = (sealKeys: number) =>
    openKeySet(pool, 1, { sealKeys, windowMs: 35 * 86_400_000, budget, now: () => Date.now() });
  let block = 0;
  let known: Buffer = Buffer.alloc(0);
  let slowest = 0;
  let upkeepMs = 0;

  /** Claims one batch, commits it and does what upkeep is due, as a partition's owner does. @returns milliseconds */
  const claim = async (set: ClaimStore): Promise<number> => {
    const keys = randomFillSync(Buffer.allocUnsafe(BATCH * 16));
    // Some were claimed long ago.
    known.copy(keys, 0, 0, Math.min(DUPLICATES * 16, known.length));
    const began = performance.now();
    const fresh = await set.claim(pool, keys, BATCH);
    const duplicates = Math.min(DUPLICATES, known.length / 16);
    const claimed = keys.subarray(duplicates * 16);
    for (let i = 0; i < BATCH; i++)
      if (fresh[i] !== (i < duplicates ? 0 : 1)) throw new Error(`key ${i} of ${BATCH} was claimed wrongly`);
    await client.query('BEGIN');
    await set.persist(client, ++block, claimed);
    await client.query('COMMIT');
    set.add(claimed, claimed.length / 16);
    const upkeep = performance.now();
    if (set.needsMaintenance()) await set.maintain(client, async () => undefined, 50);
    const ended = performance.now();
    slowest = Math.max(slowest, ended - upkeep);
    upkeepMs += ended - upkeep;
    return ended - began;
  };

  let base = 0;
  for (const target of [0, 10_000_000, 50_000_000]) {
    const filler = await open(SEAL);
    let keys = filler.stats().recent + filler.stats().sealed;
    for (; keys < target; keys += SEAL) {
      const batch = randomFillSync(Buffer.allocUnsafe(SEAL * 16));
      if (known.length === 0) known = Buffer.from(batch.subarray(0, DUPLICATES * 16));
      filler.add(batch, SEAL);
      await filler.maintain(client, async () => undefined, 600_000);
    }
    filler.close();
    await pool.query('ANALYZE dedupe_pages');
    const set = await open(200_000);
    for (let i = 0; i < 5; i++) await claim(set);
    slowest = 0;
    upkeepMs = 0;
    const asked = set.stats().lookups;
    const times: number[] = [];
    for (let i = 0; i < BATCHES; i++) times.push(await claim(set));
    const cost = (times.reduce((sum, one) => sum + one, 0) / BATCHES / BATCH) * 1000;
    if (base === 0) base = cost;
    const { runs, filterBytes, lookups } = set.stats();
    add(
      `dedupe, a claim at ${target / 1e6} million keys`,
      `${cost.toFixed(2)} µs (${((upkeepMs / BATCHES / BATCH) * 1000).toFixed(2)} of it upkeep), batches of ${BATCH.toLocaleString('en')} take ${Math.round(median(times))} ms, upkeep at most ${Math.round(slowest)} ms at a time`,
      `${(cost / base).toFixed(2)} × at 0; ${runs} runs, filters ${Math.round(filterBytes / 1e6)} MB, ${Math.round((lookups - asked) / BATCHES).toLocaleString('en')} lookups a batch`,
      '≤ 1.5 ×',
    );
    set.close();
  }
  client.release();
  await pool.end();
  await server.stop();
}
