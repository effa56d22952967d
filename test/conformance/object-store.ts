import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  ChecksumMismatch,
  ObjectMissing,
  type ObjectStore,
  PreconditionFailed,
  type StoredObject,
} from '../../sinks/index.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
/** Longer than one part of a multipart upload. */
const LONG = Buffer.alloc(11 << 20, 'tidemark');

/** What every object store must do. */
export function objectStoreConformance(open: () => Promise<ObjectStore>): void {
  let store: ObjectStore;
  beforeAll(async () => {
    store = await open();
  });
  afterAll(() => store.close());

  const keysOf = async (prefix: string): Promise<string[]> => {
    const found: StoredObject[] = [];
    for await (const object of store.list(prefix)) found.push(object);
    return found.map((object) => object.key);
  };

  test('gives back what was put, whole and in ranges', async () => {
    const put = await store.put('a/one', Buffer.from('hello'));
    expect(put).toMatchObject({ key: 'a/one', bytes: 5, storageClass: 'STANDARD' });
    expect(await store.head('a/one')).toEqual(put);
    expect(await text(await store.get('a/one'))).toBe('hello');
    expect(await text(await store.get('a/one', { from: 1, to: 3 }))).toBe('el');
    expect(await text(await store.get('a/one', { from: 3, to: 3 }))).toBe('');
  });

  test('takes streams longer than one part, and empty ones', async () => {
    const body = Readable.from([LONG.subarray(0, 1_000), LONG.subarray(1_000)]);
    expect(await store.put('a/long', body, { sha256: sha256(LONG) })).toMatchObject({ bytes: LONG.length });
    expect(sha256(await buffer(await store.get('a/long')))).toBe(sha256(LONG));
    expect(await store.put('a/empty', Readable.from([]))).toMatchObject({ bytes: 0 });
    expect(await text(await store.get('a/empty'))).toBe('');
  });

  test('knows what is missing', async () => {
    expect(await store.head('no/such')).toBeUndefined();
    await expect(store.get('no/such')).rejects.toBeInstanceOf(ObjectMissing);
    await expect(store.restore('no/such', { days: 1, speed: 'Standard' })).rejects.toBeInstanceOf(ObjectMissing);
    await store.delete('no/such');
  });

  test('refuses keys that reach outside', async () => {
    for (const key of ['../x', 'a/../../x', '/x', 'a//b', 'a b', '']) await expect(store.head(key)).rejects.toThrow();
  });

  test('refuses to overwrite when asked to', async () => {
    await store.put('c/new', Buffer.from('1'), { ifAbsent: true });
    await expect(store.put('c/new', Buffer.from('2'), { ifAbsent: true })).rejects.toBeInstanceOf(PreconditionFailed);
    await expect(store.put('c/new', Readable.from([LONG]), { ifAbsent: true })).rejects.toBeInstanceOf(
      PreconditionFailed,
    );
    expect(await text(await store.get('c/new'))).toBe('1');
  });

  test('replaces only the version that was read', async () => {
    const first = await store.put('c/version', Buffer.from('first'));
    const second = await store.put('c/version', Buffer.from('second'), { ifMatch: first.etag });
    expect(second.etag).not.toBe(first.etag);
    for (const body of [Buffer.from('third'), Readable.from([LONG])])
      await expect(store.put('c/version', body, { ifMatch: first.etag })).rejects.toBeInstanceOf(PreconditionFailed);
    expect(await text(await store.get('c/version'))).toBe('second');
    await expect(store.put('c/absent', Buffer.from('x'), { ifMatch: first.etag })).rejects.toThrow();
  });

  test('lets one of many writers win', async () => {
    const outcomes = async (put: (i: number) => Promise<unknown>) => {
      const settled = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => put(i)));
      for (const one of settled) if (one.status === 'rejected') expect(one.reason).toBeInstanceOf(PreconditionFailed);
      return settled.flatMap((one, i) => (one.status === 'fulfilled' ? [i] : []));
    };
    const [winner, ...none] = await outcomes((i) => store.put('w/one', Buffer.from(`new ${i}`), { ifAbsent: true }));
    expect(none).toEqual([]);
    expect(await text(await store.get('w/one'))).toBe(`new ${winner}`);
    const { etag = '' } = (await store.head('w/one')) ?? {};
    const [next, ...others] = await outcomes((i) => store.put('w/one', Buffer.from(`next ${i}`), { ifMatch: etag }));
    expect(others).toEqual([]);
    expect(await text(await store.get('w/one'))).toBe(`next ${next}`);
  });

  test('stores nothing that is not what was announced', async () => {
    const announced = sha256(Buffer.from('right'));
    for (const body of [Buffer.from('wrong'), Readable.from([LONG])])
      await expect(store.put('s/sum', body, { sha256: announced })).rejects.toBeInstanceOf(ChecksumMismatch);
    expect(await store.head('s/sum')).toBeUndefined();
  });

  test('a stream that fails leaves what was there', async () => {
    await store.put('s/torn', Buffer.from('old'));
    for (const before of [1, 12 << 20]) {
      const torn = Readable.from(
        (function* () {
          yield Buffer.alloc(before);
          throw new Error('torn');
        })(),
      );
      await expect(store.put('s/torn', torn)).rejects.toThrow('torn');
    }
    expect(await text(await store.get('s/torn'))).toBe('old');
    expect(await keysOf('s/')).toEqual(['s/torn']);
  });

  test('lists in the order of keys, and forgets what is deleted', async () => {
    for (const key of ['l/b', 'l/a/2', 'l/a/1', 'l/a-1', 'la']) await store.put(key, Buffer.from(key));
    expect(await keysOf('l/')).toEqual(['l/a-1', 'l/a/1', 'l/a/2', 'l/b']);
    expect(await keysOf('l/a/')).toEqual(['l/a/1', 'l/a/2']);
    expect(await keysOf('l/a')).toEqual(['l/a-1', 'l/a/1', 'l/a/2']);
    await store.delete('l/a/1');
    await store.delete('l/a/1');
    expect(await keysOf('l/a/')).toEqual(['l/a/2']);
    expect(await keysOf('nothing/')).toEqual([]);
  });

  test('tags objects, and keeps rules by their ids', async () => {
    await store.put('t/1', Buffer.from('x'), { tags: { kind: 'part', hold: 'no' } });
    expect(await store.tags('t/1')).toEqual({ kind: 'part', hold: 'no' });
    await store.tag('t/1', { kind: 'part', hold: 'yes' });
    expect(await store.tags('t/1')).toEqual({ kind: 'part', hold: 'yes' });
    await expect(store.tag('t/none', {})).rejects.toBeInstanceOf(ObjectMissing);
    const rule = {
      id: 'parts',
      prefix: 't/',
      tags: { kind: 'part', hold: 'no' },
      transitions: [{ days: 30, storageClass: 'STANDARD_IA' }],
      expireDays: 2555,
    };
    await store.setLifecycle([{ ...rule, id: 'other' }]);
    await store.setLifecycle([rule]);
    await store.setLifecycle([{ ...rule, expireDays: 100 }]);
    expect((await store.lifecycle()).toSorted((a, b) => (a.id < b.id ? -1 : 1))).toEqual([
      { ...rule, id: 'other' },
      { ...rule, expireDays: 100 },
    ]);
  });
}
