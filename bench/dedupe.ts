/**
 * What a claim costs as the keys in the window grow: the set of one shard on a real PostgreSQL. It is filled as traffic
 * fills it, evenly over the window, with all upkeep done as it falls due; then batches are claimed while the window
 * slides, so that old runs go as new ones come. Upkeep is told apart, and told once.
 */
import { randomFillSync } from 'node:crypto';
import { rmSync } from 'node:fs';
import { type ClaimStore, openFilterBudget, openKeySet } from '../processors/dedupe/index.ts';
import { connect, migrate, startEmbeddedPostgres } from '../sinks/index.ts';
import { add, median, SCRATCH } from './report.ts';

const BATCH = 20_000;
/** Six seals, and as many runs that expire. */
const BATCHES = 64;
/** Three seals: without them, code that is not compiled yet would make the claims with no keys a fifth dearer. */
const WARM_UP = 30;
/** Keys of a batch that were claimed long ago: others in each batch, of any run but those that expire meanwhile. */
const DUPLICATES = BATCH / 20;
const OLD = DUPLICATES * (WARM_UP + BATCHES);
const SEAL = 200_000;
const WINDOW_MS = 35 * 86_400_000;
const UPKEEP_MS = 50;

export async function dedupeGrowth(): Promise<void> {
  let base = 0;
  for (const target of [0, 10_000_000, 50_000_000]) {
    const cost = await measure(target, base);
    if (base === 0) base = cost;
  }
}

/** @param base µs of a claim with no keys; 0: not known yet. @returns µs of a claim */
async function measure(target: number, base: number): Promise<number> {
  rmSync(`${SCRATCH}dedupe`, { recursive: true, force: true });
  const server = await startEmbeddedPostgres(`${SCRATCH}dedupe`);
  const pool = connect(server.url, { max: 4, name: 'tidemark-bench' });
  await migrate(pool);
  const client = await pool.connect();
  let now = Date.now() - WINDOW_MS;
  const options = { sealKeys: SEAL, windowMs: WINDOW_MS, budget: openFilterBudget(256 << 20), now: () => now };
  const set: ClaimStore = await openKeySet(pool, 1, options);
  /** Upkeep as a partition's owner does it after a batch. @returns milliseconds */
  const maintain = async (): Promise<number> => {
    const began = performance.now();
    if (set.needsMaintenance()) await set.maintain(client, async () => undefined, UPKEEP_MS);
    return performance.now() - began;
  };

  let filling = 0;
  const old: Buffer[] = [];
  for (let keys = 0; keys < target; keys += SEAL) {
    const claimed = randomFillSync(Buffer.allocUnsafe(SEAL * 16));
    if (keys >= target / 4) old.push(Buffer.from(claimed.subarray(0, Math.ceil((SEAL * OLD * 1.5) / target) * 16)));
    set.add(claimed, SEAL);
    now += (WINDOW_MS * SEAL) / target;
    while (set.needsMaintenance()) filling += await maintain();
  }
  await pool.query('ANALYZE dedupe_pages');
  const known = Buffer.concat(old);
  const duplicates = target === 0 ? 0 : DUPLICATES;

  let block = 0;
  let upkeep = 0;
  let slowest = 0;
  let asked = 0;
  const times: number[] = [];
  // The first ones warm up; no debt of theirs is left to the others.
  for (let i = -WARM_UP; i < BATCHES; i++) {
    const keys = randomFillSync(Buffer.allocUnsafe(BATCH * 16));
    for (let k = 0; k < duplicates; k++) {
      const from = k * (WARM_UP + BATCHES) + WARM_UP + i;
      known.copy(keys, k * 16, from * 16, (from + 1) * 16);
    }
    const claimed = keys.subarray(duplicates * 16);
    const began = performance.now();
    const fresh = await set.claim(pool, keys, BATCH);
    await client.query('BEGIN');
    await set.persist(client, ++block, claimed);
    await client.query('COMMIT');
    set.add(claimed, claimed.length / 16);
    const claimedMs = performance.now() - began;
    if (fresh.some((one, k) => one !== (k < duplicates ? 0 : 1))) throw new Error('keys were claimed wrongly');
    if (target > 0) now += (WINDOW_MS * BATCH) / target;
    let owed = await maintain();
    slowest = i < 0 ? 0 : Math.max(slowest, owed);
    if (i === -1 || i === BATCHES - 1) while (set.needsMaintenance()) owed += await maintain();
    if (i === -1) asked = set.stats().lookups;
    if (i < 0) continue;
    times.push(claimedMs);
    upkeep += owed;
  }
  const perKey = (ms: number, keys: number) => (ms / keys) * 1000;
  const measured = BATCHES * BATCH;
  const cost = perKey(
    times.reduce((sum, one) => sum + one, upkeep),
    measured,
  );
  const { runs, filterBytes, lookups } = set.stats();
  const filled = target === 0 ? '' : `; filling took ${perKey(filling, target).toFixed(2)} µs of upkeep a key`;
  add(
    `dedupe, a claim at ${target / 1e6} million keys`,
    `${cost.toFixed(2)} µs (${perKey(upkeep, measured).toFixed(2)} of it upkeep), batches of ${BATCH.toLocaleString('en')} take ${Math.round(median(times))} ms, upkeep at most ${Math.round(slowest)} ms at a time${filled}`,
    `${(cost / (base || cost)).toFixed(2)} × at 0; ${runs} runs, indexes ${Math.round(filterBytes / 1e6)} MB, ${Math.round((lookups - asked) / BATCHES).toLocaleString('en')} lookups a batch`,
    '≤ 1.5 ×',
  );
  set.close();
  client.release();
  await pool.end();
  await server.stop();
  return cost;
}
