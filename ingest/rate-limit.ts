import type { Rate, Tier } from '../schemas/index.ts';

interface Bucket {
  tokens: number;
  at: number;
}

/** Buckets kept; those full again are forgotten first. */
const MOST = 50_000;

/** A token bucket a tenant: `perSecond` flow in, at most `burst` are kept. */
export class RateLimits {
  readonly #rates: Record<Tier, Rate | null>;
  readonly #buckets = new Map<string, Bucket>();

  constructor(rates: Record<Tier, Rate | null>) {
    this.#rates = rates;
  }

  rateOf(tier: Tier): Rate | null {
    return this.#rates[tier];
  }

  /** Takes one token at `now` (ms). @returns false when there is none */
  take(tenant: string, rate: Rate, now: number): boolean {
    const bucket = this.#fill(tenant, rate, now);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  /** Gives tokens back for events that were not appended after all. */
  giveBack(tenant: string, count: number): void {
    const bucket = this.#buckets.get(tenant);
    if (bucket !== undefined) bucket.tokens += count;
  }

  /** Whole seconds until a token is there, and how many are left. */
  state(tenant: string, rate: Rate, now: number): { remaining: number; resetSeconds: number } {
    const { tokens } = this.#fill(tenant, rate, now);
    return {
      remaining: Math.floor(tokens),
      resetSeconds: tokens >= 1 ? 0 : Math.max(1, Math.ceil((1 - tokens) / rate.perSecond)),
    };
  }

  #fill(tenant: string, rate: Rate, now: number): Bucket {
    let bucket = this.#buckets.get(tenant);
    if (bucket === undefined) {
      if (this.#buckets.size >= MOST) this.#forgetOldest();
      bucket = { tokens: rate.burst, at: now };
      this.#buckets.set(tenant, bucket);
    }
    bucket.tokens = Math.min(rate.burst, bucket.tokens + (Math.max(0, now - bucket.at) * rate.perSecond) / 1000);
    bucket.at = now;
    return bucket;
  }

  #forgetOldest(): void {
    let left = MOST / 10;
    for (const name of this.#buckets.keys()) {
      if (left-- <= 0) break;
      this.#buckets.delete(name);
    }
  }
}
