import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { openReader } from '../cli/demo/totals.ts';
import { databaseOf } from './external-database.ts';

export const KEY = 'bench-admin-key-0123456789-0123456789';

export interface BenchServer {
  url: string;
  /** resident bytes of the server process that are its own: pages of mapped files (the log's) are the system's cache */
  rss(): number;
  /** waits until nothing is pending; seconds since `began` (performance.now()) */
  settled(began: number): Promise<number>;
  reader: ReturnType<typeof openReader>;
  stop(): Promise<void>;
}

const ADDRESS = /listens on (http:\S+)/;

/** Runs a file as a process of its own and waits for its address. */
export async function run(
  file: string,
  args: string[],
  env: Record<string, string>,
): Promise<{ url: string; child: ChildProcess; stop(): Promise<void> }> {
  const child = spawn(process.execPath, [fileURLToPath(new URL(file, import.meta.url)), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => {
      seen += chunk.toString('utf8');
      const address = ADDRESS.exec(seen)?.[1];
      if (address !== undefined) resolve(address);
    });
    child.once('exit', (code) => reject(new Error(`${file} ended (${code}): ${seen}`)));
  });
  return {
    url,
    child,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** A Tidemark server with durability on, as `npm start` runs it. */
export async function startBenchServer(data: string, env: Record<string, string> = {}): Promise<BenchServer> {
  const url = databaseOf(data);
  const server = await run('../cli/main.ts', ['start'], {
    PORT: '0',
    TIDEMARK_DATA: data,
    TIDEMARK_ADMIN_KEY: KEY,
    LOG_LEVEL: 'warn',
    LAG_LIMIT: '100000000',
    ...(url === undefined ? {} : { DATABASE_URL: url }),
    ...env,
  });
  const reader = openReader(server.url, KEY);
  return {
    url: server.url,
    reader,
    rss: () =>
      Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${server.child.pid}/status`, 'utf8'))?.[1] ?? 0) * 1024,
    settled: async (began) => {
      while ((await reader.reconcile()).total.pending !== 0) await delay(50);
      return (performance.now() - began) / 1000;
    },
    stop: server.stop,
  };
}
