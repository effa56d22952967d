import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { AssignedPartition, EventLog, RecordBatch } from '../../sinks/index.ts';
import { until } from '../support/server.ts';

/** A way to open the same log again and again, as several members would. */
export interface LogUnderTest {
  open(): Promise<EventLog>;
}

export function batchOf(partition: number, texts: readonly string[]): RecordBatch {
  const records = texts.map((text) => Buffer.from(text));
  let end = 0;
  return {
    partition,
    count: texts.length,
    bytes: Buffer.concat(records),
    ends: Uint32Array.from(records, (record) => (end += record.length)),
  };
}

/** Reads a partition from `from` until `count` records came. */
async function readAll(
  partition: AssignedPartition,
  from: number,
  count: number,
  limit = { records: 1_000, bytes: 1 << 20 },
) {
  const found: { offset: number; text: string }[] = [];
  partition.seek(from);
  while (found.length < count && !partition.revoked.aborted) {
    const slice = await partition.read(limit, 100);
    if (slice === undefined) continue;
    for (let i = 0; i < slice.count; i++)
      found.push({
        offset: slice.firstOffset + i,
        text: Buffer.from(slice.bytes.subarray(i === 0 ? 0 : slice.ends[i - 1], slice.ends[i])).toString(),
      });
    expect(slice.nextOffset).toBe(slice.firstOffset + slice.count);
  }
  return found;
}

const whenRevoked = (revoked: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (revoked.aborted) resolve();
    else revoked.addEventListener('abort', () => resolve());
  });

/** What every event log must do; Kafka runs the same tests. */
export function eventLogConformance(make: () => LogUnderTest): void {
  test('P1: acknowledged records are read once each, in order, with dense offsets, whatever the size of a read', async () => {
    const log = await make().open();
    const sent = Array.from({ length: 500 }, (_, i) => `record-${i}-${'x'.repeat(i % 97)}`);
    for (let i = 0; i < sent.length; i += 70)
      await log.append([batchOf(1, sent.slice(i, i + 70)), batchOf(0, ['other'])]);
    const results: string[][] = [];
    const consumer = await log.consume(async (partition) => {
      if (partition.partition !== 1) return whenRevoked(partition.revoked);
      for (const limit of [
        { records: 7, bytes: 1 << 20 },
        { records: 1_000, bytes: 100 },
        { records: 1_000, bytes: 1 << 20 },
      ]) {
        const found = await readAll(partition, 0, sent.length, limit);
        expect(found.map((one) => one.offset)).toEqual(sent.map((_, i) => i));
        results.push(found.map((one) => one.text));
      }
      results.push((await readAll(partition, 123, 377)).map((one) => one.text));
      // Back to the beginning while it waits at the end, where something comes in just then.
      for (let i = 0; i < 5; i++) {
        partition.seek(sent.length + i);
        await partition.read({ records: 1, bytes: 1 }, 50);
        const late = log.append([batchOf(1, ['late'])]);
        results.push((await readAll(partition, 0, sent.length)).map((one) => one.text).slice(0, sent.length));
        await late;
      }
    });
    await until(async () => (results.length >= 9 ? true : undefined));
    await consumer.close();
    expect(results.slice(0, 9)).toEqual([sent, sent, sent, sent.slice(123), sent, sent, sent, sent, sent]);
    await log.close();
  });

  test('P1: several producers at once lose nothing and share no offset', async () => {
    const target = make();
    const logs = await Promise.all([target.open(), target.open(), target.open()]);
    await Promise.all(
      logs.flatMap((log, l) =>
        Array.from({ length: 30 }, (_, i) => log.append([batchOf(0, [`${l}-${i}-a`, `${l}-${i}-b`])])),
      ),
    );
    const [log] = logs;
    if (log === undefined) throw new Error('no log');
    expect((await log.ranges()).find((range) => range.partition === 0)).toMatchObject({ first: 0, end: 180 });
    let texts: string[] | undefined;
    const consumer = await log.consume(async (partition) => {
      if (partition.partition === 0) texts ??= (await readAll(partition, 0, 180)).map((one) => one.text);
    });
    await until(async () => texts);
    expect(new Set(texts).size).toBe(180);
    await consumer.close();
    await Promise.all(logs.map((one) => one.close()));
  });

  test('P5: every partition has one member at a time, through joining and leaving, however long an owner takes to stop', async () => {
    const target = make();
    const [first, second] = [await target.open(), await target.open()];
    const owned = new Map<number, string>();
    const overlaps: string[] = [];
    const join = (log: EventLog, name: string) =>
      log.consume(async ({ partition, revoked }) => {
        const other = owned.get(partition);
        if (other !== undefined) overlaps.push(`${partition}: ${other}, ${name}`);
        owned.set(partition, name);
        await whenRevoked(revoked);
        // A batch in hand is finished first.
        await delay(300);
        owned.delete(partition);
      });
    const owns = (...names: string[]) =>
      until(async () =>
        owned.size === first.partitions && new Set(owned.values()).size === names.length ? true : undefined,
      );
    const a = await join(first, 'a');
    await owns('a');
    const b = await join(second, 'b');
    await owns('a', 'b');
    await a.close();
    await owns('b');
    await b.close();
    expect([...owned.values(), ...overlaps]).toEqual([]);
    await Promise.all([first.close(), second.close()]);
  });

  test('an owner that gave up starts again while the partition is its own', async () => {
    const log = await make().open();
    const starts = new Map<number, number>();
    const consumer = await log.consume(async ({ partition, revoked }) => {
      const times = (starts.get(partition) ?? 0) + 1;
      starts.set(partition, times);
      if (times === 1) throw new Error('gave up');
      await whenRevoked(revoked);
    });
    await until(async () =>
      starts.size === log.partitions && [...starts.values()].every((times) => times === 2) ? true : undefined,
    );
    await consumer.close();
    await log.close();
  });

  test('a closed log takes nothing, and says so at once', async () => {
    const log = await make().open();
    await log.close();
    const began = performance.now();
    await expect(log.append([batchOf(0, ['x'])])).rejects.toMatchObject({ name: 'LogUnavailable' });
    expect(performance.now() - began).toBeLessThan(5_000);
  });
}
