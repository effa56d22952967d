import { binOf, Decimal } from '../../metering/index.ts';
import { KIND, type Meter } from '../../schemas/index.ts';
import { ABSENT, type AttributeNames, type EventView } from '../event-view.ts';
import { Interner } from '../interner.ts';
import { type CompiledMeter, compileMeter, readMeasure } from './compile.ts';
import { dropRowsBefore, minuteOfLatest } from './oldest-rows.ts';
import { groupKeyOf, Row, Series } from './row.ts';
import { SeriesTable } from './series-table.ts';

export const MINUTE = 60_000;
export const HOUR = 3_600_000;
export const DAY = 86_400_000;
const NOT_LOOKED_UP = -2;
const NULL_ID = -1;
/** Every dimension of the group that stands for all groups beyond the limit. */
const OTHER = 'other';

/** A tenant as the owner of a partition knows it. */
export interface KnownTenant {
  /** small integer, unique in this owner */
  index: number;
  /** the UUID's 16 bytes */
  id: Uint8Array;
}

/** What the database has, Unix ms (see the members of `Rollups`). */
export interface RollupState {
  watermark: number;
  foldedUntil: number;
  /** no row of these meters is there yet, however old */
  empty?: boolean;
  /** minutes are not kept where this counts */
  hoursOnly?: boolean;
}

/** All groups of one meter, tenant and window. */
export interface Cell {
  meterId: number;
  /** the UUID's 16 bytes */
  tenantId: Uint8Array;
  /** start, Unix ms */
  bucket: number;
  isHour: boolean;
}
export interface ClearedCell extends Cell {
  /** events replayed into it */
  count: number;
}

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, 16).toString('hex');
export const cellKey = (meterId: number, tenantId: Uint8Array, bucket: number, isHour: boolean): string =>
  `${meterId} ${hexOf(tenantId)} ${bucket} ${isHour}`;

/** A meter and its place among the owner's. */
interface MeterEntry {
  meter: CompiledMeter;
  index: number;
}

/**
 * The rollup rows that a partition's owner keeps in memory. `observe` adds an event to every meter that counts it;
 * the rows it touches are then loaded where cold, and written as absolute values.
 */
export class Rollups {
  readonly #meters: readonly CompiledMeter[];
  /** some meter counts one tenant only */
  readonly #scoped: boolean;
  readonly #keyWidth: number;
  #interner = new Interner();
  #table: SeriesTable;
  /** compiled meters by interned event type */
  #byType: (readonly MeterEntry[] | undefined)[] = [];
  /** the same by tenant, where that matters */
  #byTenant: (readonly MeterEntry[] | undefined)[][] = [];
  #key: Int32Array;
  #dimensionIds: Int32Array;
  readonly #measure = new Decimal();
  /** rows in memory */
  rowCount = 0;
  /** rows that the current batch touched */
  touched: Row[] = [];
  /** series that the current batch saw first */
  newSeries: Series[] = [];
  /** cells that the current batch counts anew, by `cellKey` */
  readonly cleared = new Map<string, ClearedCell>();
  /** minute rows that begin after this can't be in the database unless they are in memory (Unix ms) */
  newAfter: number;
  /** hours that begin before this have hour rows, which late events change too (Unix ms) */
  foldedUntil: number;
  #latestMinute = Number.NEGATIVE_INFINITY;
  /** the database has no rows of these meters where this counts */
  readonly #empty: boolean;
  readonly #hoursOnly: boolean;

  constructor(meters: readonly Meter[], names: AttributeNames, state: RollupState) {
    this.#meters = meters.map((meter) => compileMeter(meter, names));
    this.#scoped = this.#meters.some((meter) => meter.tenantId !== null);
    this.#keyWidth = 2 + Math.max(0, ...meters.map((meter) => meter.groupBy.length));
    this.#key = new Int32Array(this.#keyWidth);
    this.#table = new SeriesTable(this.#keyWidth);
    this.#dimensionIds = new Int32Array(names.names.length);
    this.newAfter = state.watermark;
    this.foldedUntil = state.foldedUntil;
    this.#empty = state.empty === true;
    this.#hoursOnly = state.hoursOnly === true;
  }

  /** Adds one event to the rows of batch number `batch`. */
  observe(event: EventView, tenant: KnownTenant, keys: Uint8Array, keyAt: number, batch: number): void {
    const typeId = this.#interner.idOf(event.bytes, event.typeStart, event.typeEnd);
    const meters = this.#metersOf(typeId, tenant);
    const minute = Math.floor(event.timestamp / MINUTE) * MINUTE;
    const folded = minute < this.foldedUntil;
    this.#dimensionIds.fill(NOT_LOOKED_UP);
    for (let m = 0; m < meters.length; m++) {
      const entry = meters[m];
      if (entry === undefined || !this.#counts(event, entry.meter)) continue;
      const series = this.#seriesOf(event, tenant, entry.meter, entry.index);
      if (!this.#hoursOnly) {
        let row = series.last;
        if (row === undefined || row.bucket !== minute) {
          row = this.#rowOf(series, series.minutes, minute);
          series.last = row;
        }
        this.#touch(row, batch);
        this.#apply(row, event, minute, keys, keyAt);
      }
      if (folded) {
        const hour = Math.floor(minute / HOUR) * HOUR;
        const hourRow = this.#rowOf(series, series.hours, hour);
        this.#touch(hourRow, batch);
        this.#apply(hourRow, event, hour, keys, keyAt);
      }
    }
    if (minute > this.#latestMinute) this.#latestMinute = minute;
  }

  /** Ids of the meters that count the event. */
  countedBy(event: EventView, tenant: KnownTenant): number[] {
    const typeId = this.#interner.idOf(event.bytes, event.typeStart, event.typeEnd);
    return this.#metersOf(typeId, tenant)
      .filter(({ meter }) => this.#counts(event, meter))
      .map(({ meter }) => meter.meter.id);
  }

  /**
   * Empties cells, all their groups: the commit deletes their stored rows, and what `replay` and `observe` add until
   * the end of the batch is all there is of them. Nothing of the partition may be in flight, before and after.
   */
  clear(cells: readonly Cell[]): void {
    for (const cell of cells)
      this.cleared.set(cellKey(cell.meterId, cell.tenantId, cell.bucket, cell.isHour), { ...cell, count: 0 });
    const places = Map.groupBy(cells, (cell) => `${cell.meterId} ${hexOf(cell.tenantId)}`);
    for (const series of this.#table.all)
      for (const { bucket, isHour } of places.get(`${series.meter.meter.id} ${hexOf(series.tenantId)}`) ?? []) {
        if ((isHour ? series.hours : series.minutes).delete(bucket / MINUTE)) this.rowCount--;
        if (series.last?.bucket === bucket) series.last = undefined;
      }
  }

  /** Adds a stored event to the cleared cells that it belongs to. @param counts whether a meter's live rows have it */
  replay(
    event: EventView,
    tenant: KnownTenant,
    key: Uint8Array,
    batch: number,
    counts: (meterId: number) => boolean,
  ): void {
    const typeId = this.#interner.idOf(event.bytes, event.typeStart, event.typeEnd);
    const minute = Math.floor(event.timestamp / MINUTE) * MINUTE;
    const hour = Math.floor(minute / HOUR) * HOUR;
    this.#dimensionIds.fill(NOT_LOOKED_UP);
    for (const { meter, index } of this.#metersOf(typeId, tenant)) {
      const { id } = meter.meter;
      const inMinute = this.cleared.get(cellKey(id, tenant.id, minute, false));
      const inHour = this.cleared.get(cellKey(id, tenant.id, hour, true));
      if ((inMinute === undefined && inHour === undefined) || !counts(id) || !this.#counts(event, meter)) continue;
      const series = this.#seriesOf(event, tenant, meter, index);
      for (const cell of [inMinute, inHour]) {
        if (cell === undefined) continue;
        const row = this.#rowOf(series, cell.isHour ? series.hours : series.minutes, cell.bucket);
        this.#touch(row, batch);
        this.#apply(row, event, cell.bucket, key, 0);
        cell.count++;
      }
    }
  }

  #metersOf(typeId: number, tenant: KnownTenant): readonly MeterEntry[] {
    if (!this.#scoped) return this.#byType[typeId] ?? this.#find(typeId, null);
    const byType = this.#byTenant[tenant.index] ?? [];
    this.#byTenant[tenant.index] = byType;
    const known = byType[typeId];
    if (known !== undefined) return known;
    const found = this.#find(typeId, tenant.id);
    byType[typeId] = found;
    return found;
  }

  #find(typeId: number, tenantId: Uint8Array | null): readonly MeterEntry[] {
    const type = this.#interner.text(typeId);
    const found = this.#meters
      .map((meter, index) => ({ meter, index }))
      .filter(({ meter }) => meter.meter.eventType === '*' || meter.meter.eventType === type)
      .filter(
        ({ meter }) => meter.tenantId === null || (tenantId !== null && Buffer.compare(meter.tenantId, tenantId) === 0),
      );
    if (tenantId === null) this.#byType[typeId] = found;
    return found;
  }

  /** Whether the meter counts the event; leaves the number that it needs in `#measure`. */
  #counts(event: EventView, meter: CompiledMeter): boolean {
    if (event.timestamp < meter.eventFrom || !meter.counts(event)) return false;
    if (meter.valueSlot < 0) return true;
    if (meter.meter.aggregation === 'UNIQUE_COUNT') return event.kinds[meter.valueSlot] !== ABSENT;
    return readMeasure(event, meter.valueSlot, this.#measure);
  }

  #seriesOf(event: EventView, tenant: KnownTenant, meter: CompiledMeter, index: number): Series {
    const key = this.#key;
    key.fill(NULL_ID);
    key[0] = index;
    key[1] = tenant.index;
    const slots = meter.groupSlots;
    for (let i = 0; i < slots.length; i++) key[i + 2] = this.#dimension(event, slots[i] as number);
    const known = this.#table.find(key);
    if (known !== undefined) return known.other ?? known;
    const values = slots.map((_, i) => ((key[i + 2] as number) < 0 ? null : this.#interner.text(key[i + 2] as number)));
    const series = new Series(meter, tenant, groupKeyOf(tenant.id, meter.meter.id, values), values);
    series.isOther = slots.length > 0 && values.every((value) => value === OTHER);
    this.#table.add(key, series);
    this.newSeries.push(series);
    return series;
  }

  /** Counts series of this batch, which have nothing stored, in the group `other` of their meter and tenant instead. */
  foldIntoOther(folded: readonly Series[]): void {
    const gone = new Set(folded);
    this.touched = this.touched.filter((row) => !gone.has(row.series));
    this.newSeries = this.newSeries.filter((series) => !gone.has(series));
    for (const series of folded) {
      const other = this.#otherOf(series);
      series.other = other;
      for (const own of [series.minutes, series.hours]) {
        for (const row of own.values()) {
          const target = this.#rowOf(other, row.isHour ? other.hours : other.minutes, row.bucket);
          this.#touch(target, row.batch);
          target.merge(row);
          this.rowCount--;
        }
        own.clear();
      }
      series.last = undefined;
    }
  }

  #otherOf(series: Series): Series {
    const key = new Int32Array(this.#keyWidth).fill(NULL_ID);
    key[0] = this.#meters.indexOf(series.meter);
    key[1] = series.tenantIndex;
    const name = this.#interner.idOfText(OTHER);
    for (let i = 0; i < series.values.length; i++) key[i + 2] = name;
    const known = this.#table.find(key);
    if (known !== undefined) {
      known.isOther = true;
      return known;
    }
    const values = series.values.map(() => OTHER);
    const other = new Series(
      series.meter,
      { id: series.tenantId, index: series.tenantIndex },
      groupKeyOf(series.tenantId, series.meter.meter.id, values),
      values,
    );
    other.isOther = true;
    this.#table.add(key, other);
    this.newSeries.push(other);
    return other;
  }

  /** Interned id of a dimension's text; once an event, however many meters group by it. */
  #dimension(event: EventView, slot: number): number {
    const seen = this.#dimensionIds[slot] as number;
    if (seen !== NOT_LOOKED_UP) return seen;
    const kind = event.kinds[slot] as number;
    let id = NULL_ID;
    if (kind === KIND.string || kind === KIND.decimal)
      id = this.#interner.idOf(event.bytes, event.starts[slot] as number, event.ends[slot] as number);
    else if (kind === KIND.long) id = this.#interner.idOfText(String(event.longs[slot]));
    else if (kind === KIND.boolean) id = this.#interner.idOfText(event.longs[slot] === 1 ? 'true' : 'false');
    this.#dimensionIds[slot] = id;
    return id;
  }

  #rowOf(series: Series, rows: Map<number, Row>, bucket: number): Row {
    const known = rows.get(bucket / MINUTE);
    if (known !== undefined) return known;
    const isHour = rows === series.hours;
    const row = new Row(series, bucket, isHour);
    row.based =
      this.#empty ||
      (!isHour && bucket > this.newAfter) ||
      (this.cleared.size > 0 && this.cleared.has(cellKey(series.meter.meter.id, series.tenantId, bucket, isHour)));
    rows.set(bucket / MINUTE, row);
    this.rowCount++;
    return row;
  }

  #touch(row: Row, batch: number): void {
    if (row.batch === batch) return;
    row.batch = batch;
    this.touched.push(row);
  }

  #apply(row: Row, event: EventView, bucket: number, keys: Uint8Array, keyAt: number): void {
    const value = this.#measure;
    const { meter } = row.series;
    row.count++;
    switch (meter.meter.aggregation) {
      case 'COUNT':
        return;
      case 'SUM':
      case 'AVG':
        row.addSum(value);
        return;
      case 'MIN':
      case 'MAX':
        row.addExtremes(value, value);
        return;
      case 'LATEST':
        row.addLast(value, event.timestamp, keys, keyAt);
        return;
      case 'PERCENTILE':
        row.addSum(value);
        row.addExtremes(value, value);
        row.addBin(binOf(value.toNumber()), 1);
        return;
      case 'PEAK':
      case 'TIME_WEIGHTED_AVG':
        if (meter.meter.valueKind === 'gauge') {
          row.addExtremes(value, value);
          row.addReport(value, event.timestamp - bucket);
        } else {
          row.addSum(value);
          row.addChange(value, event.timestamp - bucket);
        }
        return;
      case 'UNIQUE_COUNT': {
        const member = this.#dimension(event, meter.valueSlot);
        row.addMember(member);
      }
    }
  }

  memberText(id: number): string {
    return this.#interner.text(id);
  }

  /** Ends a batch: everything it touched is on its way to the database. */
  endBatch(): void {
    this.touched = [];
    this.newSeries = [];
    if (this.cleared.size > 0) this.cleared.clear();
  }

  /** Minutes that begin after this have no rows yet (Unix ms). */
  get watermark(): number {
    return Math.max(this.newAfter, this.#latestMinute);
  }

  /** How much is in memory, in rows: distinct values count a sixteenth of a row, a group an eighth. */
  get weight(): number {
    return this.rowCount + this.#interner.size / 16 + this.#table.all.length / 8;
  }

  /** Forgets the oldest minutes until half of `most` is free, everything where groups and values fill it. No batch may be in flight. */
  makeRoom(most: number): void {
    const room = most - (this.weight - this.rowCount);
    const first = room < most / 4 ? Number.POSITIVE_INFINITY : minuteOfLatest(this.#table.all, room / 2);
    if (first === Number.POSITIVE_INFINITY) this.forget();
    else {
      this.rowCount = dropRowsBefore(this.#table.all, first);
      this.newAfter = Math.max(this.newAfter, (first - 1) * MINUTE);
    }
  }

  /** Forgets everything that is stored; call only when no batch is in flight. What comes again is loaded again. */
  forget(): void {
    this.#table = new SeriesTable(this.#keyWidth);
    this.#interner = new Interner();
    this.#byType = [];
    this.#byTenant = [];
    this.rowCount = 0;
    this.newAfter = this.watermark;
    this.endBatch();
  }
}
