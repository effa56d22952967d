import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { startProcess } from '../cli/demo/child-server.ts';
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
  /** rollup rows that were written so far */
  rollupRows(): Promise<number>;
  stop(): Promise<void>;
}

/** Events/ms that no server reaches. */
const MOST_PER_MS = 400;

/** A Tidemark server with durability on, as `npm start` runs it. */
export async function startBenchServer(data: string, env: Record<string, string> = {}): Promise<BenchServer> {
  const url = databaseOf(data);
  const server = await startProcess(new URL('../cli/main.ts', import.meta.url), ['start'], {
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
      // Asked seldom while there is much: with many tenants the answer is long.
      for (;;) {
        const { pending } = (await reader.reconcile()).total;
        if (pending === 0) return (performance.now() - began) / 1000;
        await delay(Math.max(50, (pending ?? 0) / MOST_PER_MS));
      }
    },
    rollupRows: async () => {
      const answer = await fetch(`${server.url}/metrics`, { headers: { authorization: `Bearer ${KEY}` } });
      return Number(/^tidemark_rollup_rows_total (\S+)/m.exec(await answer.text())?.[1]);
    },
    stop: server.stop,
  };
}
