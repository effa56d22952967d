import pg from 'pg';
import { giveUpOnSilence } from './silence.ts';
import { wayTo } from './tls.ts';

/** Most connections, and what the connection is called in pg_stat_activity. */
export interface ConnectOptions {
  max: number;
  name: string;
  /** a statement that runs longer is cancelled; 0: never */
  statementTimeoutMs?: number;
  /** a transaction that we leave open without a word is ended by the server, with its locks; 0: never */
  idleInTransactionMs?: number;
  /** a connection that gets no byte for so long while it waits for an answer is given up; 0: never */
  silenceMs?: number;
}

/**
 * TimescaleDB refuses a statement that would unpack more than 100,000 compressed rows; a batch of late events is no
 * mistake, and refusing it would stop the stream. Without TimescaleDB the parameter means nothing (manual, 20.16).
 */
const LATE_WRITES = '-c timescaledb.max_tuples_decompressed_per_dml_transaction=0';

/**
 * A pool whose connections see our schema and UTC, whatever the role's own settings say.
 * bigint and numeric come back as strings: no digit is lost.
 */
export function connect(
  url: string,
  { max, name, statementTimeoutMs = 0, idleInTransactionMs = 0, silenceMs = 0 }: ConnectOptions,
): pg.Pool {
  const pool = new pg.Pool({
    ...wayTo(url),
    max,
    application_name: name,
    connectionTimeoutMillis: 5_000,
    idleTimeoutMillis: 60_000,
    keepAlive: true,
    options: `-c search_path=tidemark -c timezone=UTC -c jit=off -c statement_timeout=${statementTimeoutMs} -c idle_in_transaction_session_timeout=${idleInTransactionMs} ${LATE_WRITES}`,
  });
  // An idle connection that the server closes is replaced on the next borrow; without a listener it would end the process.
  pool.on('error', () => undefined);
  // So would one that is lent and idle, as an owner's is between two batches; the next statement on it fails, which is enough.
  pool.on('connect', (client) => {
    client.on('error', () => undefined);
    if (silenceMs > 0) giveUpOnSilence(client, silenceMs);
  });
  return pool;
}

/** A PostgreSQL identifier, quoted (manual, 4.1.1): the one place where a name becomes part of a statement. */
export function quoteIdentifier(name: string): string {
  if (name === '' || name.includes('\0') || Buffer.byteLength(name) > 63) throw new RangeError('not an identifier');
  return `"${name.replaceAll('"', '""')}"`;
}

/** SQLSTATEs (manual, appendix A) after which the same work may succeed. */
const RETRYABLE = [
  /^08/, // connection exception
  /^40/, // transaction rollback: serialization failure, deadlock
  /^53/, // insufficient resources
  /^55P03$/, // lock not available
  /^57P/, // operator intervention: shutdown, crash, starting up
  /^58/, // system error
];

/** Whether an error of the database or the way to it passes by itself. */
export function isTransient(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (/^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN)/.test(code)) return true;
  if (RETRYABLE.some((pattern) => pattern.test(code))) return true;
  return error instanceof Error && /Connection terminated|timeout exceeded when trying to connect/.test(error.message);
}

/** Runs `work` in one transaction; rolls back when it throws. A broken connection is thrown away, not lent again. */
export async function withTransaction<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    await client.query('ROLLBACK').catch((failure: Error) => {
      broken = failure;
    });
    throw error;
  } finally {
    client.release(broken);
  }
}

/**
 * Runs `CREATE … IF NOT EXISTS`, which is not safe against another process at the same moment (unique violations in the
 * catalogue): then once more.
 */
export async function atOnce(create: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++)
    try {
      await create();
      return;
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : '';
      if (attempt === 10 || (code !== '23505' && code !== '42P06' && code !== '42P07' && code !== '42710')) throw error;
    }
}
