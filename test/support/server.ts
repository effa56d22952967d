import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createTestDatabase, type TestDatabase } from './postgres.ts';

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url));
export const ADMIN_KEY = 'test-admin-key-0123456789-0123456789';

/** As root, PostgreSQL runs as another user, who must be able to enter. */
function makeFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-e2e-'));
  chmodSync(folder, 0o755);
  return folder;
}

/** Settings that every server of this test file starts with, beside its own; another log, for one. */
export const serverDefaults: { make(): Record<string, string> } = { make: () => ({}) };

/** The environment without a log that was meant for the tests themselves: each says which log its servers use. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('KAFKA_')));
}

/** A real server process on a data folder that outlives its crashes. */
export class TestServer {
  readonly data = makeFolder();
  readonly #defaults = serverDefaults.make();
  url = '';
  output = '';
  /** its own database on the server of DATABASE_URL, where that is given */
  #database: TestDatabase | undefined;
  #child: ChildProcess | undefined;
  #exited: Promise<number | null> = Promise.resolve(null);

  /** Starts it and waits until it says where it listens. @returns milliseconds that took */
  async start(env: Record<string, string> = {}): Promise<number> {
    if (process.env.DATABASE_URL !== undefined) this.#database ??= await createTestDatabase('template0');
    const began = performance.now();
    const child = spawn(process.execPath, [MAIN, 'start'], {
      env: {
        ...environment(),
        PORT: '0',
        TIDEMARK_DATA: this.data,
        TIDEMARK_ADMIN_KEY: ADMIN_KEY,
        LOG_LEVEL: 'warn',
        ...this.#defaults,
        ...(this.#database === undefined ? {} : { DATABASE_URL: this.#database.url }),
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.output = '';
    this.#exited = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
    child.stderr?.on('data', (chunk: Buffer) => {
      this.output += chunk.toString('utf8');
    });
    await new Promise<void>((resolve, reject) => {
      child.stdout?.on('data', (chunk: Buffer) => {
        this.output += chunk.toString('utf8');
        const address = /Tidemark listens on (\S+)/.exec(this.output)?.[1];
        if (address === undefined) return;
        this.url = address;
        resolve();
      });
      child.once('exit', (code, signal) => reject(new Error(`the server ended (${code ?? signal}): ${this.output}`)));
    });
    return performance.now() - began;
  }

  /** Its database, as the platform; while it runs. */
  get databaseUrl(): string {
    if (this.#database !== undefined) return this.#database.url;
    const read = (name: string) => readFileSync(join(this.data, 'postgres', name), 'utf8');
    return `postgres://tidemark:${read('password').trim()}@127.0.0.1:${read('cluster/postmaster.pid').split('\n')[3]}/postgres`;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Resolves with the exit code; null after a signal. */
  get exited(): Promise<number | null> {
    return this.#exited;
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  async kill9(): Promise<void> {
    this.signal('SIGKILL');
    await this.#exited;
  }

  async stop(): Promise<number | null> {
    this.signal('SIGTERM');
    return this.#exited;
  }

  /** Ends the server and its PostgreSQL, and removes the folder. */
  async dispose(): Promise<void> {
    await this.kill9();
    const pid = this.postgresPid();
    if (pid > 0) {
      try {
        process.kill(pid, 'SIGQUIT');
      } catch {
        // It has stopped already.
      }
    }
    await this.#database?.drop();
    await delay(100);
    rmSync(this.data, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }

  postgresPid(): number {
    try {
      return Number(readFileSync(join(this.data, 'postgres/cluster/postmaster.pid'), 'utf8').split('\n')[0]);
    } catch {
      return 0;
    }
  }

  async request(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has('authorization')) headers.set('authorization', `Bearer ${ADMIN_KEY}`);
    return fetch(`${this.url}${path}`, { ...init, headers });
  }

  async json<T>(path: string): Promise<T> {
    const answer = await this.request(path);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as T;
  }

  /** Posts NDJSON log lines. */
  async post(lines: readonly string[], headers: Record<string, string> = {}): Promise<Response> {
    return this.request('/api/v1/logs', {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson', ...headers },
      body: lines.join('\n'),
    });
  }

  /** Waits until everything on the log is committed. */
  async settled(): Promise<{ received: number; accepted: number; duplicate: number; dead_lettered: number }> {
    return until(async () => {
      const { total } = await this.json<{
        total: { received: number; accepted: number; duplicate: number; dead_lettered: number; pending: number };
      }>('/api/v1/reconciliation');
      return total.pending === 0 ? total : undefined;
    });
  }
}

/** Asks again until there is an answer. @throws when there is none in time */
export async function until<T>(ask: () => Promise<T | undefined>, withinMs = 30_000): Promise<T> {
  const deadline = Date.now() + withinMs;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      last = error;
    }
    await delay(25);
  }
  throw new Error(`nothing within ${withinMs} ms`, { cause: last });
}
