/** `tidemark doctor`: everything that a start depends on, looked at one by one; nothing is changed. */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { Logger } from 'pino';
import { type Check, readSettings, type Settings, TidemarkError } from '../schemas/index.ts';
import { checkDatabase, connect, startEmbeddedPostgres } from '../sinks/index.ts';
import { checkLifecycle } from '../tiering/index.ts';
import { lifecycleOf } from './archive.ts';
import { checkLog } from './log.ts';
import { createLogger } from './logger.ts';
import { openObjectStore } from './objects.ts';
import { definedOf } from './start.ts';

/** What a check may look at. */
export interface DoctorContext {
  settings: Settings;
  /** the data folder, absolute */
  folder: string;
  logger: Logger;
}

/** One area; returns its findings, or throws what becomes one. */
type Checker = (context: DoctorContext) => Promise<Check[]>;

/** In the order in which they are shown. */
const CHECKERS: Record<string, Checker> = {
  database,
  log: eventLog,
  objects,
};

export function doctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('Check settings, database, storage engine, migrations, event log and object store')
    .option('--json', 'print the findings as JSON')
    .action(async (options: { json?: true }) => {
      const checks = await examine(definedOf(process.env));
      process.stdout.write(
        options.json ? `${JSON.stringify({ ok: isHealthy(checks), checks }, null, 2)}\n` : report(checks),
      );
      if (!isHealthy(checks)) process.exitCode = 1;
    });
}

const isHealthy = (checks: readonly Check[]): boolean => checks.every((one) => one.ok);

/** All findings about what `env` describes. Never throws: what can't be looked at is a finding. */
export async function examine(env: Readonly<Record<string, string>>): Promise<Check[]> {
  let settings: Settings;
  try {
    settings = readSettings(env);
  } catch (error) {
    return [{ name: 'settings', ok: false, detail: reasonOf(error) }];
  }
  const context = { settings, folder: resolve(settings.TIDEMARK_DATA), logger: createLogger('silent', 'doctor') };
  const checks: Check[] = [{ name: 'settings', ok: true, detail: 'every variable is sound' }];
  for (const [name, check] of Object.entries(CHECKERS)) {
    try {
      checks.push(...(await check(context)));
    } catch (error) {
      checks.push({ name, ok: false, detail: reasonOf(error) });
    }
  }
  return checks;
}

async function database({ settings, folder }: DoctorContext): Promise<Check[]> {
  const directory = join(folder, 'postgres');
  if (settings.DATABASE_URL !== undefined) return askDatabase(settings.DATABASE_URL, settings.DATABASE_POOL);
  if (!existsSync(directory))
    return [{ name: 'database', ok: true, detail: `embedded PostgreSQL: the first start makes it in ${directory}` }];
  const embedded = await startEmbeddedPostgres(directory);
  try {
    return await askDatabase(embedded.url, settings.DATABASE_POOL);
  } finally {
    // A server's own PostgreSQL goes on.
    if (!embedded.attached) await embedded.stop();
  }
}

async function askDatabase(url: string, poolSize: number): Promise<Check[]> {
  const pool = connect(url, { max: 1, name: 'tidemark-doctor', statementTimeoutMs: 30_000 });
  try {
    return await checkDatabase(pool, poolSize);
  } finally {
    await pool.end();
  }
}

async function eventLog({ settings, folder, logger }: DoctorContext): Promise<Check[]> {
  const checks = await checkLog(settings, logger);
  if (checks.length > 0) return checks;
  const directory = join(folder, 'log');
  return [
    {
      name: 'log',
      ok: true,
      detail: existsSync(directory)
        ? `embedded, in ${directory}`
        : `embedded: the first start makes it in ${directory}`,
    },
  ];
}

/** Reads only: a bucket that lists is one that we may use. */
async function objects({ settings, folder }: DoctorContext): Promise<Check[]> {
  const name = 'object store';
  if (settings.S3_BUCKET === undefined) return [{ name, ok: true, detail: `the folder ${join(folder, 'objects')}` }];
  const store = await openObjectStore(settings, folder);
  try {
    for await (const _ of store.list('')) break;
    const lifecycle = await checkLifecycle({ store, settings: { lifecycle: lifecycleOf(settings) } });
    return [{ name, ok: true, detail: `bucket ${settings.S3_BUCKET} answers` }, ...lifecycle];
  } finally {
    store.close();
  }
}

const reasonOf = (error: unknown): string =>
  error instanceof TidemarkError
    ? `${error.message} (${error.code})`
    : error instanceof AggregateError && error.message === ''
      ? error.errors.map((one) => (one instanceof Error ? one.message : String(one))).join('; ')
      : error instanceof Error
        ? error.message
        : String(error);

function report(checks: readonly Check[]): string {
  const width = Math.max(...checks.map((one) => one.name.length));
  const lines = checks.map((one) => `${one.ok ? '✓' : '✗'} ${one.name.padEnd(width)}  ${one.detail}`);
  const bad = checks.filter((one) => !one.ok).length;
  return `${lines.join('\n')}\n\n${bad === 0 ? 'All is well.' : `${bad} of ${checks.length} need${bad === 1 ? 's' : ''} attention.`}\n`;
}
