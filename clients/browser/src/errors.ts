import type { Problem } from "./types.js";

/** A request that was refused, or an answer that was given up. `status` is 0 where nothing answered. */
export class SluiceError extends Error {
  readonly problem: Problem;
  readonly status: number;

  constructor(problem: Problem, options?: ErrorOptions) {
    super(problem.detail ?? problem.title ?? problem.type, options);
    this.name = "SluiceError";
    this.problem = problem;
    this.status = problem.status ?? 0;
  }
}
