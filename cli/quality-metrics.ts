import type { Pool } from 'pg';
import { Gauge, type Registry } from 'prom-client';
import { type QualityReport, qualityReport } from '../query-api/index.ts';
import type { MeterCatalogue } from '../schemas/index.ts';
import type { EventLog } from '../sinks/index.ts';

/** Scrapes come often, and a report reads a sample of raw events. */
const KEPT_MS = 60_000;
const WINDOW_MS = 3_600_000;

/** Data quality of the last hour, at most a minute old. */
export function watchQuality(deps: {
  pool: Pool;
  log: EventLog;
  catalogue: MeterCatalogue;
  now(): number;
}): () => Promise<QualityReport> {
  let kept: { at: number; report: Promise<QualityReport> } | undefined;
  return () => {
    const at = deps.now();
    if (kept === undefined || at - kept.at >= KEPT_MS) {
      const report = deps.catalogue.list().then((entries) =>
        qualityReport(deps.pool, deps.log, {
          tenantIds: null,
          meters: entries.map((entry) => entry.meter),
          now: at,
          windowMs: WINDOW_MS,
        }),
      );
      kept = { at, report };
      // The next scrape asks again.
      report.catch(() => {
        kept = undefined;
      });
    }
    return kept.report;
  };
}

/** The report as gauges; by tenant only over HTTP, for tenants are many. @returns what a scrape calls first */
export function qualityMetrics(registry: Registry, quality: () => Promise<QualityReport>): () => Promise<void> {
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name, help, labelNames, registers: [registry] });
  const late = gauge(
    'tidemark_quality_late_share',
    'Share of events received 10 minutes after their own time or later',
  );
  const fresh = gauge('tidemark_quality_freshness_lag_seconds', 'Age of the last commit while records wait', [
    'partition',
  ]);
  const dead = gauge('tidemark_quality_dead_letters', 'Dead letters that wait', ['reason']);
  const nulls = gauge('tidemark_quality_null_share', 'Share of events without the field', ['type', 'field']);
  const unknown = gauge('tidemark_quality_unknown_type_events', 'Sampled events of types that no meter names', [
    'type',
  ]);
  const missing = gauge('tidemark_quality_missing_value_share', 'Share of events without the value of the meter', [
    'meter',
  ]);
  /** event types come from outside: only so many become labels */
  const MOST_TYPES = 20;
  return async () => {
    // Without a database there are no new values, and the other metrics are needed the more.
    const report = await quality().catch(() => undefined);
    if (report === undefined) return;
    for (const one of [fresh, dead, nulls, unknown, missing]) one.reset();
    late.set(report.late.share);
    for (const { partition, freshness_lag_seconds: lag } of report.partitions ?? [])
      fresh.set({ partition: String(partition) }, lag);
    for (const { reason, waiting } of report.dead_letters) dead.set({ reason }, waiting);
    const types = new Set(report.fields.map((one) => one.type));
    const shown = new Set([...types].slice(0, MOST_TYPES));
    for (const { type, field, null_share: share } of report.fields)
      if (shown.has(type)) nulls.set({ type, field }, share);
    for (const { type, sampled_events: events } of report.unknown_event_types.slice(0, MOST_TYPES))
      unknown.set({ type }, events);
    for (const { meter, share } of report.missing_values) missing.set({ meter }, share);
  };
}
