import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { requireCommand } from './requirements.ts';

/** Survives between runs; ignored by Git. The requirements are pinned: another version is another folder. */
const TOOLS = fileURLToPath(new URL('../../.tools/', import.meta.url));
const REQUIREMENTS = fileURLToPath(new URL('./moto.requirements.txt', import.meta.url));
const VENV = `${TOOLS}moto-5.2.5`;

/** A real S3 API in memory (moto): storage classes, restore, lifecycle, conditional writes. */
export interface Moto {
  endpoint: string;
  /** what a server process needs to use the bucket */
  env: Record<string, string>;
  bucket: string;
  client: S3Client;
  stop(): Promise<void>;
}

/** Any credentials do; the SDK wants some. */
const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_REGION: 'us-east-1' };

/** Starts a server of its own with one empty bucket. */
export async function startMoto(bucket = 'tidemark-test'): Promise<Moto> {
  const python = requireMoto();
  Object.assign(process.env, CREDENTIALS);
  const child = spawn(python, ['-m', 'moto.server', '-H', '127.0.0.1', '-p', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const endpoint = await new Promise<string>((resolve, reject) => {
    let seen = '';
    const look = (chunk: Buffer) => {
      seen += chunk.toString('utf8');
      const address = /Running on (http:\S+)/.exec(seen)?.[1];
      if (address !== undefined) resolve(address);
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    child.once('exit', (code) => reject(new Error(`moto ended (${code}): ${seen}`)));
  });
  const client = new S3Client({ endpoint, region: 'us-east-1', forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  return {
    endpoint,
    bucket,
    client,
    env: { ...CREDENTIALS, S3_BUCKET: bucket, S3_ENDPOINT: endpoint },
    stop: async () => {
      client.destroy();
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** The venv's Python; made on first use. @throws Error with the command to type */
function requireMoto(): string {
  const python = `${VENV}/bin/python`;
  if (existsSync(python)) return python;
  const system = requireCommand({
    commands: ['python3'],
    packages: ['python3', 'python3-venv'],
    // Debian's python3 comes without what makes a venv.
    suffices: (command) => spawnSync(command, ['-c', 'import ensurepip, venv']).status === 0,
  });
  mkdirSync(TOOLS, { recursive: true });
  // Made aside: of two test processes the first to finish has it. `python -m` works wherever a venv is moved to.
  const aside = `${VENV}.${process.pid}`;
  run(system, ['-m', 'venv', '--clear', aside]);
  run(`${aside}/bin/python`, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', REQUIREMENTS]);
  try {
    renameSync(aside, VENV);
  } catch {
    rmSync(aside, { recursive: true, force: true });
  }
  return python;
}

function run(command: string, args: readonly string[]): void {
  const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`tests need moto; type: ${command} ${args.join(' ')}\n${stderr}`);
}
