import type { Usage } from "sluice-client";
import { duration, whole } from "./wording";

export type Limit = Usage["limits"][number];

const WHAT: readonly [RegExp, string][] = [
  [/streams-at-once$/, "answers at once"],
  [/starts-per-minute$/, "questions a minute"],
  [/tokens-per-minute$/, "tokens a minute"],
  [/tokens-per-day$/, "tokens today"],
  [/tokens-per-month$/, "tokens this month"],
  [/polls-per-minute$/, "requests a minute"],
];
const WHOSE: readonly [RegExp, string][] = [
  [/^user-/, "yours"],
  [/^address-/, "from your address"],
];

const WHOSE_LIMIT: readonly [RegExp, string][] = [
  [/^user-/, "Your limit"],
  [/^address-/, "The limit for your address"],
];

/** What a policy limits: "Tokens today", "Questions a minute, yours". */
export function whatOf(policy: string): string {
  const what = WHAT.find(([pattern]) => pattern.test(policy))?.[1];
  const whose = WHOSE.find(([pattern]) => pattern.test(policy))?.[1];
  const said = [what ?? policy.replaceAll("-", " "), whose].filter(Boolean).join(", ");
  return said.charAt(0).toUpperCase() + said.slice(1);
}

/** That a policy's limit is used up: "Your limit of 2 questions a minute is reached." */
export function reached(policy: string, limit: number): string {
  const whose = WHOSE_LIMIT.find(([pattern]) => pattern.test(policy))?.[1] ?? "The limit";
  const what = WHAT.find(([pattern]) => pattern.test(policy))?.[1] ?? policy.replaceAll("-", " ");
  return `${whose} of ${whole(limit)} ${what} is reached.`;
}

/** How much is left: "98,885 of 100,000 left", and when it is full again where that is known. */
export function leftOf(limit: Limit): string {
  const full =
    limit.reset_s && limit.left < limit.limit
      ? `, full again in ${duration(limit.reset_s * 1000)}`
      : "";
  return `${whole(limit.left)} of ${whole(limit.limit)} left${full}`;
}

/** The scarcest first; of equals those that last longest, for they are missed longest. */
export function byScarcity(limits: readonly Limit[]): Limit[] {
  return limits.toSorted(
    (a, b) => shareLeft(a) - shareLeft(b) || (b.window_s ?? 0) - (a.window_s ?? 0),
  );
}

/** Between 0, nothing is left, and 1. */
export function shareLeft(limit: Limit): number {
  return limit.limit ? Math.min(1, limit.left / limit.limit) : 0;
}
