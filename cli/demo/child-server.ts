import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { TidemarkError } from '../../schemas/index.ts';

export interface ServerProcess {
  url: string;
  child: ChildProcess;
  /** asks it to end, and waits until it has */
  stop(): Promise<void>;
}

const ADDRESS = /listens on (http:\S+)/;

/**
 * Runs a file as a process of its own and waits until it says where it listens.
 * @throws TidemarkError `internal` where it ends before
 */
export async function startProcess(file: URL, args: string[], env: Record<string, string>): Promise<ServerProcess> {
  const child = spawn(process.execPath, [fileURLToPath(file), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => {
      if (seen.length < 10_000) seen += chunk.toString('utf8');
      const address = ADDRESS.exec(seen)?.[1];
      if (address !== undefined) resolve(address);
    });
    child.once('exit', (code) =>
      reject(new TidemarkError('internal', `the server ended (${code}) before it was ready: ${seen.slice(-500)}`)),
    );
  });
  child.stdout.removeAllListeners('data').resume();
  return {
    url,
    child,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** Starts the server as a process of its own, as `npm start` does, on a free port. */
export async function startChildServer(data: string): Promise<ServerProcess & { key: string }> {
  const key = randomBytes(24).toString('hex');
  const env = { PORT: '0', TIDEMARK_DATA: data, TIDEMARK_ADMIN_KEY: key, LOG_LEVEL: 'warn' };
  return { ...(await startProcess(new URL('../main.ts', import.meta.url), ['start'], env)), key };
}
