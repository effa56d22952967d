import { TidemarkError } from '../../schemas/index.ts';
import { periodFrom } from '../subscriptions/periods.ts';
import { loadSubscriptions, rulesOf } from '../subscriptions/subscriptions.ts';
import type { Queryable } from '../usage/ports.ts';
import { announce } from '../webhooks/outbox.ts';
import { type CloseDeps, eventsOf, inSeriesOrder, makeStatements } from './close.ts';
import { billedPeriod } from './lines.ts';
import { numberOf } from './numbers.ts';
import { findStatement, type StoredStatement } from './store.ts';
import { type Finished, writeStatements } from './write.ts';

/**
 * Makes a statement void, with a reason; gives its credit back; and, where asked for, issues its period anew from what
 * is metered now. The statement itself stays as it is.
 * @returns number of the new statement, or null
 * @throws TidemarkError `not_found` | `statement_void` | `statement_adjusted`
 */
export async function voidStatement(
  deps: CloseDeps,
  serial: number,
  { reason, reissue }: { reason: string; reissue: boolean },
): Promise<string | null> {
  return inSeriesOrder(deps.pool, async (client) => {
    const statement = await findStatement(client, serial);
    if (statement === undefined) throw new TidemarkError('not_found', `there is no statement ${numberOf(serial)}`);
    if (statement.void !== null)
      throw new TidemarkError('statement_void', `${numberOf(serial)} was made void: ${statement.void.reason}`);
    await refuseAdjusted(client, serial);
    const { rows } = await client.query<{ last: number }>('SELECT last::float8 AS last FROM statement_series');
    await client.query(
      `INSERT INTO credit_burns (grant_id, number, amount, is_return)
       SELECT grant_id, number, -amount, true FROM credit_burns WHERE number = $1 AND NOT is_return`,
      [serial],
    );
    const insert = (reissuedAs: number | null) =>
      client.query(
        'INSERT INTO statement_voids (number, reason, reissued_as, after_number, voided_at) VALUES ($1, $2, $3, $4, $5)',
        [serial, reason, reissuedAs, rows[0]?.last ?? serial, new Date(deps.now()).toISOString()],
      );
    if (!reissue) {
      await insert(null);
      return null;
    }
    const made = await issueAnew(client, deps, statement, reason);
    await writeStatements(client, [made]);
    await insert(made.serial);
    await announce(client, eventsOf(made));
    return numberOf(made.serial);
  });
}

async function refuseAdjusted(client: Queryable, serial: number): Promise<void> {
  const { rows } = await client.query<{ number: number }>(
    `SELECT l.number::float8 AS number FROM statement_lines AS l
     WHERE l.adjusts = $1 AND NOT EXISTS (SELECT FROM statement_voids AS v WHERE v.number = l.number) ORDER BY 1 LIMIT 1`,
    [serial],
  );
  if (rows[0] !== undefined)
    throw new TidemarkError(
      'statement_adjusted',
      `${numberOf(rows[0].number)} adjusts ${numberOf(serial)}: void it first`,
    );
}

async function issueAnew(
  client: Queryable,
  deps: CloseDeps,
  { head }: StoredStatement,
  reason: string,
): Promise<Finished> {
  const [subscription] = await loadSubscriptions(client, { ids: [head.subscription] });
  const period = subscription && periodFrom(rulesOf(subscription), Date.parse(head.period.from));
  if (subscription === undefined || period === undefined) throw new Error(`the subscription of ${head.number} is gone`);
  const { rows } = await client.query<{ revision: number }>(
    'SELECT max(revision) + 1 AS revision FROM statements WHERE subscription_id = $1 AND period_from = $2',
    [subscription.id, head.period.from],
  );
  const [made] = await makeStatements(client, deps, [billedPeriod(subscription, period)], {
    revision: rows[0]?.revision ?? 1,
    replaces: head.number,
    reason,
  });
  if (made === undefined) throw new Error('nothing was made');
  return made;
}
