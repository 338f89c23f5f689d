import DOMPurify, { type Config } from "dompurify";

// Everything that Markdown can make, and nothing else. No element here loads anything by itself.
const CONFIG = {
  ALLOWED_TAGS: [
    ...[
      "a",
      "blockquote",
      "br",
      "code",
      "div",
      "em",
      "h1",
      "h2",
      "h3",
      "h4",
      "h5",
      "h6",
      "hr",
      "li",
      "ol",
    ],
    ...["p", "pre", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ],
  ALLOWED_ATTR: [
    "class",
    "data-align",
    "data-language",
    "data-task",
    "dir",
    "href",
    "start",
    "title",
  ],
  // All values but these are held to be addresses.
  ADD_URI_SAFE_ATTR: ["data-align", "data-language", "data-task", "dir", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)./i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
} satisfies Config;

const VALUES: Record<string, RegExp> = {
  class: /^(?:hljs-[\w-]+(?: [a-z]+_+)*|language-[a-z]+)$/,
  "data-align": /^(?:left|center|right)$/,
  "data-language": /^[\w+#.-]{0,30}$/,
  "data-task": /^(?:open|done)$/,
  dir: /^(?:auto|ltr)$/,
  href: CONFIG.ALLOWED_URI_REGEXP,
  start: /^\d{1,9}$/,
};

const purify = DOMPurify(window);
purify.addHook("uponSanitizeAttribute", (_, attribute) => {
  const values = VALUES[attribute.attrName];
  if (values && !values.test(attribute.attrValue)) attribute.keepAttr = false;
});
purify.addHook("afterSanitizeAttributes", (element) => {
  if (!element.hasAttribute("href")) return;
  element.setAttribute("rel", "noopener noreferrer nofollow ugc");
  element.setAttribute("target", "_blank");
});

/** The one way in which anything a model wrote becomes a part of the page. */
export function sanitize(html: string): DocumentFragment {
  return purify.sanitize(html, CONFIG);
}
