import type { Usage } from "sluice-client";
import { element } from "./element";
import { byScarcity, type Limit, leftOf, shareLeft, whatOf } from "./quota";
import { whole } from "./wording";

/** What is left of each limit: the scarcest in short, all when opened. */
export function showQuota(host: HTMLDetailsElement, usage: Usage): void {
  const limits = byScarcity(usage.limits);
  const [scarcest] = limits;
  host.hidden = !scarcest;
  if (!scarcest) return;
  host.replaceChildren(
    element(
      "summary",
      {},
      element("span", { textContent: whatOf(scarcest.policy) }),
      element("span", { className: "quota-left", textContent: `${whole(scarcest.left)} left` }),
      bar(scarcest),
    ),
    element("dl", {}, ...limits.map(row)),
  );
}

function row(limit: Limit): HTMLElement {
  return element(
    "div",
    {},
    element("dt", { textContent: whatOf(limit.policy) }),
    element("dd", { textContent: leftOf(limit) }),
  );
}

function bar(limit: Limit): HTMLElement {
  const meter = element("meter", {
    max: 1,
    low: 0.25,
    high: 0.5,
    optimum: 1,
    value: shareLeft(limit),
    title: leftOf(limit),
    ariaLabel: `${whatOf(limit.policy)}: ${leftOf(limit)}`,
  });
  return meter;
}
