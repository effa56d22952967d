/** The steps in the order in which they run; an undo goes backwards. */
import type { Mailer } from '../../sinks/index.ts';
import type { SecretBox } from '../secrets/cipher.ts';
import type { TenantMigration } from '../tenant-migrations/index.ts';
import type { ProvisioningStep } from './step.ts';
import { configurationStep } from './steps/configuration.ts';
import { demoDataStep } from './steps/demo-data.ts';
import { keysStep } from './steps/keys.ts';
import { migrationsStep } from './steps/migrations.ts';
import { type HeartbeatDeps, monitoringStep } from './steps/monitoring.ts';
import { type PlacementPort, placementStep } from './steps/placement.ts';
import { poolStep, type TenantPoolPort } from './steps/pool.ts';
import { schemaStep } from './steps/schema.ts';
import { tenantRecordStep } from './steps/tenant-record.ts';
import { welcomeEmailStep } from './steps/welcome-email.ts';

export interface StepDeps {
  secrets: SecretBox;
  pools: TenantPoolPort;
  /** of tenants' schemas, in order */
  migrations(): readonly TenantMigration[];
  placement: PlacementPort;
  mailer: Mailer;
  /** undefined: no outside service watches */
  heartbeats: HeartbeatDeps | undefined;
  /** of the tenant's subdomain; undefined where there is no domain */
  addressOf(slug: string): string | undefined;
}

export function provisioningSteps(deps: StepDeps): ProvisioningStep[] {
  return [
    tenantRecordStep(),
    schemaStep(deps),
    migrationsStep(deps),
    poolStep(deps),
    configurationStep(),
    monitoringStep(deps),
    demoDataStep(),
    placementStep(deps),
    keysStep(),
    welcomeEmailStep(deps),
  ];
}
