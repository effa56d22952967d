import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { detectFormat, type Format, type LogLine, readLines, toJson } from './readers.ts';
import { openSender, type SendResult } from './sender.ts';

export interface ImportOptions {
  path: string;
  url: string;
  key: string;
  format: Format | undefined;
  map: ReadonlyMap<string, string>;
  set: Readonly<Record<string, string>>;
  /** move all times by one constant, so that the last event is now */
  shiftToNow: boolean;
  /** folder of progress files */
  progress: string;
  onProgress(state: ImportState): void;
}

export interface ImportState {
  /** lines of the file read, of which so many were skipped because an earlier run had sent them */
  lines: number;
  resumedAt: number;
  accepted: number;
  rejected: number;
  /** reason → how often */
  reasons: Map<string, number>;
  /** the first few, with the line's number */
  problems: string[];
  seconds: number;
}

interface Progress {
  /** every line up to this one is acknowledged */
  lines: number;
  /** milliseconds added to every time, so that a second run moves them alike */
  shiftMs: number;
}

const BATCH = 1000;
const CONNECTIONS = 4;
const MOST_PROBLEMS = 10;

/**
 * Imports a file. Its lines' idempotency keys come from its content and the line number, so a repeated import counts
 * nothing twice, and one that was cut off goes on where it was acknowledged.
 */
export async function importFile(options: ImportOptions): Promise<ImportState> {
  const format = options.format ?? (await detectFormat(options.path));
  const sha = await digestOf(options.path);
  const file = join(options.progress, `${wayOf(options, format, sha)}.json`);
  const reading = { format, map: options.map, set: options.set };
  const known = readProgress(file);
  const shiftMs = known?.shiftMs ?? (options.shiftToNow ? Date.now() - (await lastTime(options.path, reading)) : 0);
  const state: ImportState = {
    lines: 0,
    resumedAt: known?.lines ?? 0,
    accepted: 0,
    rejected: 0,
    reasons: new Map(),
    problems: [],
    seconds: 0,
  };
  const began = performance.now();
  const sender = openSender({ url: options.url, key: options.key, backfill: shiftMs === 0, connections: CONNECTIONS });
  const inFlight = new Set<Promise<void>>();
  /** last line of each batch not acknowledged yet, in order */
  const open: { last: number; done: boolean }[] = [];

  const problem = (number: number, reason: string, detail: string) => {
    state.rejected++;
    state.reasons.set(reason, (state.reasons.get(reason) ?? 0) + 1);
    if (state.problems.length < MOST_PROBLEMS) state.problems.push(`line ${number}: ${detail}`);
  };
  let failure: unknown;
  const post = (batch: { number: number; json: string }[]) => {
    const ticket = { last: batch.at(-1)?.number ?? 0, done: false };
    open.push(ticket);
    const sent: Promise<void> = sender
      .send(batch.map((one) => one.json))
      .then((result: SendResult) => {
        state.accepted += result.accepted;
        for (const { index, code, detail } of result.rejected)
          problem(batch[index]?.number ?? 0, code, `${code}: ${detail}`);
        ticket.done = true;
        let acknowledged: number | undefined;
        while (open[0]?.done) acknowledged = open.shift()?.last;
        if (acknowledged !== undefined) writeProgress(file, { lines: acknowledged, shiftMs });
        state.seconds = (performance.now() - began) / 1000;
        options.onProgress(state);
      })
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => inFlight.delete(sent));
    inFlight.add(sent);
  };

  let batch: { number: number; json: string }[] = [];
  for await (const read of readLines(options.path, reading)) {
    state.lines = read.number;
    if (read.number <= state.resumedAt) continue;
    if ('problem' in read) {
      problem(read.number, 'malformed line', read.problem);
      continue;
    }
    read.lines.forEach((line, i) => {
      batch.push({
        number: read.number,
        json: toJson(keyed(shifted(line, shiftMs), sha, read.number, read.lines.length > 1 ? i : undefined)),
      });
    });
    if (batch.length < BATCH) continue;
    post(batch);
    batch = [];
    while (inFlight.size >= CONNECTIONS && failure === undefined) await Promise.race(inFlight);
    if (failure !== undefined) break;
  }
  if (batch.length > 0 && failure === undefined) post(batch);
  await Promise.all(inFlight);
  await sender.close();
  state.seconds = (performance.now() - began) / 1000;
  if (failure !== undefined) throw failure;
  return state;
}

function keyed(line: LogLine, sha: string, number: number, part: number | undefined): LogLine {
  if (line.idempotency_key !== undefined || line.request_id !== undefined) return line;
  return { ...line, idempotency_key: `${sha.slice(0, 32)}:${number}${part === undefined ? '' : `:${part}`}` };
}

function shifted(line: LogLine, shiftMs: number): LogLine {
  if (shiftMs === 0 || typeof line.timestamp !== 'string') return line;
  return { ...line, timestamp: new Date(Date.parse(line.timestamp) + shiftMs).toISOString() };
}

async function lastTime(path: string, reading: Parameters<typeof readLines>[1]): Promise<number> {
  let last = Number.NEGATIVE_INFINITY;
  for await (const read of readLines(path, reading)) {
    if ('problem' in read) continue;
    for (const { timestamp } of read.lines)
      if (typeof timestamp === 'string') last = Math.max(last, Date.parse(timestamp));
  }
  return last;
}

/** A file goes on where it was cut off only if it goes the same way: to that server, read and named like that. */
function wayOf({ url, map, set, shiftToNow }: ImportOptions, format: Format, sha: string): string {
  const way = [sha, url, format, [...map].sort(), Object.entries(set).sort(), shiftToNow];
  return createHash('sha256').update(JSON.stringify(way)).digest('hex');
}

async function digestOf(path: string): Promise<string> {
  const digest = createHash('sha256');
  for await (const chunk of createReadStream(path)) digest.update(chunk);
  return digest.digest('hex');
}

function readProgress(file: string): Progress | undefined {
  if (!existsSync(file)) return undefined;
  const progress: Progress = JSON.parse(readFileSync(file, 'utf8'));
  return progress;
}

/** Replaced whole: a crash leaves the old one or the new one. */
function writeProgress(file: string, progress: Progress): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.new`, JSON.stringify(progress));
  renameSync(`${file}.new`, file);
}
