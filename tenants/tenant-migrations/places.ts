import type { Pool } from 'pg';
import type { TenantConnection } from '../pools/index.ts';
import type { TenantMigration } from './read.ts';

/** What migrating tenants needs from the outside. */
export interface MigrationDeps {
  /** the database of the control tables */
  pool: Pool;
  /** administration of the database that holds a tenant's schema; not the pool of the control tables, which must answer meanwhile */
  databaseOf(tenantId: string): Promise<Pool>;
  /** every database that holds schemas of tenants */
  databases(): Promise<Pool[]>;
  /** a connection in the tenant's own role, as its service has it */
  useTenant<T>(tenantId: string, work: (connection: TenantConnection) => Promise<T>): Promise<T>;
  /** all migrations of tenants' schemas, in order; read anew each time */
  migrations(): readonly TenantMigration[];
  delay(ms: number): Promise<void>;
  /** a run whose process is silent for so long is taken from it */
  leaseSeconds: number;
  /** told of every step that was begun or committed; faults in tests strike here */
  onStep?: ((tenantId: string, step: string) => void) | undefined;
}
