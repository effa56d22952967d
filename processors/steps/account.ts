import type { ClientBase } from 'pg';
import type { Tenants } from '../tenants.ts';
import type { Applied } from './apply.ts';
import { type Identified, offsetAt } from './identify.ts';

/** Stands for records whose tenant can't be read, or does not exist. */
export const NIL_TENANT = '00000000-0000-0000-0000-000000000000';

const ADD = `
  INSERT INTO accounting (shard, tenant_id, received, accepted, duplicate, dead_lettered)
  SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
  ON CONFLICT (shard, tenant_id) DO UPDATE SET
    received = accounting.received + excluded.received, accepted = accounting.accepted + excluded.accepted,
    duplicate = accounting.duplicate + excluded.duplicate, dead_lettered = accounting.dead_lettered + excluded.dead_lettered`;

const ADD_DEAD_LETTERS = `
  INSERT INTO dead_letters (shard, log_offset, tenant_id, reason, detail, payload)
  SELECT $1, * FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::bytea[])`;

interface Count {
  received: number;
  accepted: number;
  duplicate: number;
  deadLettered: number;
}

export interface DeadLetter {
  offset: number;
  tenantId: string;
  reason: string;
  detail: string;
  payload: Buffer;
}

/** Where every record of the batch went. */
export interface Account {
  total: Count;
  tenants: Map<string, Count>;
  deadLetters: DeadLetter[];
}

const none = (): Count => ({ received: 0, accepted: 0, duplicate: 0, deadLettered: 0 });

/** Step 4: counts where every record went: received = accepted + duplicate + dead-lettered (P4). */
export function createAccountStep(deps: { tenants: Tenants }) {
  const { tenants } = deps;

  return function account(found: Identified, applied: Applied): Account {
    const { slice } = found;
    const result: Account = { total: none(), tenants: new Map(), deadLetters: [] };
    const byIndex: (Count | undefined)[] = [];
    const nowhere = none();
    const countOf = (tenant: number): Count => {
      const known = byIndex[tenant];
      if (known !== undefined) return known;
      const id = tenant < 0 ? undefined : tenants.get(tenant);
      if (id === undefined) return nowhere;
      const count = none();
      byIndex[tenant] = count;
      result.tenants.set(Buffer.from(id.id).toString('hex'), count);
      return count;
    };
    for (let s = 0; s < found.soundCount; s++) {
      const i = found.sound[s] as number;
      if (found.faults.size > 0 && found.faults.has(i)) continue;
      const count = countOf(found.tenants[i] as number);
      count.received++;
      if (applied.applied[s] === 1) count.accepted++;
      else count.duplicate++;
    }
    for (const [i, fault] of found.faults) {
      const tenant = found.tenants[i] as number;
      const count = countOf(tenant);
      count.received++;
      count.deadLettered++;
      const known = tenant < 0 ? undefined : tenants.get(tenant);
      result.deadLetters.push({
        offset: offsetAt(slice, i),
        tenantId: known === undefined ? NIL_TENANT : Buffer.from(known.id).toString('hex'),
        reason: fault.reason,
        detail: fault.detail,
        payload: Buffer.from(slice.bytes.slice(i === 0 ? 0 : slice.ends[i - 1], slice.ends[i])),
      });
    }
    if (nowhere.received > 0) result.tenants.set(NIL_TENANT, nowhere);
    for (const count of result.tenants.values()) {
      result.total.received += count.received;
      result.total.accepted += count.accepted;
      result.total.duplicate += count.duplicate;
      result.total.deadLettered += count.deadLettered;
    }
    return result;
  };
}

export async function writeAccount(client: ClientBase, shard: number, account: Account): Promise<void> {
  const counts = [...account.tenants.values()];
  if (counts.length === 0) return;
  await client.query({
    name: 'add_accounting',
    text: ADD,
    values: [
      shard,
      [...account.tenants.keys()],
      counts.map((count) => count.received),
      counts.map((count) => count.accepted),
      counts.map((count) => count.duplicate),
      counts.map((count) => count.deadLettered),
    ],
  });
}

export async function writeDeadLetters(
  client: ClientBase,
  shard: number,
  letters: readonly DeadLetter[],
): Promise<void> {
  if (letters.length === 0) return;
  await client.query(ADD_DEAD_LETTERS, [
    shard,
    letters.map((letter) => letter.offset),
    letters.map((letter) => letter.tenantId),
    letters.map((letter) => letter.reason),
    letters.map((letter) => letter.detail),
    letters.map((letter) => letter.payload),
  ]);
}
