/** What the members of an event's object are, by their names. */

/** Fields of the envelope, by index into `EventScan.starts` and `ends`. */
export const FIELD = {
  customer_id: 0,
  idempotency_key: 1,
  request_id: 2,
  user_id: 3,
  type: 4,
  source: 5,
  timestamp: 6,
  subject: 7,
  specversion: 8,
  id: 9,
  time: 10,
  datacontenttype: 11,
} as const;
type FieldName = keyof typeof FIELD;
export const FIELD_NAMES: readonly string[] = Object.keys(FIELD);

/** Where a member stands: in a log line, in a CloudEvent, or in its `data`. */
export const MODE = { log: 0, cloudEvent: 1, data: 2 } as const;
export type Mode = (typeof MODE)[keyof typeof MODE];

/** What a member is that is no field of the envelope. */
export const ROLE = { attribute: -1, extension: -2, data: -3, dataBase64: -4 } as const;

const LOG = byLength(['timestamp', 'customer_id', 'idempotency_key', 'request_id', 'user_id', 'type', 'source']);
const CLOUD_EVENT = byLength(['specversion', 'id', 'source', 'type', 'subject', 'time', 'datacontenttype'], {
  data: ROLE.data,
  data_base64: ROLE.dataBase64,
});
const DATA = byLength(['customer_id', 'user_id', 'request_id']);
/** by mode */
const ROLES = [LOG, CLOUD_EVENT, DATA] as const;
/** by mode, of names that are in no table */
const OTHERS = [ROLE.attribute, ROLE.extension, ROLE.attribute] as const;

function byLength(fields: readonly FieldName[], more: Record<string, number> = {}) {
  const roles = [...fields.map((name) => [name, FIELD[name]] as const), ...Object.entries(more)];
  return Map.groupBy(
    roles.map(([name, role]) => ({ name: Buffer.from(name), role })),
    ({ name }) => name.length,
  );
}

/** The index of a field of the envelope, or one of ROLE. */
export function roleOf(mode: Mode, bytes: Uint8Array, start: number, end: number): number {
  for (const { name, role } of ROLES[mode].get(end - start) ?? []) {
    let i = 0;
    while (i < name.length && name[i] === bytes[start + i]) i++;
    if (i === name.length) return role;
  }
  return OTHERS[mode];
}
