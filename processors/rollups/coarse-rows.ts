/** Rows of `rollups_coarse` on their way into it. */
import type { ClientBase } from 'pg';
import { compareDecimals, type Decimal, decimalFrom, ExactSum } from '../../metering/index.ts';
import { BinaryCopy, copyInto } from '../../sinks/index.ts';

const COPY =
  'COPY rollups_coarse (bucket, level, meter_id, shard, tenant_id, group_key, count, last_at, last_key, sum, min, max, last, sketch) FROM STDIN (FORMAT binary)';
const COLUMNS = 14;
const COPY_BYTES = 1 << 20;

/** What rows add up to, but for their sketches. */
export class Total {
  count = 0;
  sum: ExactSum | null = null;
  min: Decimal | null = null;
  max: Decimal | null = null;
  last: Decimal | null = null;
  lastAt = Number.NEGATIVE_INFINITY;
  lastKey = '';

  add(row: RowValues): void {
    this.count += row.count;
    if (row.sum !== null) {
      this.sum ??= new ExactSum();
      this.sum.add(row.sum);
    }
    if (row.min !== null && (this.min === null || compareDecimals(row.min, this.min) < 0)) this.min = row.min;
    if (row.max !== null && (this.max === null || compareDecimals(row.max, this.max) > 0)) this.max = row.max;
    const { last, lastAt, lastKey } = row;
    if (last !== null && (lastAt > this.lastAt || (lastAt === this.lastAt && lastKey > this.lastKey))) {
      this.last = last;
      this.lastAt = lastAt;
      this.lastKey = lastKey;
    }
  }
}

interface RowValues {
  count: number;
  sum: Decimal | null;
  min: Decimal | null;
  max: Decimal | null;
  last: Decimal | null;
  lastAt: number;
  lastKey: string;
}

/** Numbers as PostgreSQL's text, times in Unix ms. */
export interface RowTexts {
  count: string;
  sum: string | null;
  min: string | null;
  max: string | null;
  last: string | null;
  last_at: number | null;
  last_key: string | null;
}
/** The columns of `RowTexts` of a rollup table `r`. */
export const VALUE_TEXTS = `r.count::text AS count, r.sum::text AS sum, r.min::text AS min, r.max::text AS max, r.last::text AS last,
    (extract(epoch FROM r.last_at) * 1000)::float8 AS last_at, r.last_key::text AS last_key`;

const decimal = (text: string | null): Decimal | null => (text === null ? null : decimalFrom(text));

export const valuesOf = (row: RowTexts): RowValues => ({
  count: Number(row.count),
  sum: decimal(row.sum),
  min: decimal(row.min),
  max: decimal(row.max),
  last: decimal(row.last),
  lastAt: row.last_at ?? Number.NEGATIVE_INFINITY,
  lastKey: row.last_key ?? '',
});

/** Where a row stands; `bucket` in Unix ms. */
export interface Place {
  shard: number;
  meterId: number;
  level: number;
  bucket: number;
  tenantId: string;
  groupKey: string;
}

const uuidBytes = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex');

/** Collects rows, and sends them a mebibyte at a time. */
export class CoarseWriter {
  readonly #client: ClientBase;
  readonly #copy = new BinaryCopy();

  constructor(client: ClientBase) {
    this.#client = client;
  }

  add(place: Place, total: Total, sketch: string | null): void {
    const copy = this.#copy;
    copy.row(COLUMNS);
    copy.timestamptz(place.bucket);
    copy.int4(place.level);
    copy.int4(place.meterId);
    copy.int4(place.shard);
    copy.uuid(uuidBytes(place.tenantId), 0);
    copy.uuid(uuidBytes(place.groupKey), 0);
    copy.int8(total.count);
    if (total.last === null) {
      copy.null();
      copy.null();
    } else {
      copy.timestamptz(total.lastAt);
      copy.uuid(uuidBytes(total.lastKey), 0);
    }
    for (const value of [total.sum, total.min, total.max, total.last])
      if (value === null) copy.null();
      else copy.numeric(value);
    if (sketch === null) copy.null();
    else copy.text(sketch);
  }

  /** @param rest also what is less than worth sending */
  async send(rest: boolean): Promise<void> {
    if (this.#copy.rows === 0 || (!rest && this.#copy.bytes < COPY_BYTES)) return;
    await copyInto(this.#client, COPY, this.#copy.finish());
    this.#copy.reset();
  }
}
