import { expect, test } from 'vitest';
import { previewRating } from '../../billing/index.ts';
import { vectors } from './rating-vectors.ts';

test.each(vectors)('P12: $source: $what', ({ currency, charges, usage, total }) => {
  expect(previewRating({ currency: currency ?? 'USD', charges, usage }).total).toBe(total);
});
