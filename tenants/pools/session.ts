import { Socket } from 'node:net';
import pg from 'pg';
import { wayTo } from '../../sinks/index.ts';

/** What a borrower may do with a connection. */
export interface TenantConnection {
  /**
   * Runs one statement. Names of prepared statements are ignored: they would outlive the borrow.
   * @throws Error once the connection was given back
   */
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    text: string | pg.QueryConfig,
    values?: readonly unknown[],
  ): Promise<pg.QueryResult<Row>>;
}

/**
 * Everything that a session can keep, in one round trip. The parts of DISCARD ALL, which itself can't share a message
 * with the ROLLBACK before it (manual, "DISCARD"); the order is DISCARD ALL's.
 */
const RESET = `ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *;
  SELECT pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES`;
/** A session that takes longer to clean is not worth keeping. */
const RESET_WITHIN_MS = 2_000;
/** How long a goodbye may take before the socket is cut. */
const CLOSE_WITHIN_MS = 1_000;
const OPEN_WITHIN_MS = 5_000;

/** One physical connection of one tenant. It never passes to another tenant. */
export class Session {
  readonly tenant: string;
  /** Unix ms: since when it can be lent, and since when it is idle */
  openedAt: number;
  idleSince: number;
  /** how long opening it took, ms */
  openMs = 0;
  readonly #client: pg.Client;
  readonly #socket: Socket;
  #running = 0;
  #broken = false;
  #closed: Promise<void> | undefined;

  private constructor(tenant: string, now: number, client: pg.Client, socket: Socket) {
    this.tenant = tenant;
    this.openedAt = now;
    this.idleSince = now;
    this.#client = client;
    this.#socket = socket;
  }

  /**
   * @param url postgres:// of the tenant's own role
   * @param onLost the server closed it while nobody was looking
   * @throws what connecting threw
   */
  static async open(
    tenant: string,
    url: string,
    now: () => number,
    onLost: (session: Session) => void,
  ): Promise<Session> {
    const socket = new Socket();
    const client = new pg.Client({
      ...wayTo(url),
      application_name: 'tidemark-tenant-pool',
      connectionTimeoutMillis: OPEN_WITHIN_MS,
      keepAlive: true,
      stream: () => socket,
      // A statement whose connection was cut ends within a second: until then it would count against the server's limit.
      options: '-c timezone=UTC -c jit=off -c client_connection_check_interval=1s',
    });
    const session = new Session(tenant, now(), client, socket);
    client.on('error', () => {
      session.#broken = true;
      onLost(session);
    });
    try {
      await client.connect();
    } catch (error) {
      socket.destroy();
      throw error;
    }
    session.openMs = now() - session.openedAt;
    session.openedAt = now();
    return session;
  }

  get broken(): boolean {
    return this.#broken;
  }

  /** A handle for one borrow, which `end` takes away again. */
  lend(): { connection: TenantConnection; end(): void } {
    let lent = true;
    const query: TenantConnection['query'] = async (text, values) => {
      if (!lent) throw new Error('this connection was given back');
      const { name: _, ...config } = typeof text === 'string' ? { text } : text;
      this.#running++;
      try {
        return await this.#client.query({ ...config, ...(values === undefined ? {} : { values: [...values] }) });
      } finally {
        this.#running--;
      }
    };
    return {
      connection: { query },
      end: () => {
        lent = false;
      },
    };
  }

  /**
   * Takes back everything that the borrower left in the session.
   * @returns false when it can't be lent again: a statement still runs, or cleaning failed
   */
  async reset(): Promise<boolean> {
    if (this.#broken || this.#running > 0) return false;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(() => resolve(false), RESET_WITHIN_MS);
    });
    const clean = this.#client.query(RESET).then(
      () => true,
      () => false,
    );
    const kept = await Promise.race([clean, late]);
    clearTimeout(timer);
    return kept && !this.#broken;
  }

  /** Ends within a second, whatever the session is doing. */
  close(): Promise<void> {
    this.#broken = true;
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    const gone = new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
    if (this.#socket.destroyed) return;
    const timer = setTimeout(() => this.#socket.destroy(), CLOSE_WITHIN_MS);
    this.#client.end().catch(() => undefined);
    await gone;
    clearTimeout(timer);
  }
}
