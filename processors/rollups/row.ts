import { hash } from 'node:crypto';
import { compareDecimals, type Decimal, ExactSum } from '../../metering/index.ts';
import { Bins } from './bins.ts';
import type { CompiledMeter } from './compile.ts';
import { Levels } from './levels.ts';

/** One meter, tenant and group: what rows of all its windows have in common. */
export class Series {
  readonly meter: CompiledMeter;
  /** the tenant's UUID, 16 bytes */
  readonly tenantId: Uint8Array;
  /** the owner's number of the tenant */
  readonly tenantIndex: number;
  /** 16 bytes */
  readonly groupKey: Uint8Array;
  /** in the order of the meter's groupBy */
  readonly values: readonly (string | null)[];
  /** whether rollup_groups has it, as far as this owner knows */
  known = false;
  /** by minutes since 1970: small integers make a faster key than milliseconds */
  readonly minutes = new Map<number, Row>();
  /** by minutes since 1970 at the hour's start */
  readonly hours = new Map<number, Row>();
  /** the group that is counted in its place: there are too many (see `CardinalityGuard`) */
  other: Series | undefined;
  /** it is that group */
  isOther = false;
  /** the row of the last event: the next one is mostly in the same minute */
  last: Row | undefined;

  constructor(
    meter: CompiledMeter,
    tenant: { id: Uint8Array; index: number },
    groupKey: Uint8Array,
    values: readonly (string | null)[],
  ) {
    this.meter = meter;
    this.tenantId = tenant.id;
    this.tenantIndex = tenant.index;
    this.groupKey = groupKey;
    this.values = values;
  }
}

/** First 128 bits of SHA-256 over tenant, meter and values: the same in every process, without asking the database. */
export function groupKeyOf(tenantId: Uint8Array, meterId: number, values: readonly (string | null)[]): Uint8Array {
  const text = `${Buffer.from(tenantId).toString('hex')}\n${meterId}\n${JSON.stringify(values)}`;
  // A copy in the pool: keys of series that are made together stand together, and none has a memory of its own.
  return Buffer.from(hash('sha256', text, 'buffer').subarray(0, 16));
}

/** A rollup row in memory: absolute values, as they will stand in the database after the next commit. */
export class Row {
  readonly series: Series;
  /** start of the window, Unix ms */
  readonly bucket: number;
  /** an hour row (its hour is folded), not a minute row */
  readonly isHour: boolean;
  /** number of the batch that last touched it */
  batch = -1;
  /** the database has a row for it (committed, or in the commit in flight) */
  stored = false;
  /** its stored values were added, or it is known to have none */
  based = false;

  count = 0;
  sum: ExactSum | null = null;
  min: ExactSum | null = null;
  max: ExactSum | null = null;
  last: ExactSum | null = null;
  lastAt = Number.NEGATIVE_INFINITY;
  lastKey: Uint8Array | null = null;
  bins: Bins | null = null;
  levels: Levels | null = null;
  /** UNIQUE_COUNT: interned values written already, or about to be */
  members: Set<number> | null = null;
  /** of these, the ones that this batch saw first */
  fresh: number[] = [];

  constructor(series: Series, bucket: number, isHour: boolean) {
    this.series = series;
    this.bucket = bucket;
    this.isHour = isHour;
  }

  addSum(value: Decimal | ExactSum): void {
    if (this.sum === null) this.sum = new ExactSum();
    this.sum.add(value);
  }

  addExtremes(low: Decimal | ExactSum, high: Decimal | ExactSum): void {
    if (this.min === null || this.max === null) {
      this.min = new ExactSum();
      this.max = new ExactSum();
      this.min.set(low);
      this.max.set(high);
      return;
    }
    if (compareDecimals(low, this.min) < 0) this.min.set(low);
    if (compareDecimals(high, this.max) > 0) this.max.set(high);
  }

  /** The latest by time, then by key: no result depends on the order of events. */
  addLast(value: Decimal | ExactSum, at: number, keys: Uint8Array, keyAt: number): void {
    if (at < this.lastAt) return;
    if (at === this.lastAt && this.lastKey !== null && compareKeys(keys, keyAt, this.lastKey) <= 0) return;
    this.lastAt = at;
    this.lastKey = keys.slice(keyAt, keyAt + 16);
    if (this.last === null) this.last = new ExactSum();
    this.last.set(value);
  }

  /** A report of a gauge: of those of one millisecond the highest counts. */
  addReport(level: Decimal | ExactSum, offset: number): void {
    if (this.levels === null) this.levels = new Levels();
    this.levels.addReport(offset, level);
    const at = this.bucket + offset;
    if (at < this.lastAt || (at === this.lastAt && this.last !== null && compareDecimals(level, this.last) <= 0))
      return;
    this.lastAt = at;
    if (this.last === null) this.last = new ExactSum();
    this.last.set(level);
  }

  addChange(change: Decimal | ExactSum, offset: number): void {
    if (this.levels === null) this.levels = new Levels();
    this.levels.addChange(offset, change);
  }

  /** Adds what another row of the same meter has counted. */
  merge(from: Row): void {
    this.count += from.count;
    if (from.sum !== null) this.addSum(from.sum);
    if (from.min !== null && from.max !== null) this.addExtremes(from.min, from.max);
    if (from.last !== null && from.lastKey !== null) this.addLast(from.last, from.lastAt, from.lastKey, 0);
    if (from.bins !== null)
      for (let i = 0; i < from.bins.length; i++)
        this.addBin(from.bins.keys[i] as number, from.bins.counts[i] as number);
    if (from.levels !== null) this.#mergeLevels(from.levels);
    for (const member of from.members ?? []) this.addMember(member);
  }

  #mergeLevels(levels: Levels): void {
    const isGauge = this.series.meter.meter.valueKind === 'gauge';
    for (let i = 0; i < levels.length; i++) {
      const value = levels.values[i] as ExactSum;
      const offset = levels.offsets[i] as number;
      if (isGauge) this.addReport(value, offset);
      else this.addChange(value, offset);
    }
  }

  /** An interned distinct value. */
  addMember(member: number): void {
    if (this.members === null) this.members = new Set();
    if (this.members.has(member)) return;
    this.members.add(member);
    this.fresh.push(member);
  }

  addBin(bin: number, count: number): void {
    if (this.bins === null) this.bins = new Bins();
    this.bins.add(bin, count);
  }
}

function compareKeys(keys: Uint8Array, at: number, other: Uint8Array): number {
  for (let i = 0; i < 16; i++) {
    const difference = (keys[at + i] as number) - (other[i] as number);
    if (difference !== 0) return difference;
  }
  return 0;
}
