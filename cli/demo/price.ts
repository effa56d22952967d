/** The sample price of the demo: $0.40 per 1,000 requests and $2.00 per million tokens, rounded half up to cents. */
export const PRICE_TEXT = '$0.40 per 1,000 requests + $2.00 per 1,000,000 tokens';

/** Prices in millionths of a cent, so that everything stays a whole number. */
const PER_REQUEST = 40_000n;
const PER_TOKEN = 200n;
const CENT = 1_000_000n;

/** @param requests,tokens whole numbers @returns dollars, as "12.34" */
export function costOf(requests: bigint, tokens: bigint): string {
  const exact = requests * PER_REQUEST + tokens * PER_TOKEN;
  const cents = (exact + CENT / 2n) / CENT;
  return `${cents / 100n}.${(cents % 100n).toString().padStart(2, '0')}`;
}
