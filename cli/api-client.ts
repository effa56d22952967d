import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { isErrorCode, readSettings, TidemarkError } from '../schemas/index.ts';
import { definedOf } from './start.ts';

/** Where the server is, and the key. */
export interface ServerFlags {
  url?: string;
  key?: string;
}

export const withServer = (command: Command): Command =>
  command
    .option('--url <url>', 'the server (default: HOST and PORT of the settings)')
    .option('--key <key>', 'platform key (default: TIDEMARK_ADMIN_KEY, or the key in the data folder)');

/** The key in the data folder. @throws TidemarkError `invalid_setting` when there is none */
export function storedKey(folder: string): string {
  const file = join(folder, 'admin.key');
  if (!existsSync(file))
    throw new TidemarkError('invalid_setting', `no key: give --key or TIDEMARK_ADMIN_KEY (there is no ${file})`);
  return readFileSync(file, 'utf8').trim();
}

/** Asks a running server. @throws Error with what it answered when that is an error */
export async function askServer(
  flags: ServerFlags,
  path: string,
  init: { method?: string; body?: unknown; accept?: string; headers?: Record<string, string> } = {},
) {
  const settings = readSettings(definedOf(process.env));
  const url = flags.url ?? `http://${settings.HOST}:${settings.PORT}`;
  const key = flags.key ?? settings.TIDEMARK_ADMIN_KEY ?? storedKey(settings.TIDEMARK_DATA);
  const answer = await fetch(`${url}${path}`, {
    method: init.method ?? 'GET',
    headers: {
      authorization: `Bearer ${key}`,
      accept: init.accept ?? 'application/json',
      ...init.headers,
      ...(init.body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(init.body === undefined ? {} : { body: JSON.stringify(init.body) }),
  }).catch((cause: unknown) => {
    throw new TidemarkError('invalid_setting', `no server answers at ${url}`, { cause });
  });
  if (!answer.ok) {
    const problem: unknown = await answer.json().catch(() => ({}));
    const detail =
      typeof problem === 'object' && problem !== null && 'detail' in problem ? problem.detail : answer.statusText;
    const code = typeof problem === 'object' && problem !== null && 'code' in problem ? String(problem.code) : '';
    throw new TidemarkError(
      isErrorCode(code) ? code : 'invalid_parameter',
      `the server answered ${answer.status}: ${detail}`,
    );
  }
  return answer;
}
