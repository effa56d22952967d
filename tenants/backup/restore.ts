import { createInterface } from 'node:readline';
import { PassThrough, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { createGunzip } from 'node:zlib';
import type { ClientBase, Pool } from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { type Tenant, TidemarkError } from '../../schemas/index.ts';
import { Measure, type ObjectStore, quoteIdentifier } from '../../sinks/index.ts';
import { changeTenant, requireMain } from '../lifecycle/state.ts';
import { ownerRoleOf } from '../schema/names.ts';
import { buildNext, nextSchemaOf, switchToNext } from '../tenant-migrations/blue-green.ts';
import type { TenantMigration } from '../tenant-migrations/index.ts';
import { loadTables, setSequences, within } from '../tenant-migrations/table-data.ts';
import type { BackupFile, BackupManifest } from './manifest.ts';
import { checksumOf, eventTexts } from './sources.ts';

export interface RestoreDeps {
  pool: Pool;
  objects: ObjectStore;
  /** all that this build knows, in order */
  migrations(): readonly TenantMigration[];
  /** Sends events again for a tenant: `C` and a CloudEvent or `L` and a log line each; durable when it resolves. */
  replay(tenant: Tenant, lines: readonly string[]): Promise<void>;
  closePool(tenantId: string): Promise<void>;
  fault?: ((point: string) => void) | undefined;
}

export interface RestoreResult {
  tenant_id: string;
  tables: { name: string; rows: number }[];
  /** sent again; 0 for the same tenant, whose usage is never taken back */
  events: number;
  verified: true;
}

const LINES_AT_ONCE = 1_000;
const COUNTED_WITHIN_MS = 10 * 60_000;

/**
 * Brings a backup back. The schema is built beside the tenant's, filled, compared with the manifest and switched in one
 * transaction, so that a crash or a damaged file changes nothing; the one before is kept as `…_old`. Usage is only ever
 * added: into the same tenant none is restored, since what was acknowledged stays; into another tenant its events are sent
 * again through the log, where their keys make a repeat harmless.
 * @throws TidemarkError `backup_damaged`, `migration_missing` when this build lacks a version of the backup
 */
export async function restoreBackup(
  deps: RestoreDeps,
  manifest: BackupManifest,
  targetId: string,
  signal: AbortSignal,
): Promise<RestoreResult> {
  const { pool, fault } = deps;
  const applied = migrationsOf(manifest, deps.migrations());
  const tenant = await changeTenant(pool, targetId, async (client, locked) => {
    if (!locked.provisioned) throw new TidemarkError('tenant_unprovisioned', 'restore into a provisioned tenant');
    requireMain(locked.shard);
    await buildNext(client, targetId, applied);
    fault?.('restore/built');
    await fillSchema(deps, client, manifest, { tenantId: targetId, schema: nextSchemaOf(targetId) }, signal);
    if (manifest.configuration !== null)
      await client.query('UPDATE tenant_settings SET features = $2, updated_at = now() WHERE tenant_id = $1', [
        targetId,
        manifest.configuration.features,
      ]);
    await switchToNext(client, targetId);
    fault?.('restore/switched');
    return locked.tenant;
  });
  fault?.('restore/committed');
  await deps.closePool(targetId);
  const events = targetId === manifest.tenant.id ? 0 : await replayEvents(deps, manifest, tenant, signal);
  return {
    tenant_id: targetId,
    tables: manifest.tables.map(({ name, rows }) => ({ name, rows })),
    events,
    verified: true,
  };
}

/** The backup's migrations, as this build has them. @throws TidemarkError `migration_missing` */
export function migrationsOf(manifest: BackupManifest, known: readonly TenantMigration[]): TenantMigration[] {
  return manifest.migrations.map((row) => {
    const ours = known.find((one) => one.version === row.version && one.sha256 === row.sha256);
    if (ours === undefined)
      throw new TidemarkError('migration_missing', `the backup has ${row.version}_${row.name}, which is not here`);
    return ours;
  });
}

/**
 * Fills an empty schema of the tenant, at the backup's version, and compares it with the manifest, in the caller's transaction.
 * @throws TidemarkError `backup_damaged`
 */
export async function fillSchema(
  { objects, fault }: Pick<RestoreDeps, 'objects' | 'fault'>,
  client: ClientBase,
  manifest: BackupManifest,
  { tenantId, schema }: { tenantId: string; schema: string },
  signal: AbortSignal,
): Promise<void> {
  await client.query(
    `SET LOCAL ROLE ${quoteIdentifier(ownerRoleOf(tenantId))}; SET LOCAL search_path = ${quoteIdentifier(schema)}`,
  );
  const files = new Map(manifest.tables.map((table) => [table.name, table]));
  await loadTables(client, schema, manifest.tables, async ({ name, columns }) => {
    signal.throwIfAborted();
    const file = files.get(name);
    if (file !== undefined) await load(client, objects, `${within(schema, name)} (${columns})`, file);
    fault?.('restore/table');
  });
  await setSequences(client, schema, manifest.sequences);
  await client.query('RESET ROLE; SET LOCAL search_path = tidemark');
  for (const { name, columns, rows, checksum } of manifest.tables) {
    const found = await checksumOf(client, `SELECT ${columns} FROM ${within(schema, name)}`);
    if (found.rows !== rows || found.checksum !== checksum)
      throw new TidemarkError('backup_damaged', `table ${name} has ${found.rows} rows, ${rows} were backed up`);
  }
}

async function load(client: ClientBase, objects: ObjectStore, into: string, file: BackupFile): Promise<void> {
  const { stream, check } = await open(objects, file);
  await pipeline(stream, createGunzip(), client.query(copyFrom(`COPY ${into} FROM STDIN`))).catch((cause: unknown) => {
    throw new TidemarkError('backup_damaged', `${file.key} can not be read back`, { cause });
  });
  check();
}

/** An object's bytes with their hash compared at the end. */
async function open(objects: ObjectStore, file: BackupFile): Promise<{ stream: Readable; check(): void }> {
  const measure = new Measure();
  const source = await objects.get(file.key);
  source.once('error', (error) => measure.destroy(error));
  return {
    stream: source.pipe(measure),
    check: () => {
      if (measure.digest() !== file.sha256)
        throw new TidemarkError('backup_damaged', `${file.key} is not what was written`);
    },
  };
}

async function replayEvents(
  deps: RestoreDeps,
  manifest: BackupManifest,
  tenant: Tenant,
  signal: AbortSignal,
): Promise<number> {
  const { stream, check } = await open(deps.objects, manifest.events);
  const text = new PassThrough();
  const unpacked = pipeline(stream, createGunzip(), text);
  let lines: string[] = [];
  let sent = 0;
  const flush = async () => {
    signal.throwIfAborted();
    await deps.replay(tenant, lines);
    sent += lines.length;
    lines = [];
    deps.fault?.('restore/replayed');
  };
  for await (const line of createInterface({ input: text, crlfDelay: Number.POSITIVE_INFINITY })) {
    lines.push(line);
    if (lines.length >= LINES_AT_ONCE) await flush();
  }
  await unpacked;
  check();
  if (lines.length > 0) await flush();
  await counted(deps.pool, manifest, tenant, signal);
  return sent;
}

/** Waits until the events are committed, and compares them with the manifest. */
async function counted(pool: Pool, manifest: BackupManifest, { id }: Tenant, signal: AbortSignal): Promise<void> {
  const deadline = Date.now() + COUNTED_WITHIN_MS;
  const { rows, checksum } = manifest.events;
  for (;;) {
    const found = await checksumOf(pool, eventTexts(id));
    if (found.rows === rows && found.checksum === checksum) return;
    if (found.rows > rows || Date.now() > deadline)
      throw new TidemarkError(
        'backup_damaged',
        `${found.rows} events are there, ${rows} were backed up: was the tenant empty?`,
      );
    await delay(100, undefined, { signal });
  }
}
