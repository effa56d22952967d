const DAYS_BEFORE_MONTH = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
const DAYS_IN_MONTH = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/**
 * Reads an ISO 8601 time with a zone (`2026-01-26T21:30:45.123Z`, `…+02:00`, `…+0200`; `T` or a space) from bytes
 * [start, end). Digits beyond milliseconds are cut off.
 * @returns Unix milliseconds, or NaN when it is none
 */
export function parseTimestamp(bytes: Uint8Array, start: number, end: number): number {
  if (end - start < 20) return Number.NaN;
  const year = digits(bytes, start, 4);
  const month = digits(bytes, start + 5, 2);
  const day = digits(bytes, start + 8, 2);
  const hour = digits(bytes, start + 11, 2);
  const minute = digits(bytes, start + 14, 2);
  const second = digits(bytes, start + 17, 2);
  const separator = bytes[start + 10];
  if (
    bytes[start + 4] !== 45 ||
    bytes[start + 7] !== 45 ||
    (separator !== 84 && separator !== 116 && separator !== 32) ||
    bytes[start + 13] !== 58 ||
    bytes[start + 16] !== 58
  )
    return Number.NaN;
  const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const lastDay = month === 2 && leap ? 29 : (DAYS_IN_MONTH[month - 1] ?? 0);
  // NaN fails every comparison.
  if (!(month >= 1 && day >= 1 && day <= lastDay && hour <= 23 && minute <= 59 && second <= 59 && year >= 0))
    return Number.NaN;

  let at = start + 19;
  let milliseconds = 0;
  if (bytes[at] === 46) {
    at++;
    const first = at;
    let weight = 100;
    for (; at < end; at++) {
      const digit = (bytes[at] as number) - 48;
      if (digit < 0 || digit > 9) break;
      milliseconds += digit * weight;
      weight = weight === 1 ? 0 : weight / 10;
    }
    if (at === first) return Number.NaN;
    milliseconds = Math.floor(milliseconds);
  }
  const offset = zoneOffset(bytes, at, end);
  const days = daysSinceEpoch(year, month, day, leap);
  return days * 86_400_000 + hour * 3_600_000 + minute * 60_000 + second * 1_000 + milliseconds - offset * 60_000;
}

function daysSinceEpoch(year: number, month: number, day: number, leap: boolean): number {
  const before = year - 1;
  const leaps = Math.floor(before / 4) - Math.floor(before / 100) + Math.floor(before / 400);
  const days = before * 365 + leaps + (DAYS_BEFORE_MONTH[month - 1] ?? 0) + (leap && month > 2 ? 1 : 0) + day - 1;
  return days - 719_162;
}

/** Minutes east of UTC, or NaN. */
function zoneOffset(bytes: Uint8Array, at: number, end: number): number {
  const sign = bytes[at];
  if ((sign === 90 || sign === 122) && at + 1 === end) return 0;
  if (sign !== 43 && sign !== 45) return Number.NaN;
  const colon = bytes[at + 3] === 58 ? 1 : 0;
  if (at + 5 + colon !== end) return Number.NaN;
  const hours = digits(bytes, at + 1, 2);
  const minutes = digits(bytes, at + 3 + colon, 2);
  if (!(hours <= 23 && minutes <= 59)) return Number.NaN;
  return (sign === 45 ? -1 : 1) * (hours * 60 + minutes);
}

function digits(bytes: Uint8Array, at: number, count: number): number {
  let value = 0;
  for (let i = at; i < at + count; i++) {
    const digit = (bytes[i] as number) - 48;
    if (!(digit >= 0 && digit <= 9)) return Number.NaN;
    value = value * 10 + digit;
  }
  return value;
}
