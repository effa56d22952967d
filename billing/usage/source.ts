import type { FindMeter, Position, Queryable, ReadRawEvents, ReadUsage } from './ports.ts';
import { readRaw } from './raw-usage.ts';
import { type Need, readRollups, type Usages } from './usage.ts';

/** What billing reads metered values with. */
export interface BillingPorts {
  findMeter: FindMeter;
  readUsage: ReadUsage;
  readRawEvents: ReadRawEvents;
}

const HOUR = 3_600_000;

/**
 * Metered values in the caller's snapshot: from rollups. Where a range begins or ends inside an hour whose minutes have
 * been dropped (long periods of old data), that one is counted from raw events, up to the same positions.
 * @throws TidemarkError `unknown_meter`
 */
export async function readUsages(
  database: Queryable,
  ports: BillingPorts,
  needs: readonly Need[],
  positions: readonly Position[],
): Promise<Usages> {
  const isDropped = await droppedMinutes(database, needs);
  const fromRaw = (need: Need) => [need.from, need.to].some((at) => at % HOUR !== 0 && isDropped(at));
  const rollups = await readRollups(
    database,
    ports,
    needs.filter((need) => !fromRaw(need)),
  );
  const raw = new Map<string, Usages>();
  for (const [customer, own] of Map.groupBy(needs.filter(fromRaw), (need) => need.customerId))
    raw.set(customer, await readRaw(ports, own, positions));
  return (need) => (fromRaw(need) ? (raw.get(need.customerId)?.(need) ?? []) : rollups(need));
}

const dayOf = (at: number): string => new Date(at).toISOString().slice(0, 10);

/** Whether the minutes around a time are gone. */
async function droppedMinutes(database: Queryable, needs: readonly Need[]): Promise<(at: number) => boolean> {
  const days = new Set(
    needs
      .flatMap((need) => [need.from, need.to])
      .filter((at) => at % HOUR !== 0)
      .map(dayOf),
  );
  if (days.size === 0) return () => false;
  const { rows } = await database.query<{ day: string }>(
    'SELECT day::text AS day FROM archived_minutes WHERE day = ANY ($1::date[])',
    [[...days]],
  );
  const dropped = new Set(rows.map((row) => row.day));
  return (at) => dropped.has(dayOf(at));
}
