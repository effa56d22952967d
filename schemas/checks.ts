/** One finding of `tidemark doctor`. */
export interface Check {
  name: string;
  ok: boolean;
  /** what was found, and where it is not ok what to do */
  detail: string;
}
