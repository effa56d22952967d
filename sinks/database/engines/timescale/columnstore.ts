/** How each time table is compressed, and after how many days; retention is tiering's. */
import { TIME_TABLES, type TimeTableName } from '../../../../schemas/index.ts';
import { quoteIdentifier } from '../../connect.ts';
import type { SqlSession } from '../port.ts';
import { type Extension, isAtLeast } from './extension.ts';

interface Layout {
  /** columns whose values stand once for a thousand rows: what every query names */
  segmentBy: string;
  orderBy: string;
  /** what is searched for beside the segment and order: Bloom filters and min/max of each thousand rows (≥ 2.22) */
  sparse?: string;
}

const ROLLUPS: Layout = { segmentBy: 'meter_id, tenant_id', orderBy: 'bucket, group_key, shard' };
const MEMBERS: Layout = { segmentBy: 'meter_id, tenant_id', orderBy: 'bucket, group_key, shard, batch' };
/** A time table that is not here stays as rows. */
const LAYOUTS: Partial<Record<TimeTableName, Layout>> = {
  events: {
    segmentBy: 'tenant_id',
    orderBy: '"timestamp" DESC, shard DESC, log_offset DESC',
    sparse: 'bloom(key), bloom(idempotency_key), bloom(request_id), bloom(user_id), minmax(received_at)',
  },
  rollups_minute: ROLLUPS,
  rollups_hour: ROLLUPS,
  rollups_coarse: { segmentBy: 'meter_id, level, tenant_id', orderBy: 'bucket, group_key, shard' },
  members_minute: MEMBERS,
  members_hour: MEMBERS,
};

const SPARSE_SINCE = [2, 22] as const;
const STATE = `
  SELECT h.hypertable_name AS table, h.compression_enabled AS enabled, c.relrowsecurity AS secured,
    (SELECT (extract(epoch FROM (j.config->>'compress_after')::interval) / 86400)::float8 FROM timescaledb_information.jobs AS j
     WHERE j.hypertable_schema = h.hypertable_schema AND j.hypertable_name = h.hypertable_name AND j.config ? 'compress_after') AS days
  FROM timescaledb_information.hypertables AS h JOIN pg_class AS c ON c.oid = format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass
  WHERE h.hypertable_schema = current_schema() AND h.hypertable_name = ANY ($1::text[])`;

/**
 * The policy packs a chunk once. What comes late into it stays as rows: packing it again hides these rows from
 * transactions that began before (measured on 2.28.3), and a statement in the making would miss them. The first packing
 * does not: TimescaleDB writes it frozen, which every snapshot sees.
 */
const PACK_ONCE = (schema: string) => `
  SELECT ${schema}.alter_job(job_id, config => config || '{"recompress": false}') FROM timescaledb_information.jobs
  WHERE hypertable_schema = current_schema() AND hypertable_name = $1 AND config ? 'compress_after'`;

/**
 * Switches the columnstore on for every hypertable and sets its policy; changes only what differs. A table with row
 * security stays uncompressed: TimescaleDB can't have both.
 * @param afterDays a chunk is compressed when its end is so long past; 0: never
 */
export async function configureColumnstore(client: SqlSession, extension: Extension, afterDays: number): Promise<void> {
  const schema = quoteIdentifier(extension.schema);
  const { rows } = await client.query<{ table: string; enabled: boolean; secured: boolean; days: number | null }>(
    STATE,
    [Object.keys(TIME_TABLES)],
  );
  for (const name of Object.keys(LAYOUTS) as TimeTableName[]) {
    const state = rows.find((row) => row.table === name);
    const layout = LAYOUTS[name];
    if (state === undefined || state.secured || layout === undefined) continue;
    const table = quoteIdentifier(name);
    const { segmentBy, orderBy, sparse } = layout;
    if (!state.enabled) {
      const index =
        sparse !== undefined && isAtLeast(extension.version, SPARSE_SINCE)
          ? `, timescaledb.sparse_index = '${sparse}'`
          : '';
      await client.query(
        `ALTER TABLE ${table} SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = '${segmentBy}', timescaledb.orderby = '${orderBy}'${index})`,
      );
    }
    if ((state.days ?? 0) === afterDays) continue;
    if (state.days !== null) await client.query(`CALL ${schema}.remove_columnstore_policy('${name}')`);
    if (afterDays === 0) continue;
    await client.query(`CALL ${schema}.add_columnstore_policy('${name}', after => interval '${afterDays} days')`);
    await client.query(PACK_ONCE(schema), [name]);
  }
}
