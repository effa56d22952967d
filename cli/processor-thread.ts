import { Worker } from 'node:worker_threads';
import type { ProcessorMetrics } from '../processors/index.ts';
import type { LogCounters } from '../sinks/index.ts';
import type { WorkerData } from './processor-worker.ts';

/** V8 would let it grow with the traffic; batches outlive it anyway. */
const YOUNG_GENERATION_MB = 48;
/** What the thread has counted since its start. */
export interface ThreadMetrics {
  metrics: ProcessorMetrics;
  /** of its log, where that counts anything */
  log?: LogCounters | undefined;
}

export interface ProcessorThread {
  metrics(): Promise<ThreadMetrics | undefined>;
}

/** Starts the worker thread and waits until it is ready. If it ends unasked, the server can't go on. */
export async function startProcessors(
  workerData: WorkerData,
  onFatal: (error: Error) => void,
  disposers: (() => Promise<void> | void)[],
): Promise<ProcessorThread> {
  const worker = new Worker(new URL('./processor-worker.ts', import.meta.url), {
    workerData,
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MB },
  });
  let expected = false;
  let asked: ((metrics: ThreadMetrics) => void)[] = [];
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  const ready = new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.on('message', (message: { ready?: true } & Partial<ThreadMetrics>) => {
      if (message.ready) resolve();
      const { metrics, log } = message;
      if (metrics !== undefined) for (const answer of asked.splice(0)) answer({ metrics, log });
    });
  });
  await ready;
  worker.on('error', (error: unknown) => onFatal(error instanceof Error ? error : new Error(String(error))));
  worker.on('exit', () => {
    if (!expected) onFatal(new Error('the processor thread ended'));
    asked = [];
  });
  disposers.push(async () => {
    expected = true;
    worker.postMessage('stop');
    await ended;
  });
  return {
    metrics: () =>
      new Promise((resolve) => {
        const timer = setTimeout(() => resolve(undefined), 2_000);
        asked.push((metrics) => {
          clearTimeout(timer);
          resolve(metrics);
        });
        worker.postMessage('metrics');
      }),
  };
}
