import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeEvent, HEADER_V1 } from '../../schemas/index.ts';
import type { LogSlice, RecordBatch } from '../../sinks/index.ts';
import { COMPRESSIONS } from '../../sinks/log/kafka/compression.ts';
import { crc32c } from '../../sinks/log/kafka/crc32c.ts';
import { type Framing, SINGLE_OBJECT } from '../../sinks/log/kafka/framing.ts';
import { BatchReader, wholeBatches } from '../../sinks/log/kafka/read-batches.ts';
import { AT } from '../../sinks/log/kafka/record-batch.ts';
import { writeBatch } from '../../sinks/log/kafka/write-batch.ts';
import { event } from '../support/processors.ts';

const CONFLUENT: Framing = { writeId: 258, knows: (id) => id === 258, learn: async () => undefined };

function batchOf(values: readonly Buffer[]): RecordBatch {
  let end = 0;
  return {
    partition: 0,
    count: values.length,
    bytes: Buffer.concat(values),
    ends: Uint32Array.from(values, (value) => (end += value.length)),
  };
}

/** Records of all sorts: our events, of another schema, of nothing, of any bytes. */
const value = fc.oneof(
  fc.string({ minLength: 1, maxLength: 40 }).map((key) => encodeEvent(event(key))),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.constant(Buffer.alloc(0)),
);
const spec = fc.array(
  fc.record({
    values: fc.array(value, { minLength: 1, maxLength: 60 }),
    compression: fc.constantFrom(...COMPRESSIONS),
    /** offsets that nothing stands at, before the batch */
    gap: fc.integer({ min: 0, max: 5 }),
  }),
  { minLength: 1, maxLength: 8 },
);

interface Laid {
  bytes: Buffer;
  records: { offset: number; value: Buffer }[];
  end: number;
}

/** A partition's batches one after another, as a broker keeps them. */
async function lay(batches: typeof spec extends fc.Arbitrary<infer T> ? T : never, framing: Framing): Promise<Laid> {
  const parts: Buffer[] = [];
  const records: Laid['records'] = [];
  let offset = 0;
  for (const { values, compression, gap } of batches) {
    offset += gap;
    const encoded = await writeBatch([{ batch: batchOf(values), from: 0, to: values.length }], framing, compression, 1);
    encoded.writeBigInt64BE(BigInt(offset), AT.baseOffset);
    parts.push(encoded);
    for (const one of values) records.push({ offset: offset++, value: one });
  }
  return { bytes: Buffer.concat(parts), records, end: offset };
}

const contents = (slice: LogSlice) =>
  Array.from({ length: slice.count }, (_, i) => ({
    offset: slice.offsets === undefined ? slice.firstOffset + i : slice.offsets[i],
    value: Buffer.from(slice.bytes.subarray(i === 0 ? 0 : slice.ends[i - 1], slice.ends[i])),
  }));

test('P1: what was written is read back, byte for byte and offset for offset, whatever the compression, framing, gaps, size of reads and place to start', async () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  await fc.assert(
    fc.asyncProperty(
      spec,
      fc.constantFrom(SINGLE_OBJECT, CONFLUENT),
      fc.integer({ min: 1, max: 50 }),
      fc.integer({ min: 1, max: 3_000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      async (batches, framing, mostRecords, mostBytes, startAt) => {
        const laid = await lay(batches, framing);
        expect(wholeBatches(laid.bytes)).toEqual({ nextOffset: laid.end, length: laid.bytes.length });
        // A cut-off batch at the end is left for the next fetch.
        expect(wholeBatches(laid.bytes.subarray(0, laid.bytes.length - 1))?.length ?? 0).toBeLessThan(
          laid.bytes.length,
        );
        const reader = new BatchReader(framing);
        const start = Math.floor(startAt * laid.end);
        reader.reset(start);
        reader.push({ bytes: laid.bytes, aborted: [] });
        const found: Laid['records'] = [];
        let next = start;
        for (;;) {
          const slice = await reader.take(0, { records: mostRecords, bytes: mostBytes });
          if (slice === undefined) break;
          expect(slice.firstOffset).toBe(next);
          expect(slice.count).toBeLessThanOrEqual(mostRecords);
          expect(slice.count === 1 || slice.bytes.length <= mostBytes + HEADER_V1.length).toBe(true);
          next = slice.nextOffset;
          for (const one of contents(slice)) found.push({ offset: one.offset ?? -1, value: one.value });
        }
        expect(next).toBe(laid.end);
        expect(reader.waiting).toBe(0);
        expect(found).toEqual(laid.records.filter(({ offset }) => offset >= start));
      },
    ),
    { numRuns: 150 },
  );
});

test('P6: damaged bytes never throw and never stop the offset: each batch that can not be read is one record', async () => {
  await fc.assert(
    fc.asyncProperty(spec, fc.array(fc.nat(), { minLength: 1, maxLength: 4 }), async (batches, hits) => {
      const laid = await lay(batches, SINGLE_OBJECT);
      const starts: number[] = [];
      for (let at = 0; at < laid.bytes.length; at += 12 + laid.bytes.readInt32BE(at + AT.length)) starts.push(at);
      for (const hit of hits) {
        const at = starts[hit % starts.length] ?? 0;
        const length = 12 + laid.bytes.readInt32BE(at + AT.length);
        // Anywhere behind the offsets and lengths, which say where the next batch is.
        const place = at + AT.baseTimestamp + (hit % (length - AT.baseTimestamp));
        laid.bytes.writeUInt8((laid.bytes.readUInt8(place) ^ (1 + (hit % 255))) & 0xff, place);
      }
      const reader = new BatchReader(SINGLE_OBJECT);
      reader.reset(0);
      reader.push({ bytes: laid.bytes, aborted: [] });
      let next = 0;
      let last = -1;
      for (;;) {
        const slice = await reader.take(0, { records: 7, bytes: 1_000 });
        if (slice === undefined) break;
        for (const { offset } of contents(slice)) {
          expect(offset).toBeGreaterThan(last);
          last = offset ?? last;
        }
        expect(slice.nextOffset).toBeGreaterThan(next);
        next = slice.nextOffset;
      }
      expect(next).toBe(laid.end);
    }),
    { numRuns: 150 },
  );
});
