import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { TidemarkError } from '../../schemas/index.ts';

export interface ChildServer {
  url: string;
  key: string;
  stop(): Promise<void>;
}

/** Starts the server as a process of its own, as `npm start` does, on a free port. */
export async function startChildServer(data: string): Promise<ChildServer> {
  const key = randomBytes(24).toString('hex');
  const child = spawn(process.execPath, [fileURLToPath(new URL('../main.ts', import.meta.url)), 'start'], {
    env: { ...process.env, PORT: '0', TIDEMARK_DATA: data, TIDEMARK_ADMIN_KEY: key, LOG_LEVEL: 'warn' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    let seen = '';
    child.stdout.on('data', (chunk: Buffer) => {
      seen += chunk.toString('utf8');
      const address = /Tidemark listens on (\S+)/.exec(seen)?.[1];
      if (address !== undefined) resolve(address);
    });
    child.once('exit', (code) =>
      reject(new TidemarkError('internal', `the server ended (${code}) before it was ready: ${seen.slice(-500)}`)),
    );
  });
  child.stdout.resume();
  return {
    url,
    key,
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
