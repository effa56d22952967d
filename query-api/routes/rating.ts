import type { FastifyPluginAsync } from 'fastify';
import { type Static, Type } from 'typebox';
import { previewRating } from '../../billing/index.ts';
import { keepEveryDigit } from '../exact-json.ts';

const anyOf = (description: string) => Type.Optional(Type.Unknown({ description }));
/** Only described here: `checkCharges` says what is wrong, with its place. */
export const ChargeShape = Type.Unknown({
  description:
    '{meter, model, …}; model is one of flat {amount}, per_unit {unit_amount}, graduated {tiers}, volume {tiers}, package {package_size, package_amount}, percentage {rate_percent, fixed_amount?, free_events?, free_units?}; a tier is {up_to: decimal|null, unit_amount?, flat_amount?}, the last one open; any charge may have key, name, filters, group_by, included, minimum, maximum, discount_percent, discount_amount',
  examples: [{ meter: 'tokens', model: 'per_unit', unit_amount: '0.000002', included: '100000' }],
});
const PreviewBody = Type.Object({
  currency: Type.String({ description: 'ISO 4217', examples: ['USD'] }),
  charges: Type.Unsafe<unknown>(ChargeShape),
  usage: anyOf('{meter or charge key: quantity | {quantity, events}}; what is missing is zero'),
});

/** Rating without storing anything. */
export const ratingRoutes: FastifyPluginAsync = async (app) => {
  keepEveryDigit(app);

  app.post<{ Body: Static<typeof PreviewBody> }>(
    '/api/v1/rating/preview',
    {
      schema: {
        tags: ['billing'],
        summary: 'What charges would cost for given usage; stores nothing, the meters need not exist',
        body: PreviewBody,
      },
    },
    async (request) => {
      await request.authorize('read');
      return previewRating(request.body);
    },
  );
};
