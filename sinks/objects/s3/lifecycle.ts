import type { LifecycleRule as S3Rule, TransitionStorageClass } from '@aws-sdk/client-s3';
import { TransitionStorageClass as CLASSES } from '@aws-sdk/client-s3';
import type { LifecycleRule } from '../port.ts';

/** A rule as S3 has it; what crashed uploads left behind goes after a week. */
export function toS3Rule(rule: LifecycleRule, prefix: string): S3Rule {
  const Tags = Object.entries(rule.tags).map(([Key, Value]) => ({ Key, Value }));
  return {
    ID: rule.id,
    Status: 'Enabled',
    Filter: Tags.length === 0 ? { Prefix: prefix + rule.prefix } : { And: { Prefix: prefix + rule.prefix, Tags } },
    Transitions: rule.transitions.map(({ days, storageClass }) => ({
      Days: days,
      StorageClass: classOf(storageClass),
    })),
    ...(rule.expireDays === undefined ? {} : { Expiration: { Days: rule.expireDays } }),
  };
}

/** Rules that ours can't say (other filters, dates) are left out. */
export function fromS3Rule(rule: S3Rule, prefix: string): LifecycleRule[] {
  const at = rule.Filter?.And?.Prefix ?? rule.Filter?.Prefix ?? '';
  if (rule.ID === undefined || rule.Status !== 'Enabled' || !at.startsWith(prefix)) return [];
  return [
    {
      id: rule.ID,
      prefix: at.slice(prefix.length),
      tags: Object.fromEntries((rule.Filter?.And?.Tags ?? []).map(({ Key = '', Value = '' }) => [Key, Value])),
      transitions: (rule.Transitions ?? []).map(({ Days = 0, StorageClass = 'STANDARD' }) => ({
        days: Days,
        storageClass: StorageClass,
      })),
      ...(rule.Expiration?.Days === undefined ? {} : { expireDays: rule.Expiration.Days }),
    },
  ];
}

/** @throws RangeError for a class that nothing moves into */
function classOf(name: string): TransitionStorageClass {
  const found = Object.values(CLASSES).find((one) => one === name);
  if (found === undefined) throw new RangeError(`${name} is no storage class that objects move into`);
  return found;
}
