/** A request's body → records for the log, and what was rejected. Pure but for the tenant cache and the rate limits. */
import { isUtf8 } from 'node:buffer';
import { type ErrorCode, LIMITS, type Rejection, TidemarkError } from '../schemas/index.ts';
import type { RecordBatch } from '../sinks/index.ts';
import { type Addressed, EnvelopeReader } from './envelope.ts';
import { MODE } from './event-fields.ts';
import { EventScan } from './event-scan.ts';
import { CHAR, JsonScanner, MalformedJson } from './json-scanner.ts';
import { Placement } from './placement.ts';
import { type RecordWriter, RecordWriters } from './record-writer.ts';
import type { ScanContext } from './scan-context.ts';
import { TenantSlots } from './tenant-slots.ts';

export interface ScannedBody {
  batches: RecordBatch[];
  /** hold the batches' bytes: to be given back when those have been read */
  writers: RecordWriter[];
  accepted: number;
  rejected: Rejection[];
  /** customer_ids to be asked for; if there are any, nothing else here counts: scan again */
  unknown: Set<string>;
  /** claim keys whose place is to be asked for; likewise */
  unplaced: Set<string>;
  /** corrections of spread tenants: claim key → partition */
  corrections: Map<string, number>;
  /** rate tokens taken, by tenant id: to be given back if nothing is appended */
  taken: Map<string, number>;
}

/**
 * Scans a whole body, to its end before anything else runs.
 * @throws TidemarkError `invalid_json` (where the rest can't be trusted), `body_too_large` (too many events)
 */
export function scanBody(body: Buffer, context: ScanContext, memory = new ScanMemory()): ScannedBody {
  try {
    return new BodyScan(body, context, memory).run();
  } finally {
    memory.scanner.release();
  }
}

/** What scans use one after another: making it takes longer than scanning an event, and names are known from body to body. */
export class ScanMemory {
  readonly writers = new RecordWriters();
  readonly scanner = new JsonScanner();
  readonly scan = new EventScan(this.scanner);
}

class BodyScan {
  readonly #context: ScanContext;
  readonly #scanner: JsonScanner;
  readonly #scan: EventScan;
  readonly #free: RecordWriters;
  /** by partition */
  readonly #writers: (RecordWriter | undefined)[] = [];
  readonly #tenants: TenantSlots;
  readonly #envelopes: EnvelopeReader;
  readonly #placement: Placement;
  readonly #valid: boolean;
  readonly #used: RecordWriter[] = [];
  readonly #rejected: Rejection[] = [];
  #accepted = 0;
  #index = 0;

  constructor(body: Buffer, context: ScanContext, { writers, scanner, scan }: ScanMemory) {
    this.#context = context;
    this.#free = writers;
    this.#scanner = scanner;
    this.#scan = scan;
    scanner.begin(body);
    scan.beginBody();
    this.#tenants = new TenantSlots(context);
    this.#placement = new Placement(context);
    this.#envelopes = new EnvelopeReader(context, this.#scanner, this.#scan, this.#tenants);
    this.#valid = isUtf8(body);
  }

  run(): ScannedBody {
    if (this.#context.form === 'ndjson') this.#lines();
    else this.#document();
    return {
      batches: this.#used.map((writer) => writer.batch()),
      writers: this.#used,
      accepted: this.#accepted,
      rejected: this.#rejected,
      unknown: this.#tenants.unknown,
      unplaced: this.#placement.unplaced,
      corrections: this.#placement.corrections,
      taken: this.#tenants.taken,
    };
  }

  /** One event, or an array of events. */
  #document(): void {
    const scanner = this.#scanner;
    try {
      const first = scanner.peek();
      if (first === -1) return;
      if (first !== CHAR.openArray) this.#event();
      else {
        scanner.at++;
        if (scanner.peek() === CHAR.closeArray) scanner.at++;
        else {
          for (let more = true; more; ) {
            this.#event();
            const next = scanner.peek();
            if (next !== CHAR.comma && next !== CHAR.closeArray) scanner.fail('expected "," or "]"');
            scanner.at++;
            more = next === CHAR.comma;
          }
        }
      }
      if (scanner.peek() !== -1) scanner.fail('something follows the end');
    } catch (error) {
      if (!(error instanceof MalformedJson)) throw error;
      throw new TidemarkError('invalid_json', `event ${this.#index}, byte ${error.at}: ${error.message}`, {
        extensions: { index: this.#index, byte: error.at },
      });
    }
  }

  /** An event a line; a malformed line is rejected alone. */
  #lines(): void {
    const scanner = this.#scanner;
    const { bytes: body, end } = scanner;
    let from = 0;
    while (from < end) {
      const newline = body.indexOf(10, from);
      const to = newline < 0 || newline > end ? end : newline;
      if (!isBlank(body, from, to)) this.#line(from, to);
      from = to + 1;
    }
  }

  #line(from: number, to: number): void {
    const scanner = this.#scanner;
    scanner.at = from;
    try {
      this.#event(to);
    } catch (error) {
      if (!(error instanceof MalformedJson)) throw error;
      this.#reject('invalid_json', '', `byte ${error.at - from} of the line: ${error.message}`);
    }
  }

  /** @param lineEnd the event must end here */
  #event(lineEnd = -1): void {
    if (this.#index >= LIMITS.batchEvents)
      throw new TidemarkError('body_too_large', `more than ${LIMITS.batchEvents} events`);
    const scan = this.#scan;
    const scanner = this.#scanner;
    scan.scan(this.#context.form === 'cloudevents' ? MODE.cloudEvent : MODE.log);
    if (lineEnd >= 0 && (scanner.at > lineEnd || !isBlank(scanner.bytes, scanner.at, lineEnd)))
      scanner.fail('the line is no single JSON object');
    if (!this.#valid && !isUtf8(scanner.bytes.subarray(scan.from, scan.to)))
      scan.refuse('invalid_character', '', 'invalid UTF-8');
    const envelope = scan.code === null ? this.#envelopes.read() : undefined;
    if (scan.code !== null) {
      this.#reject(scan.code, scan.field, scan.detail);
      return;
    }
    if (envelope !== undefined) this.#accept(envelope);
    this.#index++;
  }

  #reject(code: ErrorCode, field: string, detail: string): void {
    this.#rejected.push({ index: this.#index++, code, ...(field === '' ? {} : { field }), detail });
  }

  #accept(envelope: Addressed): void {
    const partition = this.#placement.of(envelope, envelope.replaced, envelope.tenant);
    if (partition === undefined) return;
    let writer = this.#writers[partition];
    if (writer === undefined) {
      writer = this.#free.take(partition);
      this.#writers[partition] = writer;
      this.#used.push(writer);
    }
    writer.write(envelope, this.#scan, this.#scanner.bytes);
    this.#accepted++;
  }
}

function isBlank(bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    const byte = bytes[i] as number;
    if (byte !== 32 && byte !== 9 && byte !== 13) return false;
  }
  return true;
}
