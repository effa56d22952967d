/**
 * Raw rows read back as events, for a backfill and for withdrawals: the same view that a record of the log gives, so
 * that the same code counts both. Rows of the archive are read in the same way.
 */
import type { ClientBase } from 'pg';
import { ATTRIBUTE_COLUMNS, KIND, LIMITS, type RawEventRow, VOID_TYPE } from '../schemas/index.ts';
import { ABSENT, type AttributeNames, EventView } from './event-view.ts';
import { JsonSource } from './json-source.ts';

/** Rows a fetch: memory is bounded by it, not by the range. */
const FETCH = 2_000;
/** A long has at most so many digits on the log (see ingest). */
const LONG_DIGITS = 15;

/** One raw row: head columns, then one JSON text an attribute. */
type StoredRow = [
  tenant: Buffer,
  key: Buffer,
  at: number,
  shard: number,
  offset: number,
  type: string,
  user: string | null,
  request: string | null,
  ...attributes: (string | null)[],
];

/** What is known of a stored event beside its view. */
export interface Stored {
  /** the tenant's UUID, 16 bytes */
  tenantId: Buffer;
  /** claim key, 16 bytes */
  key: Buffer;
  shard: number;
  offset: number;
  type: string;
}

export class StoredEvents {
  readonly view: EventView;
  readonly #names: AttributeNames;
  readonly #columns: string;
  readonly #paths: string[][] = [];
  /** slots in the order of the attribute columns of the statement */
  readonly #slots: number[] = [];
  /** the same attributes in the JSON of an archived row */
  readonly #source = new JsonSource();
  readonly #found: (string | null)[];
  #scratch = Buffer.allocUnsafe(1 << 14);
  #used = 0;

  /** @param names of the attributes that are read; only these are in the view */
  constructor(names: AttributeNames) {
    this.#names = names;
    this.view = new EventView(names);
    const columns = names.names.flatMap((name, slot) => {
      if (slot === names.userSlot || slot === names.requestSlot) return [];
      for (const [rank, path] of waysOf(name).entries()) this.#source.want(this.#slots.length, path, rank);
      this.#slots.push(slot);
      return [this.#column(name)];
    });
    this.#found = this.#slots.map(() => null);
    this.#columns = [
      'uuid_send(e.tenant_id)',
      'uuid_send(e.key)',
      '(extract(epoch FROM e."timestamp") * 1000)::float8',
      'e.shard',
      'e.log_offset::float8',
      'e.type',
      'e.user_id',
      'e.request_id',
      ...columns,
    ].join(', ');
  }

  /** An attribute as JSON: its column, where it has one, else wherever in `data` ingest found that name. */
  #column(name: string): string {
    const column = ATTRIBUTE_COLUMNS.find((one) => one.name === name);
    const inData = waysOf(name).map((path) => {
      this.#paths.push(path);
      return `e.data #> $${this.#paths.length}::text[]`;
    });
    return `coalesce(${[...(column === undefined ? [] : [`to_jsonb(e.${column.name})`]), ...inData].join(', ')})::text`;
  }

  /**
   * Calls `take` with every raw event that `where` selects and nobody has withdrawn; `view` is that event meanwhile.
   * @param client in a transaction
   * @param where conditions on `e`; `$n` from `parameters`
   */
  async read(
    client: ClientBase,
    where: (bind: (value: unknown, type: string) => string) => string,
    take: (stored: Stored) => void,
  ): Promise<void> {
    const values: unknown[] = [...this.#paths];
    const conditions = where((value, type) => `$${values.push(value)}::${type}`);
    await client.query(
      `DECLARE stored_events NO SCROLL CURSOR FOR SELECT ${this.#columns} FROM events AS e
       WHERE ${conditions} AND e.type <> '${VOID_TYPE}'
         AND NOT EXISTS (SELECT FROM withdrawals AS w WHERE w.shard = e.shard AND w.key = e.key)`,
      values,
    );
    for (;;) {
      const { rows } = await client.query<StoredRow>({ text: `FETCH ${FETCH} FROM stored_events`, rowMode: 'array' });
      for (const row of rows) {
        this.#open(row);
        take({ tenantId: row[0], key: row[1], shard: row[3], offset: row[4], type: row[5] });
      }
      if (rows.length < FETCH) break;
    }
    await client.query('CLOSE stored_events');
  }

  /** Makes an archived row the event of `view`. */
  openArchived(event: RawEventRow): Stored {
    const { timestamp, shard, log_offset: offset, type, user_id: user, request_id: request } = event;
    const tenantId = bytesOf(event.tenant_id);
    const key = bytesOf(event.key);
    this.#source.read(event.data, this.#found);
    this.#open([tenantId, key, timestamp, shard, offset, type, user, request, ...this.#found]);
    return { tenantId, key, shard, offset, type };
  }

  #open(row: StoredRow): void {
    const { view } = this;
    const [, , at, , , type, user, request, ...attributes] = row;
    this.#used = 0;
    view.kinds.fill(ABSENT);
    view.timestamp = at;
    [view.typeStart, view.typeEnd] = this.#text(type);
    [view.userStart, view.userEnd] = user === null ? [-1, 0] : this.#text(user);
    [view.requestStart, view.requestEnd] = request === null ? [-1, 0] : this.#text(request);
    for (const [i, slot] of this.#slots.entries()) {
      const json = attributes[i];
      if (json !== null && json !== undefined) this.#attribute(slot, json);
    }
    view.bytes = this.#scratch;
    view.fillFields();
  }

  /** As ingest wrote it on the log: see `ingest/event-scan.ts` and `ingest/numbers.ts`. */
  #attribute(slot: number, json: string): void {
    const { view } = this;
    switch (json[0]) {
      case '"': {
        const text: unknown = JSON.parse(json);
        if (typeof text !== 'string' || Buffer.byteLength(text) > LIMITS.attributeBytes) return;
        view.kinds[slot] = KIND.string;
        [view.starts[slot], view.ends[slot]] = this.#text(text);
        return;
      }
      case 't':
      case 'f':
        view.kinds[slot] = KIND.boolean;
        view.longs[slot] = json === 'true' ? 1 : 0;
        return;
      case '{':
      case '[':
      case 'n':
        return;
    }
    if (/^-?\d+$/.test(json) && json.length <= LONG_DIGITS + (json[0] === '-' ? 1 : 0)) {
      view.kinds[slot] = KIND.long;
      view.longs[slot] = Number(json);
      return;
    }
    view.kinds[slot] = KIND.decimal;
    [view.starts[slot], view.ends[slot]] = this.#text(json);
  }

  #text(text: string): [start: number, end: number] {
    const length = Buffer.byteLength(text);
    if (this.#used + length > this.#scratch.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#scratch.length * 2, this.#used + length));
      this.#scratch.copy(grown, 0, 0, this.#used);
      this.#scratch = grown;
    }
    const start = this.#used;
    this.#used += this.#scratch.write(text, start, 'utf8');
    return [start, this.#used];
  }
}

const bytesOf = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex');

/** Every way in which a dotted name may stand in an object: `a.b` as {a: {b}} or {"a.b"}. The deepest first. */
function waysOf(name: string): string[][] {
  const parts = name.split('.');
  // Five parts have sixteen ways; beyond them only the plain one is looked for.
  if (parts.length > 5) return [parts, [name]];
  const ways: string[][] = [];
  for (let joins = 0; joins < 1 << (parts.length - 1); joins++) {
    const way = [parts[0] ?? ''];
    for (let i = 1; i < parts.length; i++) {
      const part = parts[i] ?? '';
      if ((joins >> (i - 1)) & 1) way.push(`${way.pop()}.${part}`);
      else way.push(part);
    }
    ways.push(way);
  }
  return ways;
}
