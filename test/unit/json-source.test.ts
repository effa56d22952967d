import fc from 'fast-check';
import { expect, test } from 'vitest';
import { JsonSource } from '../../processors/json-source.ts';

const NAMES = ['a', 'b', 'a.b', 'ü"\\', ''];

/** What is at a path, as `JSON.parse` sees it. */
function at(value: unknown, path: readonly string[]): unknown {
  let found = value;
  for (const name of path) {
    if (typeof found !== 'object' || found === null || Array.isArray(found) || !Object.hasOwn(found, name))
      return undefined;
    found = Object.entries(found).find(([key]) => key === name)?.[1];
  }
  return found;
}

const { value: anything } = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom(null, true, false, 0, -1.5, 'text', 'q"\\', '{"a":1}', ']}', 'é\u2028\ud83d\ude00'),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(...NAMES), tie('value'), { maxKeys: 4 }),
  ),
}));

test('P12: members are found where JSON.parse finds them, whatever stands around them', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.constantFrom(...NAMES), anything, { maxKeys: 5 }),
      fc.array(fc.array(fc.constantFrom(...NAMES), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 }),
      fc.constantFrom(undefined, 1, '\t'),
      (object, paths, indent) => {
        const source = new JsonSource();
        for (const [slot, path] of paths.entries()) source.want(slot, path, 0);
        const values = paths.map((): string | null => 'of the row before');
        source.read(JSON.stringify(object, null, indent), values);
        for (const [slot, path] of paths.entries()) {
          const text = values[slot];
          const found = at(object, path);
          expect(text === null ? undefined : JSON.parse(text ?? '')).toEqual(found === undefined ? undefined : found);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

test('P12: numbers keep all their digits; of two ways the better counts, of a repeated name the first', () => {
  const source = new JsonSource();
  source.want(0, ['n'], 0);
  source.want(1, ['usage', 'tokens'], 0);
  source.want(1, ['usage.tokens'], 1);
  const values: (string | null)[] = [null, null];
  source.read(
    '{"n": 12345678901234567890.123456789012345678 , "n": 1, "usage.tokens":1.50, "usage": {"tokens":2.500}}',
    values,
  );
  expect(values).toEqual(['12345678901234567890.123456789012345678', '2.500']);
  source.read('{"usage.tokens":1.50,"usage":{"other":[{"tokens":1}]}}', values);
  expect(values).toEqual([null, '1.50']);
  source.read('{}', values);
  expect(values).toEqual([null, null]);
  expect(() => source.read('{"n":"', values)).toThrow(SyntaxError);
});
