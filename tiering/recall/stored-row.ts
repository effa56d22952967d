/** A row of the archive as the row of the database that it was made of (see archive/row-sql.ts). */
import { Decimal, parseDecimal } from '../../metering/index.ts';
import { ATTRIBUTE_COLUMNS, type AttributeColumn, RAW_EVENT_COLUMNS, TidemarkError } from '../../schemas/index.ts';
import { type BinaryCopy, quoteIdentifier } from '../../sinks/index.ts';
import { keyOfArchived } from '../reading/raw-events.ts';
import type { ArchivedEvent } from '../reading/reader.ts';

const COLUMNS = [...RAW_EVENT_COLUMNS, 'stored_at'];

/** COPY of rows into a table with the columns of the raw events. */
export const copyStored = (table: string): string =>
  `COPY ${quoteIdentifier(table)} (${COLUMNS.map(quoteIdentifier).join(', ')}) FROM STDIN (FORMAT binary)`;

/**
 * Appends a row. When it was stored at first is not in the archive: it was received then.
 * @throws TidemarkError `archive_damaged` where `data` is not what the archive writes
 */
export function writeStoredRow(copy: BinaryCopy, event: ArchivedEvent): void {
  copy.row(COLUMNS.length);
  copy.timestamptz(event.at);
  copy.timestamptz(event.received_at);
  copy.int8(event.log_offset);
  copy.int4(event.shard);
  copy.uuid(bytesOf(event.tenant_id), 0);
  copy.uuid(bytesOf(keyOfArchived(event)), 0);
  copy.bool(event.keyed_by_source);
  copy.text(event.idempotency_key);
  optional(copy, event.source);
  copy.text(event.type);
  optional(copy, event.user_id);
  optional(copy, event.request_id);
  writeData(copy, event.data);
  copy.timestamptz(event.received_at);
}

const bytesOf = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex');

function optional(copy: BinaryCopy, text: string | null): void {
  if (text === null) copy.null();
  else copy.text(text);
}

/** Columns that stand in `data` come first, in order, with nothing behind the colon; what PostgreSQL prints of jsonb has a space there. */
const MEMBERS = ATTRIBUTE_COLUMNS.map((column) => ({ column, head: `"${column.name}":` }));
const LITERAL = /"(?:[^"\\]|\\.)*"|-?[0-9.]+/y;

function writeData(copy: BinaryCopy, data: string): void {
  let at = 1;
  for (const { column, head } of MEMBERS) {
    const from = at + head.length;
    if (!data.startsWith(head, at) || data[from] === ' ') {
      copy.null();
      continue;
    }
    LITERAL.lastIndex = from;
    const literal = LITERAL.exec(data)?.[0] ?? '';
    writeAttribute(copy, column, literal);
    at = from + literal.length;
    if (data[at] === ',') at++;
  }
  if (data[at] === '}' && at === data.length - 1) {
    copy.null();
    return;
  }
  const rest = Buffer.from(`{${data.slice(at)}`);
  copy.jsonb(rest, rest.length);
}

const decimal = new Decimal();

function writeAttribute(copy: BinaryCopy, { name, holds }: AttributeColumn, literal: string): void {
  if (holds === 'text' && literal.startsWith('"')) copy.text(JSON.parse(literal));
  else if (holds === 'integer' && /^-?\d+$/.test(literal)) copy.int4(Number(literal));
  else {
    const bytes = Buffer.from(literal);
    if (holds !== 'numeric' || !parseDecimal(bytes, 0, bytes.length, decimal))
      throw new TidemarkError('archive_damaged', `${name} is ${literal || 'cut off'}, which no column held`);
    copy.numeric(decimal);
  }
}
