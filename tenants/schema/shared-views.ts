import { ATTRIBUTE_COLUMNS } from '../../schemas/index.ts';
import { quoteIdentifier } from '../../sinks/index.ts';

/** A view that each tenant has in its schema over a table that all tenants share. */
export interface SharedView {
  name: string;
  table: string;
  columns: readonly string[];
}

const ROLLUP = 'bucket meter_id group_key count last_at sum min max last bins bin_counts'.split(' ');
const MEMBERS = 'bucket meter_id group_key members'.split(' ');

/** Prefixed with `usage_`, so that a tenant's own tables may be called `events`. */
export const SHARED_VIEWS: readonly SharedView[] = [
  {
    name: 'usage_events',
    table: 'events',
    columns: [
      ...'timestamp received_at stored_at idempotency_key source type user_id request_id'.split(' '),
      ...ATTRIBUTE_COLUMNS.map((column) => column.name),
      'data',
    ],
  },
  { name: 'usage_rollups_minute', table: 'rollups_minute', columns: ROLLUP },
  { name: 'usage_rollups_hour', table: 'rollups_hour', columns: ROLLUP },
  { name: 'usage_members_minute', table: 'members_minute', columns: MEMBERS },
  { name: 'usage_members_hour', table: 'members_hour', columns: MEMBERS },
  { name: 'usage_groups', table: 'rollup_groups', columns: ['group_key', 'meter_id', 'values'] },
  { name: 'usage_accounting', table: 'accounting', columns: ['received', 'accepted', 'duplicate', 'dead_lettered'] },
  {
    name: 'usage_dead_letters',
    table: 'dead_letters',
    columns: ['id', 'reason', 'detail', 'created_at', 'requeued_at'],
  },
];

/**
 * The statements that make a tenant's views. Each has a fixed predicate and is a security barrier (manual, 41.5), so no
 * operator of a query sees another tenant's row; its owner may read the shared tables, the tenant may read the view.
 * @param tenantId UUID, checked by `schemaOf`
 */
export function createSharedViews(schema: string, tenantId: string, reader: string, login: string): string {
  const inSchema = quoteIdentifier(schema);
  const owner = quoteIdentifier(reader);
  // Taking over a view needs CREATE in its schema, for that moment.
  const statements = [`GRANT USAGE, CREATE ON SCHEMA ${inSchema} TO ${owner}`];
  for (const view of SHARED_VIEWS) {
    const name = `${inSchema}.${quoteIdentifier(view.name)}`;
    statements.push(
      `CREATE VIEW ${name} WITH (security_barrier) AS SELECT ${view.columns.map(quoteIdentifier).join(', ')}
       FROM tidemark.${quoteIdentifier(view.table)} WHERE tenant_id = '${tenantId}'::uuid`,
      `ALTER VIEW ${name} OWNER TO ${owner}`,
      `REVOKE ALL ON ${name} FROM PUBLIC, ${quoteIdentifier(login)}`,
      `GRANT SELECT ON ${name} TO ${quoteIdentifier(login)}`,
    );
  }
  statements.push(`REVOKE CREATE ON SCHEMA ${inSchema} FROM ${owner}`);
  return `${statements.join(';\n')};`;
}
