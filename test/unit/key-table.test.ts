import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KeyTable, wordAt } from '../../processors/dedupe/key-table.ts';

/** Words that collide on purpose: equal leading words, equal tags, equal slots, both signs. */
const word = fc.constantFrom(0, 1, -1, 0x01000000, 0x01000001, -0x80000000, 0x7fffffff);
const key = fc.tuple(word, word, word, word);
type Key = [number, number, number, number];
const bytesOf = (one: Key) => {
  const bytes = Buffer.alloc(16);
  for (let w = 0; w < 4; w++) bytes.writeInt32BE(one[w] ?? 0, w * 4);
  return bytes;
};

test('P2: a table of keys holds exactly what was added since it was cleared, and gives it back in the order in which it came', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(key, { maxLength: 300 }), { minLength: 1, maxLength: 3 }),
      fc.array(key),
      (rounds, others) => {
        const table = new KeyTable(4);
        for (const keys of rounds) {
          table.clear();
          const model = new Map<string, Key>();
          for (const one of keys) {
            const text = one.join();
            expect(table.add(...one)).toBe(!model.has(text));
            if (!model.has(text)) model.set(text, one);
          }
          for (const one of [...keys, ...others]) expect(table.has(...one)).toBe(model.has(one.join()));
          expect(table.size).toBe(model.size);
          expect([...table.words]).toEqual([...model.values()].flat());
        }
      },
    ),
  );
});

test('a word of packed keys is read as it was written', () => {
  const packed = Buffer.concat([bytesOf([1, 2, 3, 4]), bytesOf([-1, -2, -3, -4])]);
  expect([wordAt(packed, 1, 0), wordAt(packed, 1, 3), wordAt(packed, 0, 2)]).toEqual([-1, -4, 3]);
});
