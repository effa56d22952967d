import type { Command } from 'commander';
import { readSettings } from '../schemas/index.ts';
import { createLogger } from './logger.ts';
import { startServer } from './server.ts';

/** The platform's promise is 10 seconds (P14); the last half second is for exiting. */
const STOP_WITHIN_MS = 9_500;

export function startCommand(program: Command): void {
  program
    .command('start')
    .description('Run the server: ingest, processors, query API (see the settings in docs/manual.md)')
    .option('--roles <roles>', 'which of ingest,processors,query,jobs this process does')
    .action(async (options: { roles?: string }) => {
      await start({ ...definedOf(process.env), ...(options.roles === undefined ? {} : { ROLES: options.roles }) });
    });
}

async function start(env: Record<string, string>): Promise<void> {
  const settings = readSettings(env);
  const logger = createLogger(settings.LOG_LEVEL, 'server');
  const began = performance.now();
  let stop: (code: number) => void = (code) => process.exit(code);
  const server = await startServer(settings, env, {
    logger,
    onFatal: (error) => {
      logger.fatal({ err: error }, error.message);
      stop(1);
    },
  });
  let stopping = false;
  stop = (code) => {
    if (stopping) return;
    stopping = true;
    setTimeout(() => process.exit(1), STOP_WITHIN_MS).unref();
    server.close().then(
      () => process.exit(code),
      (error) => {
        logger.fatal({ err: error }, 'stopping failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', () => stop(0));
  process.on('SIGINT', () => stop(0));
  banner(
    server.address,
    settings.TIDEMARK_ADMIN_KEY === undefined ? server.adminKey : undefined,
    performance.now() - began,
  );
}

/** To stdout whatever the log level: it holds the first key, and what to try. */
function banner(address: string, key: string | undefined, ms: number): void {
  const shown = key ?? '$TIDEMARK_ADMIN_KEY';
  process.stdout.write(
    `
Tidemark listens on ${address} (ready in ${(ms / 1000).toFixed(1)} s)
${key === undefined ? 'The platform key is the one in TIDEMARK_ADMIN_KEY.' : `First platform key, all scopes: ${key}`}

Try:
  curl -i ${address}/api/v1/logs -H 'Authorization: Bearer ${shown}' -H 'Content-Type: application/json' -d '{"timestamp":"${new Date().toISOString()}","customer_id":"acme","request_id":"req_1","endpoint":"/api/v1/agents","method":"POST","status_code":201,"duration_ms":145,"tokens_consumed":2500}'
  curl '${address}/api/v1/meters/tokens/query?groupBy=subject' -H 'Authorization: Bearer ${shown}'
  ${address}/docs

`,
  );
}

/** The variables that are set. */
export function definedOf(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined));
}
