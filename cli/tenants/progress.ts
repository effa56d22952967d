/** A provisioning's stream of events as a list in the terminal: one line a step, changed in place where that is possible. */

interface Shown {
  status: string;
  at: number;
  began: number;
  note: string;
}

const MARKS: Record<string, string> = { running: '…', done: '✓', skipped: '–', failed: '✗', undone: '↺' };

/** @returns `ready`, `failed`, or `lost` when the stream ended before its end */
export async function showProgress(open: () => Promise<Response>): Promise<string> {
  const steps = new Map<string, Shown>();
  let drawn = 0;
  const draw = (step: string) => {
    const lines = [...steps].map(([name, one]) => lineOf(name, one));
    if (!process.stdout.isTTY) {
      const shown = steps.get(step);
      if (shown !== undefined && shown.status !== 'running') process.stdout.write(`${lineOf(step, shown)}\n`);
      return;
    }
    process.stdout.write(`${drawn > 0 ? `\x1b[${drawn}A` : ''}${lines.map((line) => `\x1b[K${line}\n`).join('')}`);
    drawn = lines.length;
  };
  const answer = await open();
  for await (const event of eventsOf(answer)) {
    if (event.type === 'run') {
      if (event.status === 'ready' || event.status === 'failed') return event.status;
      process.stdout.write(`${event.error ?? ''}\n`);
      drawn = 0;
      continue;
    }
    const at = Date.parse(event.at);
    const known = steps.get(event.step);
    steps.set(event.step, {
      status: event.status,
      at,
      began: event.status === 'running' || known === undefined ? at : known.began,
      note: event.error ?? (event.attempt > 1 ? `attempt ${event.attempt}` : ''),
    });
    draw(event.step);
  }
  return 'lost';
}

function lineOf(name: string, { status, at, began, note }: Shown): string {
  const took = status === 'running' ? '' : `${at - began} ms`;
  return `  ${MARKS[status] ?? ' '} ${name.replaceAll('_', ' ').padEnd(20)} ${took.padStart(8)}  ${note}`.trimEnd();
}

interface StreamEvent {
  type: string;
  step: string;
  status: string;
  attempt: number;
  error: string | null;
  at: string;
}

async function* eventsOf(answer: Response): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of answer.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const data = text
        .slice(0, end)
        .split('\n')
        .find((line) => line.startsWith('data: '));
      text = text.slice(end + 2);
      if (data !== undefined) yield JSON.parse(data.slice(6));
    }
  }
}
