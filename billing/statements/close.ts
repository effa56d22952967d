import type { Pool, PoolClient } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import { withTransaction } from '../../sinks/index.ts';
import { burn, loadGrants } from '../credits/credits.ts';
import { minorUnitOf } from '../rating/index.ts';
import { periodFrom } from '../subscriptions/periods.ts';
import { loadSubscriptions, nextCloseAt, rulesOf, type Subscription } from '../subscriptions/subscriptions.ts';
import type { Position, Queryable } from '../usage/ports.ts';
import { type BillingPorts, readUsages } from '../usage/source.ts';
import type { Need } from '../usage/usage.ts';
import { announce } from '../webhooks/outbox.ts';
import { assembleLines, headOf, iso, RatedLines } from './assemble.ts';
import { billedPeriod } from './lines.ts';
import { numberOf } from './numbers.ts';
import { type Finished, finish, writeStatements } from './write.ts';

/** Where the close may be interrupted, in order; a crash at any of them loses and doubles nothing. */
export const CLOSE_STEPS = ['found', 'locked', 'rated', 'written', 'committed'] as const;
export type CloseStep = (typeof CLOSE_STEPS)[number];

export interface CloseDeps extends BillingPorts {
  pool: Pool;
  /** Unix ms */
  now(): number;
  /** statements whose periods ended within this time are brought up to date by the next one */
  adjustWithinMs: number;
  /** statements made in one transaction */
  batch?: number;
  /** for tests of crashes */
  atStep?: (step: CloseStep) => void;
}

export interface CloseResult {
  closed: string[];
  failed: { subscription: string; error: string }[];
}

/**
 * Closes every period that ended at or before `endedBefore`, in order of their ends, a batch a transaction: numbers have
 * no gaps, and a period is closed once, whatever crashes and however many run it.
 * @param limits.onBatch after each commit
 */
export async function closePeriods(
  deps: CloseDeps,
  endedBefore: number,
  limits: { signal?: AbortSignal; onBatch?: (closed: number) => Promise<void> } = {},
): Promise<CloseResult> {
  const result: CloseResult = { closed: [], failed: [] };
  const before = Math.min(endedBefore, deps.now());
  for (;;) {
    limits.signal?.throwIfAborted();
    const due = await dueIds(
      deps,
      before,
      result.failed.map((one) => one.subscription),
    );
    if (due.length === 0) return result;
    deps.atStep?.('found');
    try {
      result.closed.push(...(await closeBatch(deps, due, before)));
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      // One that can't be rated (its meter is gone) must not hold up the others: each by itself, once.
      for (const id of due)
        try {
          result.closed.push(...(await closeBatch(deps, [id], before)));
        } catch (single) {
          if (!(single instanceof TidemarkError)) throw single;
          result.failed.push({ subscription: id, error: `${single.message} (${single.code})` });
        }
    }
    deps.atStep?.('committed');
    await limits.onBatch?.(result.closed.length);
  }
}

/** What a purge has taken away can't be counted: it would come back as adjustments. */
const DUE = `
  SELECT id FROM subscriptions WHERE next_close_at <= $1 AND id <> ALL ($2::uuid[])
    AND NOT EXISTS (SELECT FROM tenants AS t WHERE t.id = tenant_id AND t.purged_at IS NOT NULL)
  ORDER BY next_close_at, id LIMIT $3`;

async function dueIds(deps: CloseDeps, before: number, except: string[]): Promise<string[]> {
  const { rows } = await deps.pool.query<{ id: string }>(DUE, [iso(before), except, deps.batch ?? 200]);
  return rows.map((row) => row.id);
}

/** One snapshot, taken after the lock: LOCK TABLE takes none (PostgreSQL manual, LOCK). */
export async function inSeriesOrder<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  return withTransaction(pool, async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    // A batch may wait for another one, and read a year: it is bounded by its size, not by the clock.
    await client.query('SET LOCAL statement_timeout = 0');
    await client.query('LOCK TABLE statement_series IN EXCLUSIVE MODE');
    return work(client);
  });
}

async function closeBatch(deps: CloseDeps, ids: readonly string[], before: number): Promise<string[]> {
  return inSeriesOrder(deps.pool, async (client) => {
    const subscriptions = await loadSubscriptions(client, { ids }, true);
    deps.atStep?.('locked');
    const statements = await makeStatements(client, deps, periodsOf(subscriptions, before));
    deps.atStep?.('rated');
    await writeStatements(client, statements);
    await moveOn(client, subscriptions, statements);
    await announce(client, statements.flatMap(eventsOf));
    deps.atStep?.('written');
    return statements.map((one) => numberOf(one.serial));
  });
}

/** Another process may have closed some meanwhile. */
const periodsOf = (subscriptions: readonly Subscription[], before: number) =>
  subscriptions.flatMap((subscription) => {
    const period = periodFrom(rulesOf(subscription), subscription.closedUntil);
    return period === undefined || period.to > before ? [] : [billedPeriod(subscription, period)];
  });

/** Statements with the next numbers, in the caller's snapshot. @param reissue of one that was made void just now */
export async function makeStatements(
  client: Queryable,
  deps: CloseDeps,
  billed: ReturnType<typeof periodsOf>,
  reissue: { revision: number; replaces: string | null; reason: string | null } = {
    revision: 0,
    replaces: null,
    reason: null,
  },
): Promise<Finished[]> {
  const { rows } = await client.query<{ last: number }>(
    'UPDATE statement_series SET last = last + $1 RETURNING last::float8 AS last',
    [billed.length],
  );
  const first = (rows[0]?.last ?? 0) - billed.length + 1;
  const closedAt = deps.now();
  const since = closedAt - deps.adjustWithinMs;
  const positions = await readPositions(client);
  const source = (needs: readonly Need[]) => readUsages(client, deps, needs, positions);
  const lines = await assembleLines(client, source, billed, { before: first, since });
  const grants = await loadGrants(client, [...new Set(billed.map((one) => one.subscription.tenantId))]);
  return billed.map((one, i) => {
    const own = lines.get(one) ?? new RatedLines();
    const serial = first + i;
    const head = headOf(
      one,
      own,
      {
        number: numberOf(serial),
        ...reissue,
        positions,
        adjusted_since: iso(since),
        closed_at: iso(closedAt),
      },
      (payable) => burn(grants, payable),
    );
    return finish(serial, head, own);
  });
}

/** What the snapshot's commits have covered. */
export async function readPositions(database: Queryable): Promise<Position[]> {
  const { rows } = await database.query<Position>(
    'SELECT topic, partition, shard, next::float8 AS next FROM log_offsets ORDER BY shard',
  );
  return rows;
}

async function moveOn(client: Queryable, subscriptions: readonly Subscription[], statements: readonly Finished[]) {
  const closed = new Map(statements.map((one) => [one.head.subscription, Date.parse(one.head.period.to)]));
  const moved = subscriptions.map((one) => {
    const until = closed.get(one.id) ?? one.closedUntil;
    return { id: one.id, until, next: nextCloseAt(rulesOf(one), until) };
  });
  await client.query(
    `UPDATE subscriptions AS s SET closed_until = m.until, next_close_at = m.next
     FROM unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[]) AS m(id, until, next) WHERE m.id = s.id`,
    [moved.map((one) => one.id), moved.map((one) => iso(one.until)), moved.map((one) => one.next)],
  );
}

/** What is told about a statement. */
export function eventsOf({ head, lines, checksum }: Finished) {
  const { positions: _positions, terms: _terms, ...shown } = head;
  return [
    { event: 'statement.closed' as const, id: `statement.closed:${head.number}`, data: { ...shown, checksum } },
    ...(lines.adjusting.size === 0
      ? []
      : [
          {
            event: 'adjustment.created' as const,
            id: `adjustment.created:${head.number}`,
            data: {
              statement: head.number,
              tenant: head.tenant,
              subscription: head.subscription,
              currency: head.currency,
              adjusts: [...new Set(lines.adjusting.values())].map(numberOf),
              lines: lines.adjusting.size,
              amount: lines.adjusted.toFixed(minorUnitOf(head.currency)),
            },
          },
        ]),
  ];
}
