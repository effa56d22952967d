import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { TidemarkError } from '../../schemas/index.ts';

/** One step of every tenant's schema. */
export interface TenantMigration {
  /** NNNN, or Prisma's 14 digits of time */
  version: number;
  name: string;
  up: string;
  /** null: can't be undone in place */
  down: string | null;
  /** of `up`, hex */
  sha256: string;
}

const FOLDER = new URL('../../schemas/tenant-sql/', import.meta.url);
/** Prisma writes this at the top of a first migration; the tenant's schema is there already, and is not called public. */
const PRISMA_SCHEMA = /^\s*CREATE SCHEMA IF NOT EXISTS "public";\s*$/m;

/**
 * Every migration of tenants' schemas, in order: ours, then those of the operator's folder.
 * @param folder files `NNNN_name.up.sql` and `.down.sql`, or Prisma's `<time>_<name>/migration.sql` with an optional `down.sql`
 * @throws TidemarkError `invalid_migration` when a name is malformed or a version is there twice
 */
export function readTenantMigrations(folder?: string): TenantMigration[] {
  const all = [...readNumbered(FOLDER), ...(folder === undefined ? [] : readFolder(folder))];
  all.sort((a, b) => a.version - b.version);
  for (const [i, one] of all.entries())
    if (all[i + 1]?.version === one.version)
      throw invalid(`version ${one.version} is there twice: ${one.name} and ${all[i + 1]?.name}`);
  return all;
}

function readFolder(path: string): TenantMigration[] {
  if (!existsSync(path)) throw invalid(`there is no folder ${path}`);
  const folder = pathToFileURL(path.endsWith('/') ? path : `${path}/`);
  const isPrisma = readdirSync(folder, { withFileTypes: true }).some((entry) => entry.isDirectory());
  return isPrisma ? readPrisma(folder) : readNumbered(folder);
}

function readNumbered(folder: URL): TenantMigration[] {
  const files = new Set(readdirSync(folder).filter((file) => file.endsWith('.sql')));
  const found: TenantMigration[] = [];
  for (const file of [...files].sort()) {
    const match = /^(\d{4})_([a-z0-9_]+)\.(up|down)\.sql$/.exec(file);
    if (match?.[2] === undefined) throw invalid(`${file}: expected NNNN_name.up.sql or .down.sql`);
    const other = file.replace(/\.(up|down)\.sql$/, match[3] === 'up' ? '.down.sql' : '.up.sql');
    if (match[3] === 'down') {
      if (!files.has(other)) throw invalid(`${file} lacks ${other}`);
      continue;
    }
    const down = files.has(other) ? readFileSync(new URL(other, folder), 'utf8') : null;
    found.push(toMigration(Number(match[1]), match[2], readFileSync(new URL(file, folder), 'utf8'), down));
  }
  return found;
}

function readPrisma(folder: URL): TenantMigration[] {
  const found: TenantMigration[] = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const match = /^(\d{14})_(.{1,200})$/.exec(entry.name);
    const up = new URL(`${encodeURIComponent(entry.name)}/migration.sql`, folder);
    if (match?.[2] === undefined || !existsSync(up))
      throw invalid(`${entry.name}: expected <14 digits of time>_<name>/migration.sql`);
    const down = new URL('down.sql', up);
    const undo = existsSync(down) ? readFileSync(down, 'utf8') : null;
    found.push(toMigration(Number(match[1]), match[2], readFileSync(up, 'utf8').replace(PRISMA_SCHEMA, ''), undo));
  }
  return found;
}

function toMigration(version: number, name: string, up: string, down: string | null): TenantMigration {
  return { version, name, up, down, sha256: createHash('sha256').update(up).digest('hex') };
}

const invalid = (detail: string): TidemarkError => new TidemarkError('invalid_migration', detail);
