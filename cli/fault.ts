/** For crash tests only: `<point>:<n>` kills the process when that point is passed for the n-th time, `<point>:<n>:freeze` stops it there. */
export function faultFrom(text: string | undefined): ((point: string) => void) | undefined {
  if (!text) return undefined;
  const [at, count = '1', how] = text.split(':');
  let left = Number(count);
  return (point) => {
    if (point === at && --left === 0) process.kill(process.pid, how === 'freeze' ? 'SIGSTOP' : 'SIGKILL');
  };
}
