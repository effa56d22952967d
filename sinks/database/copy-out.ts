import { once } from 'node:events';
import type { ClientBase, Connection, Submittable } from 'pg';

const HEADER = 5;
const COPY_DATA = 0x64;
/** CopyOutResponse, ParameterStatus, NoticeResponse, NotificationResponse: they may stand between the rows. */
const PASSED = new Set([0x48, 0x53, 0x4e, 0x41]);
/** Bytes collected before they are handed on. */
const BLOCK = 1 << 20;
/** Digits of a row's length: PostgreSQL's rows of 10 MB and more are none of ours. */
const LENGTH_DIGITS = 7;
const [ZERO, TAB] = [0x30, 0x09];

/**
 * Sends what a COPY answers to `write`, a mebibyte at a time. PostgreSQL sends a message a row; pg-copy-streams makes a
 * buffer of each and joins them again, which takes as much time as PostgreSQL takes for the rows (docs/decisions.md).
 * Each row stands behind its length in bytes, of seven digits, and a tab: so its reader can tell whether it is the row that
 * PostgreSQL sent. Messages "will always correspond to single data rows" (PostgreSQL manual, "Message Formats").
 * @param sql `COPY … TO STDOUT`, made of constants
 * @param write gets bytes that are valid until it resolves; nothing is read from the connection meanwhile
 * @returns rows
 * @throws DatabaseError, what `write` throws, or the signal's reason; `client` may be in the middle of the COPY then: release it
 * with the error
 */
export async function copyOutOf(
  client: ClientBase,
  sql: string,
  write: (bytes: Buffer) => Promise<void>,
  signal: AbortSignal,
): Promise<number> {
  signal.throwIfAborted();
  const over = new AbortController();
  const aborted = once(signal, 'abort', { signal: over.signal }).then(() => signal.throwIfAborted());
  try {
    const rows = client.query(new CopyOut(sql, write)).rows;
    await Promise.race([rows, aborted]);
    return await rows;
  } finally {
    aborted.catch(() => undefined);
    over.abort();
  }
}

/** A query whose answer is read from the socket past pg's parser, up to the end of the rows. */
class CopyOut implements Submittable {
  readonly rows: Promise<number>;
  readonly #sql: string;
  readonly #write: (bytes: Buffer) => Promise<void>;
  readonly #resolve: (rows: number) => void;
  readonly #reject: (error: unknown) => void;
  #block = Buffer.allocUnsafeSlow(BLOCK);
  #filled = 0;
  readonly #header = Buffer.allocUnsafeSlow(HEADER);
  #headed = 0;
  #isData = false;
  /** bytes of the current message that are still to come */
  #left = 0;
  #count = 0;
  #giveBack: ((rest: Buffer) => void) | undefined;

  constructor(sql: string, write: (bytes: Buffer) => Promise<void>) {
    this.#sql = sql;
    this.#write = write;
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.rows = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    promise.catch(() => undefined);
  }

  submit(connection: Connection): void {
    const { stream } = connection;
    // The one listener that a connection's socket has: pg's parser of messages.
    const parsers = stream.listeners('data') as ((chunk: Buffer) => void)[];
    stream.removeAllListeners('data');
    const take = (chunk: Buffer) => {
      this.#take(chunk);
      if (this.#giveBack === undefined || this.#filled < BLOCK / 2) return;
      stream.pause();
      this.#flush().then(() => stream.resume(), this.#reject);
    };
    stream.on('data', take);
    this.#giveBack = (rest) => {
      this.#giveBack = undefined;
      stream.removeListener('data', take);
      for (const parser of parsers) stream.on('data', parser);
      for (const parser of parsers) parser(rest);
    };
    connection.query(this.#sql);
  }

  #take(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left === 0) {
        while (this.#headed < HEADER && at < chunk.length) this.#header[this.#headed++] = chunk[at++] ?? 0;
        if (this.#headed < HEADER) return;
        this.#headed = 0;
        const code = this.#header[0] ?? 0;
        this.#isData = code === COPY_DATA;
        if (!this.#isData && !PASSED.has(code)) {
          // The end, or an error: pg's own parser goes on from here.
          this.#giveBack?.(Buffer.concat([this.#header, chunk.subarray(at)]));
          return;
        }
        this.#left = this.#header.readUInt32BE(1) - 4;
        if (this.#isData) this.#writeLength();
        continue;
      }
      const part = Math.min(this.#left, chunk.length - at);
      if (this.#isData) this.#filled += chunk.copy(this.#block, this.#filled, at, at + part);
      this.#left -= part;
      at += part;
    }
  }

  #writeLength(): void {
    this.#reserve(LENGTH_DIGITS + 1 + this.#left);
    let rest = this.#left;
    for (let at = this.#filled + LENGTH_DIGITS - 1; at >= this.#filled; at--) {
      this.#block[at] = ZERO + (rest % 10);
      rest = Math.floor(rest / 10);
    }
    this.#filled += LENGTH_DIGITS;
    this.#block[this.#filled++] = TAB;
  }

  #reserve(bytes: number): void {
    if (this.#filled + bytes <= this.#block.length) return;
    const wider = Buffer.allocUnsafeSlow(Math.max(this.#filled + bytes, 2 * this.#block.length));
    this.#block.copy(wider, 0, 0, this.#filled);
    this.#block = wider;
  }

  async #flush(): Promise<void> {
    await this.#write(this.#block.subarray(0, this.#filled));
    this.#filled = 0;
  }

  handleCommandComplete({ text }: { text: string }): void {
    this.#count = Number(/^COPY (\d+)$/.exec(text)?.[1]);
  }

  handleReadyForQuery(): void {
    this.#flush().then(() => this.#resolve(this.#count), this.#reject);
  }

  handleError(error: Error): void {
    this.#reject(error);
  }
}
