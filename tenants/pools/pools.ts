import { Lender, type LenderFigures } from './lender.ts';
import { type PoolClass, type PoolSizes, rank } from './ranking.ts';
import { Session, type TenantConnection } from './session.ts';

export interface PoolSettings {
  /** most connections of all tenants together, those for administration already taken off */
  budget: number;
  sizes: PoolSizes;
  /** longest wait for a connection, ms */
  waitMs: number;
  /** most requests of one tenant that wait */
  queue: number;
  /** a connection unused for so long is closed, ms */
  idleMs: number;
  /** share of the budget in use from which it is said, 0–1 */
  alertAt: number;
}

export interface PoolDeps {
  settings: PoolSettings;
  /** postgres:// URL of the tenant's own role. @throws TidemarkError when it has none */
  urlOf(tenant: string): Promise<string>;
  /** the same on a read replica; absent: there is none */
  replicaUrlOf?: ((tenant: string) => Promise<string>) | undefined;
  /** the budget is nearly used up, or no longer */
  onAlert(alert: { on: boolean; used: number; budget: number }): void;
  /** Unix ms */
  now(): number;
}

/** One tenant's pool; times in milliseconds, counts since this process first saw it. */
export interface PoolFigures extends LenderFigures {
  class: PoolClass;
  limit: number;
  demand: number;
  /** borrows that a read replica served */
  replicaBorrows: number;
}

export interface PoolReport {
  budget: number;
  used: number;
  alert: boolean;
  tenants: PoolFigures[];
}

/** Connections of tenants, each in its own role, under one budget. */
export interface TenantPools {
  /**
   * Lends a connection of the tenant for as long as `work` runs. Nothing that it leaves in the session (transaction, role,
   * settings, temporary tables, locks, listeners, prepared statements) reaches the next borrower.
   * @param readOnly may be served by a read replica
   * @throws TidemarkError `pool_timeout` | `pool_queue_full` | `shutting_down`; what connecting or `work` threw
   */
  use<T>(
    tenant: string,
    work: (connection: TenantConnection) => Promise<T>,
    options?: { readOnly?: boolean },
  ): Promise<T>;
  report(): PoolReport;
  /** Ranks anew, moves connections accordingly, closes idle ones. Runs every second; tests call it. */
  tend(): void;
  /** Closes a tenant's connections: it is suspended, deleted, or moves. */
  evict(tenant: string, error: Error): void;
  /** Never hangs: who is still borrowing after `graceMs` loses the connection. */
  end(graceMs?: number): Promise<void>;
}

const TEND_EVERY_MS = 1_000;
const END_WITHIN_MS = 3_000;
/** The alert ends this far below where it began. */
const ALERT_REARM = 0.1;

export function openTenantPools({ settings, urlOf, replicaUrlOf, onAlert, now }: PoolDeps): TenantPools {
  let classes = new Map<string, PoolClass>();
  const classOf = (tenant: string): PoolClass => classes.get(tenant) ?? 'warm';
  const lenderOf = (url: (tenant: string) => Promise<string>) =>
    new Lender({
      ...settings,
      limitOf: (tenant) => settings.sizes[classOf(tenant)],
      open: async (tenant, onLost) => Session.open(tenant, await url(tenant), now, onLost),
      now,
    });
  const primary = lenderOf(urlOf);
  const replica = replicaUrlOf === undefined ? undefined : lenderOf(replicaUrlOf);
  let alert = false;

  const watch = () => {
    const { used } = primary;
    const share = used / settings.budget;
    if (alert ? share >= settings.alertAt - ALERT_REARM : share < settings.alertAt) return;
    alert = !alert;
    onAlert({ on: alert, used, budget: settings.budget });
  };

  const tend = () => {
    const demand = new Map(primary.demands().map((one) => [one.tenant, one.demand]));
    // A hot tenant that reads from the replica stays hot.
    for (const one of replica?.demands() ?? []) demand.set(one.tenant, (demand.get(one.tenant) ?? 0) + one.demand);
    const ranked = [...demand].map(([tenant, value]) => ({ tenant, demand: value, was: classOf(tenant) }));
    classes = rank(ranked, settings.sizes, settings.budget);
    primary.sweep();
    replica?.sweep();
    watch();
  };
  const timer = setInterval(tend, TEND_EVERY_MS);
  timer.unref();

  const borrow = async <T>(
    lender: Lender,
    tenant: string,
    work: (connection: TenantConnection) => Promise<T>,
  ): Promise<T> => {
    const session = await lender.lend(tenant);
    watch();
    const { connection, end } = session.lend();
    try {
      return await work(connection);
    } finally {
      end();
      await lender.giveBack(session);
    }
  };

  return {
    use: async (tenant, work, { readOnly = false } = {}) => {
      if (readOnly && replica !== undefined && classOf(tenant) === 'hot') return borrow(replica, tenant, work);
      return borrow(primary, tenant, work);
    },
    report: () => {
      const reads = new Map(replica?.figures().map((one) => [one.tenant, one.borrows]));
      const at = new Map(primary.demands().map((one) => [one.tenant, one.demand]));
      return {
        budget: settings.budget,
        used: primary.used,
        alert,
        tenants: primary.figures().map((one) => ({
          ...one,
          class: classOf(one.tenant),
          limit: settings.sizes[classOf(one.tenant)],
          demand: at.get(one.tenant) ?? 0,
          replicaBorrows: reads.get(one.tenant) ?? 0,
        })),
      };
    },
    tend,
    evict: (tenant, error) => {
      primary.evict(tenant, error);
      replica?.evict(tenant, error);
    },
    end: async (graceMs = END_WITHIN_MS) => {
      clearInterval(timer);
      await Promise.all([primary.end(graceMs), replica?.end(graceMs)]);
    },
  };
}
