import type { Mailer } from '../../../sinks/index.ts';
import type { ProvisioningStep } from '../step.ts';

/** Says hello where an address was given. Secrets are in no mail. */
export const welcomeEmailStep = ({
  mailer,
  addressOf,
}: {
  mailer: Mailer;
  addressOf(slug: string): string | undefined;
}): ProvisioningStep => ({
  name: 'welcome_email',
  applies: ({ request }) => request.email !== null,
  call: async ({ provisioningId, request }) => {
    const address = addressOf(request.slug);
    await mailer.send({
      id: `welcome-${provisioningId}`,
      to: request.email ?? '',
      subject: `Welcome, ${request.name}`,
      text: [
        `Hello,`,
        '',
        `${request.name} is ready on Tidemark.`,
        ...(address === undefined ? [] : [`Your address: ${address}`]),
        `Your name in events (customer_id): ${request.customerId}`,
        `Your plan's tier: ${request.tier}`,
        `Your first key: ${request.keys.map((key) => key.id).join(', ')} (its secret was shown once, to whoever signed you up)`,
        '',
      ].join('\n'),
    });
  },
});
