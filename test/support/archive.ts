import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Pool } from 'pg';
import pino from 'pino';
import type { PlainEvent } from '../../schemas/index.ts';
import { detectEngine, openFileStore } from '../../sinks/index.ts';
import type { Progress, TieringDeps, TieringSettings } from '../../tiering/index.ts';
import { committed, openTestLog, records, startProcessors } from './processors.ts';

export const TEST_TIERING: TieringSettings = {
  hotDays: 90,
  partRows: 1_000,
  memoryBytes: 128e6,
  threads: 2,
  dutyPercent: 100,
  zstdLevel: 3,
  cacheBytes: 64e6,
  leaseMs: 60_000,
  lifecycle: { infrequentDays: 30, glacierDays: 365, expireDays: 2557 },
};

/** The clock of these tests: a year after the events of `event()`. */
export const NOW = Date.UTC(2027, 0, 1);

export const always = (): Progress => ({ signal: new AbortController().signal, progress: async () => undefined });

/** Tiering over a folder of its own, removed by `dispose`. */
export async function makeTiering(
  pool: Pool,
  more: Partial<TieringDeps> = {},
): Promise<TieringDeps & { root: string; dispose(): void }> {
  const root = mkdtempSync(join(tmpdir(), 'tidemark-archive-'));
  return {
    pool,
    engine: await detectEngine(pool),
    store: await openFileStore(join(root, 'objects')),
    scratch: join(root, 'scratch'),
    settings: TEST_TIERING,
    logger: pino({ level: process.env.TEST_LOG ?? 'silent' }),
    now: () => NOW,
    ...more,
    root,
    dispose: () => rmSync(root, { recursive: true, force: true }),
  };
}

/** Takes events through real processors into the database. @returns how many the log holds now */
export async function takeIn(
  pool: Pool,
  all: readonly PlainEvent[],
  log?: Awaited<ReturnType<typeof openTestLog>>,
): Promise<void> {
  const own = log ?? (await openTestLog());
  const processors = await startProcessors(pool, own);
  try {
    const before = (await own.ranges()).reduce((sum, range) => sum + range.end, 0);
    for (let at = 0; at < all.length; at += 500) await own.append([records(0, all.slice(at, at + 500))]);
    await committed(pool, before + all.length);
  } finally {
    await processors.stop();
    if (log === undefined) await own.dispose();
  }
}

const SCRIPT = fileURLToPath(new URL('./archive-process.ts', import.meta.url));

/** An archiver in a process of its own. @param limit shell commands before it @returns how it ended */
export function archiver(
  url: string,
  root: string,
  more: Record<string, unknown>,
  limit = '',
): Promise<{ signal: NodeJS.Signals | null; code: number | null; output: string }> {
  const argument = JSON.stringify({ url, root, count: 1, ...more });
  const shell = `${limit} exec "$0" "$@"`;
  const child = spawn('/bin/sh', ['-c', shell, process.execPath, SCRIPT, argument], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString('utf8');
  });
  return new Promise((resolve) => child.once('close', (code, signal) => resolve({ code, signal, output })));
}

const STATEMENT = `
  import pg from 'pg';
  const [, url, text] = process.argv;
  const client = new pg.Client(url);
  await client.connect();
  await client.query("SET lock_timeout = '300ms'");
  const answer = await client.query(text).then(() => 'done', (error) => error.code);
  await client.end();
  process.stdout.write(answer);`;

/** Runs a statement in a process of its own, while whoever calls it waits with a transaction open. @returns `done`, or the SQLSTATE */
export const runMeanwhile = (url: string, text: string): string =>
  spawnSync(process.execPath, ['--input-type=module', '-e', STATEMENT, url, text]).stdout.toString();
