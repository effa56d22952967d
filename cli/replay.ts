/** Sends backed-up events of a tenant again, through the same scanner as ingest: what comes out is what came in. */
import { RateLimits, scanBody } from '../ingest/index.ts';
import { type Principal, SCOPES, type Settings, type Tenant, TidemarkError } from '../schemas/index.ts';
import type { EventLog } from '../sinks/index.ts';
import type { RestoreDeps } from '../tenants/index.ts';

const RESTORE: Principal = { keyId: 'restore', tenant: null, scopes: new Set(SCOPES) };
const NO_RATES = { free: null, standard: null, enterprise: null, discovered: null };

export function replayInto(log: EventLog, settings: Settings): RestoreDeps['replay'] {
  const limits = new RateLimits(NO_RATES);
  // Where the corrections went that came out of backups: later ones may correct them.
  const corrections = new Map<string, number>();
  const context = {
    principal: RESTORE,
    settings: {
      maxAgeMs: Number.POSITIVE_INFINITY,
      maxAheadMs: Number.POSITIVE_INFINITY,
      unknownTenants: settings.UNKNOWN_TENANTS,
      rates: NO_RATES,
      appendDeadlineMs: settings.APPEND_DEADLINE_MS,
      lagLimit: settings.LAG_LIMIT,
      spread: settings.SPREAD_TENANTS,
    },
    partitions: log.partitions,
    limits,
    backfill: true,
    placed: (claimKey: string) => corrections.get(claimKey) ?? null,
  };
  return async (tenant, lines) => {
    for (const [kind, form, name] of [
      ['L', 'log', 'customer_id'],
      ['C', 'cloudevents', 'subject'],
    ] as const) {
      const member = `{${JSON.stringify(name)}:${JSON.stringify(tenant.customerId)},`;
      // The tenant goes in as text: parsing would cost numbers their digits.
      const bodies = lines.filter((line) => line.startsWith(kind)).map((line) => member + line.slice(2));
      if (bodies.length === 0) continue;
      // As for the events themselves, it is open whether the tenant sends meanwhile.
      const open: Tenant = { ...tenant, status: 'ready' };
      const scanned = scanBody(Buffer.from(`[${bodies.join(',')}]`), {
        ...context,
        form,
        now: Date.now(),
        tenant: () => open,
      });
      const [first] = scanned.rejected;
      if (first !== undefined)
        throw new TidemarkError('backup_damaged', `an event of the backup is refused: ${first.code}, ${first.detail}`);
      await log.append(scanned.batches);
      for (const [claimKey, partition] of scanned.corrections) corrections.set(claimKey, partition);
    }
  };
}
