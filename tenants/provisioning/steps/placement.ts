import { TidemarkError } from '../../../schemas/index.ts';
import type { ProvisioningStep } from '../step.ts';

/** Where a new tenant goes. */
export interface PlacementPort {
  /** the shard with most room */
  pick(): Promise<string>;
  /** @throws TidemarkError `conflict` when it is there already */
  move(tenantId: string, shard: string): Promise<unknown>;
}

/** The tenant's shard. Made on the platform's own database first, it moves while there is next to nothing to copy. */
export const placementStep = ({ placement }: { placement: PlacementPort }): ProvisioningStep => ({
  name: 'placement',
  call: async ({ tenantId }) => {
    const shard = await placement.pick();
    if (shard !== 'main') await moveUnlessThere(placement, tenantId, shard);
  },
  undoCall: ({ tenantId }) => moveUnlessThere(placement, tenantId, 'main'),
});

async function moveUnlessThere(placement: PlacementPort, tenantId: string, shard: string): Promise<void> {
  try {
    await placement.move(tenantId, shard);
  } catch (error) {
    if (!(error instanceof TidemarkError && error.code === 'already_there')) throw error;
  }
}
