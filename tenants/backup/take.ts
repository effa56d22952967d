import { randomUUID } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import type { ClientBase, Pool } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { TidemarkError } from '../../schemas/index.ts';
import { Measure, type ObjectStore } from '../../sinks/index.ts';
import type { TenantConfiguration } from '../configuration.ts';
import { requireSchemaHere } from '../lifecycle/state.ts';
import { schemaOf } from '../schema/names.ts';
import { appliedVersions } from '../tenant-migrations/apply.ts';
import { listTables, readSequences, within } from '../tenant-migrations/table-data.ts';
import { type BackupFile, type BackupManifest, backupPrefix, writeManifest } from './manifest.ts';
import { AS_LINES, checksumOf, eventTexts } from './sources.ts';

const TENANT = `
  SELECT t.id, t.slug, t.customer_id, t.name, t.email, t.tier, json_build_object('limits', s.limits, 'features', s.features) AS configuration
  FROM tenants AS t JOIN tenant_schemas AS o ON o.tenant_id = t.id LEFT JOIN tenant_settings AS s ON s.tenant_id = t.id WHERE t.id = $1`;
const PLANS = 'SELECT to_jsonb(s) AS plan FROM subscriptions AS s WHERE s.tenant_id = $1';

/**
 * Backs one tenant up: its schema's rows, configuration, plans and raw events, all of one snapshot, gzipped. A crash leaves
 * files without a manifest, which no list shows; they go with the next backup's id or the tenant's purge.
 * @throws TidemarkError `tenant_unprovisioned`
 */
export async function takeBackup(
  { pool, objects, fault }: { pool: Pool; objects: ObjectStore; fault?: ((point: string) => void) | undefined },
  tenantId: string,
  signal: AbortSignal,
): Promise<BackupManifest> {
  const id = randomUUID();
  const prefix = backupPrefix(tenantId, id);
  const client = await pool.connect();
  let broken = true;
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await requireSchemaHere(client, tenantId);
    const { rows } = await client.query<BackupManifest['tenant'] & { configuration: TenantConfiguration | null }>(
      TENANT,
      [tenantId],
    );
    if (rows[0] === undefined) throw new TidemarkError('tenant_unprovisioned', 'the tenant has no schema of its own');
    const { configuration, ...tenant } = rows[0];
    const schema = schemaOf(tenantId);
    const manifest: BackupManifest = {
      format: 1,
      id,
      taken_at: new Date().toISOString(),
      tenant,
      configuration,
      migrations: await appliedVersions(client, schema),
      tables: [],
      sequences: await readSequences(client, schema),
      events: { key: '', rows: 0, bytes: 0, sha256: '', checksum: '0' },
      plans: (await client.query<{ plan: Record<string, unknown> }>(PLANS, [tenantId])).rows.map((row) => row.plan),
    };
    for (const [n, { name, columns }] of (await listTables(client, schema)).entries()) {
      signal.throwIfAborted();
      const select = `SELECT ${columns} FROM ${within(schema, name)}`;
      const sum = await checksumOf(client, select);
      const file = await store(client, objects, `COPY (${select}) TO STDOUT`, `${prefix}table-${n}.copy.gz`);
      manifest.tables.push({ name, columns, ...file, ...sum });
      fault?.('backup/table');
    }
    const texts = eventTexts(tenantId);
    const file = await store(client, objects, `COPY (${texts}) TO STDOUT ${AS_LINES}`, `${prefix}events.ndjson.gz`);
    manifest.events = { ...file, ...(await checksumOf(client, texts)) };
    await client.query('COMMIT');
    broken = false;
    fault?.('backup/files');
    await writeManifest(objects, manifest);
    return manifest;
  } finally {
    client.release(broken);
  }
}

/** Streams a COPY into an object; memory does not grow with it. `rows` is filled in by the caller. */
async function store(client: ClientBase, objects: ObjectStore, sql: string, key: string): Promise<BackupFile> {
  const measure = new Measure();
  const body = new PassThrough();
  const [read, stored] = await Promise.allSettled([
    pipeline(client.query(copyTo(sql)), createGzip(), measure, body),
    objects.put(key, body, { contentType: 'application/gzip' }),
  ]);
  for (const one of [read, stored]) if (one.status === 'rejected') throw one.reason;
  return { key, rows: 0, bytes: measure.bytes, sha256: measure.digest() };
}
