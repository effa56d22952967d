/** Who gets how many connections: from recent demand to sizes that fit into one budget. Pure; time is an argument. */

export const CLASSES = ['hot', 'warm', 'cold'] as const;
export type PoolClass = (typeof CLASSES)[number];
/** most connections of a tenant of each class */
export type PoolSizes = Readonly<Record<PoolClass, number>>;

/** Demand fades to half in this time, so that a burst is noticed in seconds and forgotten in a minute. */
const HALF_LIFE_MS = 15_000;
/** Mean number of connections wanted at once from which a tenant is hot or warm. */
const THRESHOLDS: PoolSizes = { hot: 1, warm: 0.2, cold: 0 };
/** A class is kept until demand falls below this share of its threshold: no flapping at the edge. */
const HYSTERESIS = 0.5;

/** Exponentially fading mean of the connections that a tenant uses or waits for. */
export class Demand {
  #mean: number;
  #wanted = 0;
  #at: number;

  /** A new tenant begins warm: its first minutes are its first impression. */
  constructor(now: number) {
    this.#mean = THRESHOLDS.warm;
    this.#at = now;
  }

  /** @param wanted connections in use and waited for from now on @param now Unix ms */
  set(wanted: number, now: number): void {
    this.at(now);
    this.#wanted = wanted;
  }

  /** The mean as of `now` (Unix ms). */
  at(now: number): number {
    const keep = 2 ** (-Math.max(0, now - this.#at) / HALF_LIFE_MS);
    this.#mean = this.#wanted + (this.#mean - this.#wanted) * keep;
    this.#at = now;
    return this.#mean;
  }
}

export interface Ranked {
  tenant: string;
  demand: number;
  /** the class until now */
  was: PoolClass;
}

/**
 * The class of every tenant. Each wants the class of its demand; where the budget can't give all of them what they want,
 * the greatest demand is served first and the rest is cold.
 * As long as there are no more tenants than connections, the sizes add up to the budget at most.
 */
export function rank(tenants: readonly Ranked[], sizes: PoolSizes, budget: number): Map<string, PoolClass> {
  const classes = new Map<string, PoolClass>();
  let spare = budget - tenants.length * sizes.cold;
  for (const one of tenants.toSorted((a, b) => b.demand - a.demand || (a.tenant < b.tenant ? -1 : 1))) {
    const wanted = CLASSES.slice(CLASSES.indexOf(classOf(one)));
    const given = wanted.find((name) => sizes[name] - sizes.cold <= Math.max(0, spare)) ?? 'cold';
    spare -= sizes[given] - sizes.cold;
    classes.set(one.tenant, given);
  }
  return classes;
}

function classOf({ demand, was }: Ranked): PoolClass {
  const reaches = (name: PoolClass) => {
    const held = CLASSES.indexOf(was) <= CLASSES.indexOf(name);
    return demand >= THRESHOLDS[name] * (held ? HYSTERESIS : 1);
  };
  return CLASSES.find(reaches) ?? 'cold';
}
