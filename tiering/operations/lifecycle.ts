import type { Check } from '../../schemas/index.ts';
import type { LifecycleRule, ObjectStore } from '../../sinks/index.ts';
import { EVENTS_PREFIX, tagsOf } from '../layout.ts';
import type { LifecycleSettings, TieringDeps } from '../ports.ts';

/**
 * The rules of the settings. Parts grow cold; manifests stay readable, so that it is known what a cold day holds. Neither
 * expires while it is held: rules go by the tag.
 */
export function lifecycleRules({ infrequentDays, glacierDays, expireDays }: LifecycleSettings): LifecycleRule[] {
  const transitions = [
    { days: infrequentDays, storageClass: 'STANDARD_IA' },
    { days: glacierDays, storageClass: 'GLACIER' },
  ].filter((one) => one.days > 0);
  const expiry = expireDays > 0 ? { expireDays } : {};
  // A held part grows cold like any other; it is only that it does not end.
  const parts = (['no', 'yes'] as const).flatMap((hold): LifecycleRule[] =>
    transitions.length === 0 && (hold === 'yes' || expireDays === 0)
      ? []
      : [
          {
            id: `tidemark-parts-${hold === 'yes' ? 'held' : 'free'}`,
            prefix: EVENTS_PREFIX,
            tags: tagsOf('part', hold === 'yes'),
            transitions,
            ...(hold === 'yes' ? {} : expiry),
          },
        ],
  );
  const manifests: LifecycleRule[] =
    expireDays > 0
      ? [
          {
            id: 'tidemark-manifests',
            prefix: EVENTS_PREFIX,
            tags: tagsOf('manifest', false),
            transitions: [],
            ...expiry,
          },
        ]
      : [];
  return [...parts, ...manifests];
}

/** Puts the settings' rules on the bucket. Rules of others stay. */
export async function applyLifecycle({ store, settings }: TieringDeps): Promise<LifecycleRule[]> {
  const rules = lifecycleRules(settings.lifecycle);
  await store.setLifecycle(rules);
  return rules;
}

/** For `tidemark doctor`: whether the store has the rules of the settings. */
export async function checkLifecycle({
  store,
  settings,
}: {
  store: ObjectStore;
  settings: { lifecycle: LifecycleSettings };
}): Promise<Check[]> {
  const name = 'archive lifecycle';
  const found = new Map((await store.lifecycle()).map((rule) => [rule.id, canonical(rule)]));
  const wrong = lifecycleRules(settings.lifecycle).filter((rule) => found.get(rule.id) !== canonical(rule));
  return [
    wrong.length === 0
      ? { name, ok: true, detail: 'the store has the rules of the settings' }
      : {
          name,
          ok: false,
          detail: `${wrong.map((rule) => rule.id).join(', ')} missing or other than set: tidemark archive lifecycle --apply`,
        },
  ];
}

const canonical = (rule: LifecycleRule): string =>
  JSON.stringify([
    rule.prefix,
    Object.entries(rule.tags).sort(),
    rule.transitions.map((one) => [one.days, one.storageClass]),
    rule.expireDays ?? null,
  ]);
