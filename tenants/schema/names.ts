/** Names in the catalogue: they carry the UUID and nothing else of the tenant. */

const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/;

/** `tenant_` and the UUID's 32 digits: the tenant's schema, and its login role. @throws RangeError for what is no UUID */
export function schemaOf(tenantId: string): string {
  if (!UUID.test(tenantId)) throw new RangeError('not a UUID');
  return `tenant_${tenantId.replaceAll('-', '')}`;
}

/** The role that the tenant logs in with; owns nothing. */
export const loginRoleOf = schemaOf;

/** The role that owns the tenant's schema and what is in it; nobody logs in with it. */
export const ownerRoleOf = (tenantId: string): string => `${schemaOf(tenantId)}_owner`;

/** The tenant's UUID in the name of its schema or login role. */
export function tenantIdOf(schema: string): string | undefined {
  const [, a, b, c, d, e] =
    /^tenant_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$/.exec(schema) ?? [];
  return a === undefined ? undefined : [a, b, c, d, e].join('-');
}
