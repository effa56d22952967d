import { TidemarkError } from '../../schemas/index.ts';
import { Demand } from './ranking.ts';
import type { Session } from './session.ts';

export interface LenderOptions {
  /** most connections of all tenants together */
  budget: number;
  /** longest wait for one */
  waitMs: number;
  /** most requests of one tenant that wait */
  queue: number;
  /** a connection unused for so long is closed */
  idleMs: number;
  /** most connections of this tenant now */
  limitOf(tenant: string): number;
  /** @param onLost the server closed the connection */
  open(tenant: string, onLost: (session: Session) => void): Promise<Session>;
  /** Unix ms */
  now(): number;
}

/** What one tenant did with its connections; times in milliseconds. */
export interface LenderFigures {
  tenant: string;
  /** connections open, of them lent */
  open: number;
  lent: number;
  /** requests in the queue */
  waiting: number;
  /** since the tenant was first seen by this process */
  borrows: number;
  timeouts: number;
  waitMs: number;
  longestWaitMs: number;
}

interface Waiter {
  since: number;
  resolve(session: Session): void;
  reject(error: Error): void;
  timer: NodeJS.Timeout;
}

/** One tenant's connections and queue. */
interface Desk {
  tenant: string;
  idle: Session[];
  lent: Set<Session>;
  opening: number;
  /** being closed; the server still counts them */
  closing: number;
  waiters: Waiter[];
  demand: Demand;
  usedAt: number;
  borrows: number;
  timeouts: number;
  waitMs: number;
  longestWaitMs: number;
}

/**
 * While others starve, a connection serves its tenant's queue for so long before it makes room: some times what opening
 * it took, or a busy machine would do nothing but open connections.
 */
const quantumOf = (session: Session): number => Math.min(1_000, Math.max(100, 4 * session.openMs));
/** A tenant unseen for so long is forgotten. */
const FORGET_MS = 3_600_000;

/** Lends connections of many tenants out of one budget, fairly: nobody waits while another has two more. */
export class Lender {
  readonly #options: LenderOptions;
  readonly #desks = new Map<string, Desk>();
  /** open, being opened and being closed */
  #slots = 0;
  #ending = false;

  constructor(options: LenderOptions) {
    this.#options = options;
  }

  /** connections that count against the budget */
  get used(): number {
    return this.#slots;
  }

  /**
   * @throws TidemarkError `pool_timeout` | `pool_queue_full` | `shutting_down`, or what connecting threw
   */
  lend(tenant: string): Promise<Session> {
    if (this.#ending) return Promise.reject(new TidemarkError('shutting_down', 'the pools are closed'));
    const desk = this.#deskOf(tenant);
    if (desk.waiters.length >= this.#options.queue)
      return Promise.reject(
        new TidemarkError('pool_queue_full', `${desk.waiters.length} requests of this tenant wait for a connection`),
      );
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        since: this.#options.now(),
        resolve,
        reject,
        timer: setTimeout(() => this.#expire(desk, waiter), this.#options.waitMs),
      };
      desk.waiters.push(waiter);
      this.#touch(desk);
      this.#serve(desk);
    });
  }

  /** Takes a connection back, and cleans it for the next borrower. */
  async giveBack(session: Session): Promise<void> {
    const desk = this.#deskOf(session.tenant);
    const clean = !this.#ending && (await session.reset());
    desk.lent.delete(session);
    this.#touch(desk);
    if (!clean || this.#ending || session.broken || sizeOf(desk) >= this.#options.limitOf(desk.tenant)) {
      this.#close(desk, session);
    } else if (this.#mustMakeRoom(desk, session)) {
      this.#close(desk, session);
    } else {
      session.idleSince = this.#options.now();
      desk.idle.push(session);
    }
    this.#serve(desk);
  }

  /** Demand of every tenant known, for ranking. */
  demands(): { tenant: string; demand: number }[] {
    const now = this.#options.now();
    return [...this.#desks.values()].map((desk) => ({ tenant: desk.tenant, demand: desk.demand.at(now) }));
  }

  figures(): LenderFigures[] {
    return [...this.#desks.values()].map((desk) => ({
      tenant: desk.tenant,
      open: desk.idle.length + desk.lent.size,
      lent: desk.lent.size,
      waiting: desk.waiters.length,
      borrows: desk.borrows,
      timeouts: desk.timeouts,
      waitMs: desk.waitMs,
      longestWaitMs: desk.longestWaitMs,
    }));
  }

  /** Closes what is idle for too long or beyond its tenant's limit, serves those whose limit grew, forgets who is gone. */
  sweep(): void {
    const now = this.#options.now();
    for (const desk of this.#desks.values()) {
      const limit = this.#options.limitOf(desk.tenant);
      for (const session of [...desk.idle])
        if (now - session.idleSince >= this.#options.idleMs || sizeOf(desk) > limit) this.#close(desk, session);
      this.#serve(desk);
      const isEmpty = sizeOf(desk) + desk.closing + desk.waiters.length === 0;
      if (isEmpty && now - desk.usedAt > FORGET_MS) this.#desks.delete(desk.tenant);
    }
  }

  /** Closes all connections of one tenant; those lent, when they come back. Its queue is told `error`. */
  evict(tenant: string, error: Error): void {
    const desk = this.#desks.get(tenant);
    if (desk === undefined) return;
    for (const waiter of desk.waiters.splice(0)) {
      clearTimeout(waiter.timer);
      waiter.reject(error);
    }
    for (const session of [...desk.idle]) this.#close(desk, session);
  }

  /**
   * Refuses new borrowers and those who wait, lets the others finish for `graceMs`, then cuts their connections.
   * Never hangs.
   */
  async end(graceMs: number): Promise<void> {
    this.#ending = true;
    for (const desk of this.#desks.values())
      this.evict(desk.tenant, new TidemarkError('shutting_down', 'the pools are closed'));
    const deadline = performance.now() + graceMs;
    while (this.#slots > 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
    const left: Promise<void>[] = [];
    for (const desk of this.#desks.values())
      for (const session of [...desk.lent, ...desk.idle]) left.push(session.close());
    await Promise.all(left);
  }

  #deskOf(tenant: string): Desk {
    let desk = this.#desks.get(tenant);
    if (desk === undefined) {
      const now = this.#options.now();
      desk = {
        tenant,
        idle: [],
        lent: new Set(),
        opening: 0,
        closing: 0,
        waiters: [],
        demand: new Demand(now),
        usedAt: now,
        borrows: 0,
        timeouts: 0,
        waitMs: 0,
        longestWaitMs: 0,
      };
      this.#desks.set(tenant, desk);
    }
    return desk;
  }

  #touch(desk: Desk): void {
    const now = this.#options.now();
    desk.usedAt = now;
    desk.demand.set(desk.lent.size + desk.waiters.length, now);
  }

  /** Gives the queue what is idle, then the neediest what the budget allows. */
  #serve(desk: Desk): void {
    while (desk.waiters.length > 0) {
      const session = desk.idle.pop();
      if (session === undefined) break;
      this.#hand(desk, session);
    }
    while (!this.#ending && this.#slots < this.#options.budget) {
      const neediest = this.#neediest();
      if (neediest === undefined) return;
      this.#open(neediest);
    }
    // The slot comes when that connection is gone.
    if (!this.#ending && isHungry(desk, this.#options.limitOf(desk.tenant))) this.#evictIdle(desk);
  }

  #hand(desk: Desk, session: Session): void {
    const waiter = desk.waiters.shift();
    if (waiter === undefined) {
      session.idleSince = this.#options.now();
      desk.idle.push(session);
      return;
    }
    clearTimeout(waiter.timer);
    const waited = this.#options.now() - waiter.since;
    desk.borrows++;
    desk.waitMs += waited;
    desk.longestWaitMs = Math.max(desk.longestWaitMs, waited);
    desk.lent.add(session);
    this.#touch(desk);
    waiter.resolve(session);
  }

  #open(desk: Desk): void {
    desk.opening++;
    this.#slots++;
    this.#options
      .open(desk.tenant, (session) => {
        const at = desk.idle.indexOf(session);
        if (at >= 0) this.#close(desk, session);
      })
      .then(
        (session) => {
          desk.opening--;
          if (this.#ending || session.broken) this.#close(desk, session);
          else this.#hand(desk, session);
        },
        (error: Error) => {
          desk.opening--;
          this.#slots--;
          const waiter = desk.waiters.shift();
          if (waiter !== undefined) {
            clearTimeout(waiter.timer);
            waiter.reject(error);
          }
          this.#touch(desk);
        },
      )
      .finally(() => {
        this.#serve(desk);
      });
  }

  #close(desk: Desk, session: Session): void {
    const at = desk.idle.indexOf(session);
    if (at >= 0) desk.idle.splice(at, 1);
    desk.closing++;
    void session.close().finally(() => {
      desk.closing--;
      this.#slots--;
      this.#serve(desk);
    });
  }

  /** The neediest first: fewest connections, then longest wait. */
  #neediest(): Desk | undefined {
    let found: Desk | undefined;
    for (const desk of this.#desks.values()) {
      if (!isHungry(desk, this.#options.limitOf(desk.tenant))) continue;
      if (found === undefined || sizeOf(desk) < sizeOf(found)) found = desk;
      else if (sizeOf(desk) === sizeOf(found) && sinceOf(desk) < sinceOf(found)) found = desk;
    }
    return found;
  }

  /** Whether a connection that comes back is worth more to another tenant. */
  #mustMakeRoom(desk: Desk, session: Session): boolean {
    if (this.#slots < this.#options.budget) return false;
    const other = this.#neediest();
    if (other === undefined || other === desk) return false;
    if (desk.waiters.length === 0) return true;
    // This one is counted in neither: it is neither lent nor idle now.
    const own = sizeOf(desk) + 1;
    if (sizeOf(other) + 1 < own) return true;
    return sizeOf(other) < own && this.#options.now() - session.openedAt >= quantumOf(session);
  }

  /** Closes the connection that is idle for longest, for the sake of `desk`. */
  #evictIdle(desk: Desk): void {
    let oldest: { owner: Desk; session: Session } | undefined;
    for (const owner of this.#desks.values()) {
      const session = owner.idle[0];
      if (owner === desk || session === undefined) continue;
      if (oldest === undefined || session.idleSince < oldest.session.idleSince) oldest = { owner, session };
    }
    if (oldest !== undefined) this.#close(oldest.owner, oldest.session);
  }

  #expire(desk: Desk, waiter: Waiter): void {
    const at = desk.waiters.indexOf(waiter);
    if (at < 0) return;
    desk.waiters.splice(at, 1);
    desk.timeouts++;
    this.#touch(desk);
    waiter.reject(
      new TidemarkError('pool_timeout', `no connection of this tenant came free within ${this.#options.waitMs} ms`),
    );
  }
}

/** Connections that the tenant has or is about to have. */
const sizeOf = (desk: Desk): number => desk.idle.length + desk.lent.size + desk.opening;
const isHungry = (desk: Desk, limit: number): boolean =>
  desk.waiters.length > desk.opening + desk.idle.length && sizeOf(desk) < limit;
const sinceOf = (desk: Desk): number => desk.waiters[0]?.since ?? Number.POSITIVE_INFINITY;
