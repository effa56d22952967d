import { isoTime } from '../metering/index.ts';
import { LIMITS, type Principal, type Tenant, type TenantDirectory, TidemarkError } from '../schemas/index.ts';

/** What a route takes for an id of ours; anything else is not found, and never reaches the database. */
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** Tenants that a caller may read and has asked for; null: all of them (platform keys that named none). */
export async function tenantsOf(
  principal: Principal,
  directory: TenantDirectory,
  references: readonly string[],
): Promise<readonly Tenant[] | null> {
  const own = principal.tenant;
  if (own !== null) {
    for (const reference of references)
      if (reference !== own.id && reference !== own.customerId && reference !== own.slug)
        throw new TidemarkError('not_found', `there is no tenant ${reference}`);
    return [own];
  }
  if (references.length === 0) return null;
  const found: Tenant[] = [];
  for (const reference of references) {
    const tenant = await directory.find(reference);
    if (tenant === undefined) throw new TidemarkError('not_found', `there is no tenant ${reference}`);
    found.push(tenant);
  }
  return found;
}

/** Routes about the whole platform answer a tenant's key as if they were not there. */
export function requirePlatform(principal: Principal): void {
  if (principal.tenant !== null) throw new TidemarkError('forbidden', 'this needs a platform key');
}

/** One value, several, or none, as a list. */
export function listOf(value: unknown): string[] {
  if (value === undefined || value === null) return [];
  return (Array.isArray(value) ? value : [value]).map(String);
}

/** An ISO 8601 time as Unix ms. @throws TidemarkError `invalid_parameter` */
export function timeOf(name: string, value: unknown): number | undefined {
  if (value === undefined) return undefined;
  const text = String(value);
  const time = isoTime(text);
  if (time === undefined)
    throw new TidemarkError('invalid_parameter', `${name} must be ISO 8601 with a zone, not "${text}"`);
  return time;
}

/** How many rows a page has. @throws TidemarkError `invalid_parameter` */
export function limitOf(value: unknown, initial: number, most: number): number {
  if (value === undefined) return initial;
  const limit = Number(value);
  if (!Number.isInteger(limit) || limit < 1 || limit > most)
    throw new TidemarkError('invalid_parameter', `limit must be from 1 to ${most}`);
  return limit;
}

/** Cursors are opaque to callers: base64url of JSON. */
export const toCursor = (parts: readonly (string | number)[]): string =>
  Buffer.from(JSON.stringify(parts)).toString('base64url');

/** What a part of a cursor may be: anybody can write one, and PostgreSQL must take it. */
const CURSOR_PARTS = {
  string: (part: unknown) => typeof part === 'string' && part.isWellFormed() && !part.includes('\0'),
  uuid: (part: unknown) => typeof part === 'string' && UUID.test(part),
  /** ISO 8601 */
  moment: (part: unknown) => typeof part === 'string' && isoTime(part) !== undefined,
  number: (part: unknown) => Number.isSafeInteger(part),
  int: (part: unknown) => Number.isInteger(part) && Math.abs(Number(part)) < 2 ** 31,
  /** Unix ms */
  time: (part: unknown) => Number.isInteger(part) && Math.abs(Number(part)) < LIMITS.times.to,
};

/** @throws TidemarkError `invalid_cursor` unless it holds exactly `shape` */
export function fromCursor(
  cursor: unknown,
  shape: readonly (keyof typeof CURSOR_PARTS)[],
): (string | number)[] | undefined {
  if (cursor === undefined) return undefined;
  try {
    const parts: unknown = JSON.parse(Buffer.from(String(cursor), 'base64url').toString('utf8'));
    if (Array.isArray(parts) && parts.length === shape.length && shape.every((is, i) => CURSOR_PARTS[is](parts[i])))
      return parts;
  } catch {
    // falls through: it is none of ours
  }
  throw new TidemarkError('invalid_cursor', 'use the cursor of the previous page unchanged');
}
