let listening = false;

/**
 * LMDB tells of a commit that failed (a full disk) more than once: by the promise of who wrote, which the log answers
 * for, and by promises of its own that nobody can wait for. Those must not end the process: the next commit may succeed.
 */
export function outliveFailedCommits(): void {
  if (listening) return;
  listening = true;
  process.on('unhandledRejection', (error) => {
    if (!isOfCommit(error)) throw error;
  });
}

/** LMDB's own errors have its numbers as codes; Node's are texts. */
const isOfCommit = (error: unknown): boolean =>
  error instanceof Error && ('commitError' in error || ('code' in error && typeof error.code === 'number'));
