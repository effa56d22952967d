const ISO = /^(\d{4}-\d\d-\d\d)(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d))?$/i;
/** What every part takes: PostgreSQL, and the four digits of a year. A day on either side is left to reckon with. */
const EARLIEST = Date.parse('0001-01-03T00:00:00Z');
const LATEST = Date.parse('9999-12-30T00:00:00Z');

/**
 * An ISO 8601 time with a zone, or a date alone (its midnight in UTC), as Unix ms.
 * @returns undefined for anything else, days that the calendar does not have, and beyond the years 1 to 9999
 */
export function isoTime(text: string): number | undefined {
  const day = ISO.exec(text)?.[1];
  if (day === undefined) return undefined;
  const time = Date.parse(text.replace(' ', 'T'));
  // Date.parse takes 30 February for 2 March.
  const midnight = Date.parse(day);
  if (Number.isNaN(time) || new Date(midnight).toISOString().slice(0, 10) !== day) return undefined;
  return time >= EARLIEST && time < LATEST ? time : undefined;
}
