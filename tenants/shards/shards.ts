import type { Pool } from 'pg';
import { TidemarkError } from '../../schemas/index.ts';
import type { SecretBox } from '../secrets/cipher.ts';

/** A database and a topic that tenants live in. */
export interface Shard {
  id: string;
  topic: string;
  /** tenants that it is made for */
  capacity: number;
  isOpen: boolean;
  /** tenants that live there */
  tenants: number;
}

const LIST = `
  SELECT s.id, s.topic, s.capacity, s.is_open AS "isOpen",
    (SELECT count(*)::int FROM tenants AS t WHERE t.shard = s.id AND t.status <> 'deleted') AS tenants
  FROM shards AS s`;

export async function listShards(pool: Pool): Promise<Shard[]> {
  const { rows } = await pool.query<Shard>(`${LIST} ORDER BY s.created_at, s.id`);
  return rows;
}

/** The shard for a new tenant: of those that are open, the one with most room; `main` when none has any. */
export async function pickShard(pool: Pool): Promise<string> {
  const open = (await listShards(pool)).filter((one) => one.isOpen && one.tenants < one.capacity);
  const room = (one: Shard) => (one.capacity - one.tenants) / one.capacity;
  return open.toSorted((a, b) => room(b) - room(a))[0]?.id ?? 'main';
}

export interface NewShard {
  id: string;
  /** of an administrator */
  databaseUrl: string;
  topic: string;
  capacity: number;
}

/** @throws TidemarkError `conflict` when there is one of that name */
export async function addShard(pool: Pool, secrets: SecretBox, shard: NewShard): Promise<void> {
  const { rowCount } = await pool.query(
    'INSERT INTO shards (id, database, topic, capacity) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING',
    [shard.id, secrets.seal(shard.databaseUrl, `shards/${shard.id}`), shard.topic, shard.capacity],
  );
  if (rowCount === 0) throw new TidemarkError('conflict', `there is a shard ${shard.id}`);
}

/** The shards' databases, each behind one pool of administration. */
export interface ShardDatabases {
  databaseOf(tenantId: string): Promise<Pool>;
  databases(): Promise<Pool[]>;
  /** @throws TidemarkError `not_found` */
  byName(shard: string): Promise<Pool>;
  /** URL of a shard's administrator */
  urlOf(shard: string): Promise<string>;
  shardOf(tenantId: string): Promise<string>;
  close(): Promise<void>;
}

/**
 * @param pool of the control tables
 * @param main URL of the platform's own database
 * @param open makes a pool of administration, as `connect` does
 */
export function openShardDatabases(deps: {
  pool: Pool;
  secrets: SecretBox;
  main: string;
  open(url: string): Pool;
}): ShardDatabases {
  const pools = new Map<string, Pool>();
  const urlOf = async (shard: string): Promise<string> => {
    if (shard === 'main') return deps.main;
    const { rows } = await deps.pool.query<{ database: Buffer }>('SELECT database FROM shards WHERE id = $1', [shard]);
    if (rows[0] === undefined) throw new TidemarkError('not_found', `there is no shard ${shard}`);
    return deps.secrets.open(rows[0].database, `shards/${shard}`);
  };
  const byName = async (shard: string): Promise<Pool> => {
    const known = pools.get(shard);
    if (known !== undefined) return known;
    const url = await urlOf(shard);
    const opened = pools.get(shard) ?? deps.open(url);
    pools.set(shard, opened);
    return opened;
  };
  const shardOf = async (tenantId: string): Promise<string> => {
    const { rows } = await deps.pool.query<{ shard: string }>('SELECT shard FROM tenants WHERE id = $1', [tenantId]);
    if (rows[0] === undefined) throw new TidemarkError('not_found', `there is no tenant ${tenantId}`);
    return rows[0].shard;
  };
  return {
    byName,
    urlOf,
    shardOf,
    databaseOf: async (tenantId) => byName(await shardOf(tenantId)),
    databases: async () => Promise.all((await listShards(deps.pool)).map((one) => byName(one.id))),
    close: async () => {
      await Promise.all([...pools.values()].map((one) => one.end()));
    },
  };
}
