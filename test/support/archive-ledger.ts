/** What was sent into an archive test, and whether all of it is still there. */
import type { Pool } from 'pg';
import { expect } from 'vitest';
import { dayOf, openArchiveReader, readRawEvents, type TieringDeps } from '../../tiering/index.ts';
import { takeIn } from './archive.ts';
import { event, type openTestLog } from './processors.ts';

const DAY = 86_400_000;

/** Takes `count` new events of one day in, of two tenants; their keys, which are their request ids, go into `sent`. */
export async function takeInDay(
  pool: Pool,
  log: Awaited<ReturnType<typeof openTestLog>>,
  sent: Set<string>,
  start: number,
  count: number,
): Promise<void> {
  const all = Array.from({ length: count }, (_, i) => {
    const key = `${dayOf(start)}-${sent.size + i}`;
    return event(key, { tenant: `tenant-${i % 2}`, timestamp: start + ((i * 37_000) % DAY), request_id: key });
  });
  await takeIn(pool, all, log);
  for (const one of all) sent.add(one.idempotency_key);
}

/** Everything that was sent of [from, to), as readers find it in the database and the archive together: each event once. */
export async function expectWhole(
  deps: TieringDeps,
  sent: ReadonlySet<string>,
  from: number,
  to: number,
): Promise<void> {
  const reader = openArchiveReader(deps);
  const { rows: tenants } = await deps.pool.query<{ id: string }>('SELECT id FROM tenants');
  const { rows: positions } = await deps.pool.query<{ shard: number; next: number }>(
    'SELECT shard, next::float8 AS next FROM log_offsets',
  );
  const seen: string[] = [];
  for (const { id } of tenants)
    for await (const rows of readRawEvents(deps.pool, reader, { tenantId: id, from, to, positions }))
      for (const row of rows) seen.push(row.request_id ?? '');
  await reader.close();
  expect(seen.length).toBe(sent.size);
  expect(new Set(seen)).toEqual(sent);
}
