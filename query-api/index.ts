import type { FastifyPluginAsync } from 'fastify';
import type { QueryOptions } from './options.ts';
import { archiveRoutes } from './routes/archives.ts';
import { businessRoutes } from './routes/business.ts';
import { creditRoutes } from './routes/credits.ts';
import { eventRoutes } from './routes/events.ts';
import { jobRoutes } from './routes/jobs.ts';
import { lifecycleRoutes } from './routes/lifecycle.ts';
import { meterDefinitionRoutes } from './routes/meter-definitions.ts';
import { meterRoutes } from './routes/meters.ts';
import { migrationRoutes } from './routes/migrations.ts';
import { operationRoutes } from './routes/operations.ts';
import { planRoutes } from './routes/plans.ts';
import { poolRoutes } from './routes/pools.ts';
import { provisioningRoutes } from './routes/provisioning.ts';
import { ratingRoutes } from './routes/rating.ts';
import { schemaHealthRoutes } from './routes/schema-health.ts';
import { statementRoutes } from './routes/statements.ts';
import { subscriptionRoutes } from './routes/subscriptions.ts';
import { tenantRoutes } from './routes/tenants.ts';
import { webhookRoutes } from './routes/webhooks.ts';
import { withdrawalRoutes } from './routes/withdrawals.ts';

export type { BillingOptions } from './billing-options.ts';
export type { QueryOptions } from './options.ts';

/** Every route of reading and administration. */
export const queryRoutes: FastifyPluginAsync<QueryOptions> = async (app, options) => {
  await app.register(meterDefinitionRoutes, options);
  await app.register(meterRoutes, options);
  await app.register(eventRoutes, options);
  await app.register(withdrawalRoutes, options);
  await app.register(operationRoutes, options);
  await app.register(jobRoutes, options);
  await app.register(tenantRoutes, options);
  await app.register(provisioningRoutes, options);
  await app.register(migrationRoutes, options);
  await app.register(poolRoutes, options);
  await app.register(lifecycleRoutes, options);
  await app.register(schemaHealthRoutes, options);
  await app.register(ratingRoutes);
  await app.register(planRoutes, options);
  await app.register(subscriptionRoutes, options);
  await app.register(statementRoutes, options);
  await app.register(creditRoutes, options);
  await app.register(webhookRoutes, options);
  await app.register(businessRoutes, options);
  await app.register(archiveRoutes, options);
};
