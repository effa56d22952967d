import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { CopyObjectCommand, HeadObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ObjectFrozen, ObjectStoreUnavailable, openFileStore, openS3Store } from '../../sinks/index.ts';
import { type Moto, startMoto } from '../support/moto.ts';
import { objectStoreConformance } from './object-store.ts';

describe('files', () => {
  const root = mkdtempSync(join(tmpdir(), 'tidemark-objects-'));
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  objectStoreConformance(() => openFileStore(join(root, 'conformance')));

  test('expire by the rules, by age and tags', async () => {
    const store = await openFileStore(join(root, 'expire'));
    await store.put('e/1', Buffer.from('x'), { tags: { hold: 'no' } });
    await store.put('e/2', Buffer.from('x'), { tags: { hold: 'yes' } });
    await store.setLifecycle([{ id: 'old', prefix: 'e/', tags: { hold: 'no' }, transitions: [], expireDays: 10 }]);
    expect(await store.expire(Date.now() + 9 * 86_400_000)).toEqual([]);
    expect(await store.expire(Date.now() + 11 * 86_400_000)).toEqual(['e/1']);
    expect(await store.head('e/2')).toBeDefined();
  });
});

describe('S3', () => {
  let moto: Moto;
  beforeAll(async () => {
    moto = await startMoto();
  }, 300_000);
  afterAll(() => moto.stop());
  const open = (more: { prefix?: string; encryption?: 'AES256' } = {}) =>
    openS3Store({ bucket: moto.bucket, endpoint: moto.endpoint, region: 'us-east-1', partBytes: 5 << 20, ...more });
  objectStoreConformance(async () => open({ prefix: 'team/tidemark' }));

  test('asks for encryption where it is set', async () => {
    const store = open({ encryption: 'AES256' });
    await store.put('encrypted', Buffer.from('x'));
    const head = await moto.client.send(new HeadObjectCommand({ Bucket: moto.bucket, Key: 'encrypted' }));
    expect(head.ServerSideEncryption).toBe('AES256');
  });

  test('an object in Glacier is frozen until it is restored', async () => {
    const store = open();
    await store.put('cold', Buffer.from('x'));
    const [Bucket, Key] = [moto.bucket, 'cold'];
    await moto.client.send(
      new CopyObjectCommand({ Bucket, Key, CopySource: `${Bucket}/${Key}`, StorageClass: 'GLACIER' }),
    );
    expect(await store.head('cold')).toMatchObject({ storageClass: 'GLACIER' });
    await expect(store.get('cold')).rejects.toBeInstanceOf(ObjectFrozen);
    await store.restore('cold', { days: 2, speed: 'Standard' });
    await store.restore('cold', { days: 2, speed: 'Standard' });
    expect(await store.head('cold')).toMatchObject({ storageClass: 'GLACIER', restore: 'done' });
    expect(await text(await store.get('cold'))).toBe('x');
  });

  test('a service that can not be reached is said so', async () => {
    const store = openS3Store({ bucket: 'b-1', endpoint: 'http://127.0.0.1:1', region: 'us-east-1' });
    await expect(store.head('x')).rejects.toBeInstanceOf(ObjectStoreUnavailable);
    await expect(store.put('x', Buffer.from('x'))).rejects.toBeInstanceOf(ObjectStoreUnavailable);
    await expect(open().check()).resolves.toBeUndefined();
    const other = openS3Store({ bucket: 'no-such-bucket', endpoint: moto.endpoint, region: 'us-east-1' });
    await expect(other.check()).rejects.toBeInstanceOf(ObjectStoreUnavailable);
  });
});
