import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';

/** One step of every tenant's schema. */
export interface TenantMigration {
  version: number;
  name: string;
  up: string;
  down: string;
  /** of `up`, hex */
  sha256: string;
}

const FOLDER = new URL('../../schemas/tenant-sql/', import.meta.url);

/** The files `NNNN_name.up.sql` and `.down.sql`, in order. @throws Error when a name is malformed or a half is missing */
export function readTenantMigrations(folder: URL = FOLDER): TenantMigration[] {
  const files = new Set(readdirSync(folder).filter((file) => file.endsWith('.sql')));
  const found: TenantMigration[] = [];
  for (const file of [...files].sort()) {
    const match = /^(\d{4})_([a-z0-9_]+)\.(up|down)\.sql$/.exec(file);
    if (match?.[2] === undefined) throw new Error(`tenant migration ${file}: expected NNNN_name.up.sql or .down.sql`);
    const other = file.replace(/\.(up|down)\.sql$/, match[3] === 'up' ? '.down.sql' : '.up.sql');
    if (!files.has(other)) throw new Error(`tenant migration ${file} lacks ${other}`);
    if (match[3] === 'down') continue;
    const up = readFileSync(new URL(file, folder), 'utf8');
    const down = readFileSync(new URL(other, folder), 'utf8');
    const sha256 = createHash('sha256').update(up).digest('hex');
    found.push({ version: Number(match[1]), name: match[2], up, down, sha256 });
  }
  return found;
}
