import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { TidemarkError } from '../schemas/index.ts';

/** The folder of everything embedded; one server at a time. */
export interface DataFolder {
  path: string;
  log: string;
  postgres: string;
  release(): void;
}

/** @throws TidemarkError `data_in_use` when a living server has it */
export function openDataFolder(given: string): DataFolder {
  const path = resolve(given);
  mkdirSync(path, { recursive: true });
  const lock = join(path, 'server.pid');
  const mine = `${process.pid} ${bornAt(process.pid)}`;
  if (existsSync(lock)) {
    const [pid, born] = readFileSync(lock, 'utf8').split(' ');
    if (Number(pid) !== process.pid && isAlive(Number(pid)) && bornAt(Number(pid)) === born)
      throw new TidemarkError(
        'data_in_use',
        `process ${pid} runs on ${path}: stop it, or set TIDEMARK_DATA to another folder`,
      );
  }
  writeFileSync(lock, mine);
  return {
    path,
    log: join(path, 'log'),
    postgres: join(path, 'postgres'),
    release: () => {
      if (existsSync(lock) && readFileSync(lock, 'utf8') === mine) rmSync(lock);
    },
  };
}

/** The first platform key: from the settings, or made once and kept in the folder, readable by its owner only. */
export function adminKeyOf(folder: string, given: string | undefined): { key: string; made: boolean } {
  if (given !== undefined) return { key: given, made: false };
  const file = join(folder, 'admin.key');
  if (existsSync(file)) return { key: readFileSync(file, 'utf8').trim(), made: true };
  const key = `tm_admin_${randomBytes(30).toString('base64url')}`;
  writeFileSync(file, `${key}\n`, { mode: 0o600 });
  return { key, made: true };
}

/** The key that encrypts stored secrets: from the settings, or made once and kept in the folder, readable by its owner only. */
export function secretKeyOf(folder: string, given: string | undefined): string {
  if (given !== undefined) return given;
  const file = join(folder, 'secret.key');
  if (!existsSync(file)) writeFileSync(file, `${randomBytes(32).toString('base64url')}\n`, { mode: 0o600 });
  return readFileSync(file, 'utf8').trim();
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** When a process began, so that a reused pid is not taken for it; empty where the system does not say. */
function bornAt(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
