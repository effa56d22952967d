import type { Pool } from 'pg';
import type { ObjectStore } from '../sinks/index.ts';
import type { TenantPools } from './pools/index.ts';
import type { Provisioner } from './provisioning/provisioner.ts';
import type { SecretBox } from './secrets/cipher.ts';
import type { MoveDeps } from './shards/move-tenant.ts';
import type { NewShard, ShardDatabases } from './shards/shards.ts';
import type { MigrationDeps, RunOptions } from './tenant-migrations/index.ts';

/** The control plane, as routes and jobs use it. */
export interface Tenancy {
  /** may make roles and schemas */
  pool: Pool;
  secrets: SecretBox;
  /** where backups are */
  objects: ObjectStore;
  provisioner: Provisioner;
  /** how long a request for a new tenant waits for the end of its provisioning */
  waitMs: number;
  /** days between a deletion and the purge, where the request does not say */
  deleteDays: number;
  /** closes the tenant's connections of this process */
  closePool(tenantId: string): Promise<void>;
  /** connection URL of the tenant's own role */
  urlOf(tenantId: string): Promise<string>;
  /** connections of all tenants under one budget */
  pools: TenantPools;
  shards: ShardDatabases;
  /** prepares a shard's database, and writes the shard down */
  addShard(shard: NewShard): Promise<void>;
  moves: MoveDeps;
  migrations: MigrationDeps;
  /** what a migration run does unless it is asked for otherwise */
  runOptions: RunOptions;
  /** of the tenant's subdomain; undefined where there is no domain */
  addressOf(slug: string): string | undefined;
}
