/** For crash tests only: `<point>:<n>` kills the process with SIGKILL when that point is passed for the n-th time. */
export function faultFrom(text: string | undefined): ((point: string) => void) | undefined {
  if (!text) return undefined;
  const [at, count = '1'] = text.split(':');
  let left = Number(count);
  return (point) => {
    if (point === at && --left === 0) process.kill(process.pid, 'SIGKILL');
  };
}
