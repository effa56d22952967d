import type { ClientBase } from 'pg';
import type { ProvisioningRequest } from './request.ts';

export interface StepContext {
  tenantId: string;
  request: ProvisioningRequest;
  /** of the run; names what is sent outside, so that a repeat is recognisable */
  provisioningId: string;
}

/**
 * One step. `call` works outside the database and may be repeated after a crash, so it finds what it made before. `apply`
 * runs in the transaction that records the step as done: exactly once. Both undos are idempotent.
 */
export interface ProvisioningStep<Called = unknown> {
  name: string;
  /** false: the step is skipped */
  applies?(context: StepContext): boolean;
  call?(context: StepContext): Promise<Called>;
  apply?(client: ClientBase, context: StepContext, called: Called | undefined): Promise<void>;
  undo?(client: ClientBase, context: StepContext): Promise<void>;
  undoCall?(context: StepContext): Promise<void>;
}
