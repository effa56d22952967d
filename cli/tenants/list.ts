import type { Command } from 'commander';
import { askServer } from '../api-client.ts';
import { table } from '../demo/table.ts';
import { type Flags, print, withReason } from './flags.ts';

interface TenantRow {
  id: string;
  slug: string | null;
  customer_id: string;
  tier: string;
  status: string;
}

interface InactiveRow extends TenantRow {
  last_event_at: string | null;
  schema_bytes: number;
}

/** `tidemark tenants list`: all, or those that archiving would save something of. */
export function listCommand(tenants: Command): void {
  withReason(tenants.command('list').description('All tenants'))
    .option('--inactive-days <n>', 'only those without an event for so long, and what archiving them would free')
    .action(async ({ inactiveDays, ...flags }: Flags & { inactiveDays?: string }) =>
      inactiveDays === undefined ? listAll(flags) : listInactive(flags, inactiveDays),
    );
}

async function listAll(flags: Flags): Promise<void> {
  const rows: TenantRow[] = [];
  let cursor: string | null = null;
  do {
    const answer = await askServer(flags, `/api/v1/tenants?limit=1000${cursor === null ? '' : `&cursor=${cursor}`}`);
    const page = (await answer.json()) as { data: TenantRow[]; next: string | null };
    rows.push(...page.data);
    cursor = page.next;
  } while (cursor !== null);
  print(
    table(
      ['slug', 'customer_id', 'tier', 'status', 'id'],
      rows.map((one) => [one.slug ?? '–', one.customer_id, one.tier, one.status, one.id]),
    ),
  );
}

async function listInactive(flags: Flags, days: string): Promise<void> {
  const query = new URLSearchParams({ inactive_days: days, limit: '1000' });
  const { data } = (await (await askServer(flags, `/api/v1/tenants?${query}`)).json()) as { data: InactiveRow[] };
  const bytes = data.reduce((sum, one) => sum + one.schema_bytes, 0);
  print(
    table(
      ['slug', 'customer_id', 'tier', 'last event', 'schema bytes'],
      [
        ...data.map((one) => [
          one.slug ?? '–',
          one.customer_id,
          one.tier,
          one.last_event_at ?? 'never',
          String(one.schema_bytes),
        ]),
        ['', '', '', 'in all', String(bytes)],
      ],
    ),
  );
}
