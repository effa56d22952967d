import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openEmbeddedLog } from '../../sinks/index.ts';
import { until } from '../support/server.ts';
import { batchOf, eventLogConformance } from './event-log.ts';

const root = mkdtempSync(join(tmpdir(), 'tidemark-log-'));
let serial = 0;
const folder = () => join(root, String(serial++));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('the embedded log', () => {
  eventLogConformance(() => {
    const directory = folder();
    return { open: () => openEmbeddedLog({ directory, partitions: 4, sessionTimeoutMs: 2_000 }) };
  });

  test('keeps its number of partitions', async () => {
    const directory = folder();
    await (await openEmbeddedLog({ directory, partitions: 4 })).close();
    await expect(openEmbeddedLog({ directory, partitions: 8 })).rejects.toMatchObject({ code: 'invalid_setting' });
  });

  test('P13: what is committed goes, but for a tail; what is not stays', async () => {
    const log = await openEmbeddedLog({ directory: folder(), partitions: 1, sessionTimeoutMs: 500, retainRecords: 10 });
    for (let i = 0; i < 100; i++) await log.append([batchOf(0, ['a', 'b', 'c', 'd', 'e'])]);
    const consumer = await log.consume(async (partition) => {
      partition.committed(400);
      await new Promise<void>((resolve) => partition.revoked.addEventListener('abort', () => resolve()));
    });
    const range = await until(async () => {
      const [one] = await log.ranges();
      return one !== undefined && one.first > 0 ? one : undefined;
    });
    expect(range).toEqual({ partition: 0, first: 390, end: 500 });
    await consumer.close();
    await log.close();
  });

  test('P1: kill -9 of a producer leaves every acknowledged record', async () => {
    const directory = folder();
    const script = join(root, 'producer.ts');
    const sinks = new URL('../../sinks/index.ts', import.meta.url).href;
    writeFileSync(
      script,
      `import { openEmbeddedLog } from ${JSON.stringify(sinks)};
       const log = await openEmbeddedLog({ directory: process.argv[2], partitions: 1 });
       for (let i = 0; ; i++) {
         const bytes = Buffer.from(String(i).padStart(8, '0'));
         await log.append([{ partition: 0, count: 1, bytes, ends: Uint32Array.of(8) }]);
         process.stdout.write(i + '\\n');
       }`,
    );
    for (let round = 0; round < 3; round++) {
      const child = spawn(process.execPath, [script, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
      let acknowledged = -1;
      const before = await (async () => {
        const log = await openEmbeddedLog({ directory, partitions: 1 });
        const [range] = await log.ranges();
        await log.close();
        return range?.end ?? 0;
      })();
      child.stdout.on('data', (chunk: Buffer) => {
        acknowledged = Number(chunk.toString().trim().split('\n').at(-1));
      });
      const exited = new Promise((resolve) => child.once('exit', resolve));
      await until(async () => (acknowledged > 50 + round * 37 ? true : undefined));
      child.kill('SIGKILL');
      await exited;
      const log = await openEmbeddedLog({ directory, partitions: 1 });
      const [range] = await log.ranges();
      expect((range?.end ?? 0) - before).toBeGreaterThanOrEqual(acknowledged + 1);
      await log.close();
    }
  });
});
