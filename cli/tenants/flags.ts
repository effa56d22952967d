import type { Command } from 'commander';
import { askServer, type ServerFlags, withServer } from '../api-client.ts';

/** Flags that every command has: where the server is, the key, and why (for the audit log). */
export interface Flags extends ServerFlags {
  reason?: string;
}

export const withReason = (command: Command): Command =>
  withServer(command).option('--reason <text>', 'why; goes into the audit log');

const reasonOf = (flags: Flags): Record<string, string> =>
  flags.reason === undefined ? {} : { 'tidemark-reason': flags.reason };

/** Asks about one tenant. */
export function askTenant(
  flags: Flags,
  reference: string,
  rest: string,
  init: { method?: string; body?: unknown } = {},
): Promise<Response> {
  return askServer(flags, `/api/v1/tenants/${encodeURIComponent(reference)}${rest}`, {
    ...init,
    headers: reasonOf(flags),
  });
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export async function printJson(answer: Response): Promise<void> {
  print(JSON.stringify(await answer.json(), null, 2));
}
