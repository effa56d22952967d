import type { Readable } from 'node:stream';
import { TidemarkError } from '../../schemas/index.ts';
import { ObjectMissing, type ObjectStore } from '../../sinks/index.ts';
import type { TenantConfiguration } from '../configuration.ts';
import { objectPrefix } from '../lifecycle/purge.ts';
import type { AppliedVersion } from '../tenant-migrations/apply.ts';
import type { SequenceValue } from '../tenant-migrations/table-data.ts';

/** One file of a backup. */
export interface BackupFile {
  key: string;
  rows: number;
  /** of the file as it is stored, gzipped, hex */
  sha256: string;
  bytes: number;
}

export interface BackupTable extends BackupFile {
  name: string;
  /** quoted, in order */
  columns: string;
  /** of its rows in any order: see `checksumOf` */
  checksum: string;
}

/** What a backup holds; written last, so a backup is whole or not there. */
export interface BackupManifest {
  format: 1;
  id: string;
  taken_at: string;
  tenant: { id: string; slug: string | null; customer_id: string; name: string; email: string | null; tier: string };
  configuration: TenantConfiguration | null;
  /** of its schema */
  migrations: AppliedVersion[];
  tables: BackupTable[];
  sequences: SequenceValue[];
  /** raw events in the database that count, as they would be sent again */
  events: BackupFile & { checksum: string };
  /** for the record: rows of billing that belong to the tenant */
  plans: Record<string, unknown>[];
}

/** Every file of a backup. */
export const filesOf = ({ tables, events }: BackupManifest): BackupFile[] => [...tables, events];

const backupsOf = (tenantId: string): string => `${objectPrefix(tenantId)}backups/`;
export const backupPrefix = (tenantId: string, id: string): string => `${backupsOf(tenantId)}${id}/`;
const manifestKey = (tenantId: string, id: string): string => `${backupPrefix(tenantId, id)}manifest.json`;

export async function writeManifest(objects: ObjectStore, manifest: BackupManifest): Promise<void> {
  await objects.put(manifestKey(manifest.tenant.id, manifest.id), Buffer.from(JSON.stringify(manifest, null, 2)), {
    contentType: 'application/json',
  });
}

/** @throws TidemarkError `unknown_backup` */
export async function readManifest(objects: ObjectStore, tenantId: string, id: string): Promise<BackupManifest> {
  if (!/^[0-9a-f-]{36}$/.test(id)) throw new TidemarkError('unknown_backup', `there is no backup ${id}`);
  try {
    return JSON.parse(await textOf(await objects.get(manifestKey(tenantId, id))));
  } catch (cause) {
    if (cause instanceof ObjectMissing)
      throw new TidemarkError('unknown_backup', `there is no backup ${id}`, { cause });
    throw cause;
  }
}

export interface BackupSummary {
  id: string;
  taken_at: string;
  rows: number;
  bytes: number;
}

/** Whole backups of a tenant, oldest first. */
export async function listBackups(objects: ObjectStore, tenantId: string): Promise<BackupSummary[]> {
  const found: BackupSummary[] = [];
  const prefix = backupsOf(tenantId);
  for await (const { key } of objects.list(prefix)) {
    const id = /^([0-9a-f-]{36})\/manifest\.json$/.exec(key.slice(prefix.length))?.[1];
    if (id === undefined) continue;
    const manifest = await readManifest(objects, tenantId, id);
    const files = filesOf(manifest);
    found.push({
      id,
      taken_at: manifest.taken_at,
      rows: files.reduce((sum, file) => sum + file.rows, 0),
      bytes: files.reduce((sum, file) => sum + file.bytes, 0),
    });
  }
  return found.toSorted((a, b) => a.taken_at.localeCompare(b.taken_at));
}

async function textOf(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString('utf8');
}
