import { LIMITS } from '../../schemas/index.ts';
import type { RawEvent } from './ports.ts';

/** A raw event as the database and the archive give it: what is no field of its own is JSON text. */
export interface StoredEvent {
  /** Unix ms */
  timestamp: number;
  key: string;
  type: string;
  user_id: string | null;
  request_id: string | null;
  data: string;
}

/** Its scalars by name, every digit kept. */
export function toRawEvent({ timestamp, key, type, user_id: user, request_id: request, data }: StoredEvent): RawEvent {
  const attributes = new Map<string, string>();
  flatten(JSON.parse(data, keepSource), '', attributes);
  if (user !== null) attributes.set('user_id', user);
  if (request !== null) attributes.set('request_id', request);
  return { timestamp, key, type, attributes };
}

/** A number as the text it has. */
class Literal {
  text: string;
  constructor(text: string) {
    this.text = text;
  }
}
const keepSource = (_key: string, value: unknown, context?: { source?: string }): unknown =>
  typeof value === 'number' && context?.source !== undefined ? new Literal(context.source) : value;

/** As ingest does it: scalars under dotted names; arrays, null and long texts are no attributes. */
function flatten(value: unknown, name: string, into: Map<string, string>): void {
  if (value instanceof Literal) into.set(name, value.text);
  else if (typeof value === 'boolean') into.set(name, String(value));
  else if (typeof value === 'string') {
    if (Buffer.byteLength(value) <= LIMITS.attributeBytes) into.set(name, value);
  } else if (typeof value === 'object' && value !== null && !Array.isArray(value))
    for (const [inner, one] of Object.entries(value)) flatten(one, name === '' ? inner : `${name}.${inner}`, into);
}
