/** Tells of text that came into the page: `node` from `start` on. */
export type Added = (node: Text, start: number) => void;

/**
 * Makes `old` like `made`, and keeps what is the same of it: nodes, and with them selections, scroll positions and
 * focus. Where text went on, its node grows. Returns the node that is in the page now.
 */
export function morph(old: ChildNode, made: ChildNode, added: Added): ChildNode {
  if (old instanceof Text && made instanceof Text) {
    grow(old, made.data, added);
    return old;
  }
  if (!(old instanceof Element && made instanceof Element && old.tagName === made.tagName)) {
    old.parentNode?.replaceChild(made, old);
    return made;
  }
  // A code's head has a button that may have the focus, and says for a moment that it has copied.
  if (old.className === "code-head" && made.className === "code-head") return old;
  attributes(old, made);
  children(old, [...made.childNodes], 0, added);
  return old;
}

/** Makes the children of `parent` from the one at `from` on like these. */
export function children(parent: Node, made: ChildNode[], from: number, added: Added): void {
  let old: ChildNode | null = parent.childNodes[from] ?? null;
  for (const node of made) {
    if (old) {
      old = morph(old, node, added).nextSibling;
    } else {
      parent.appendChild(node);
      tell(node, added);
    }
  }
  while (old) {
    const next: ChildNode | null = old.nextSibling;
    old.remove();
    old = next;
  }
}

function grow(old: Text, data: string, added: Added): void {
  if (old.data === data) return;
  const start = old.length;
  if (data.startsWith(old.data)) {
    old.appendData(data.slice(start));
    added(old, start);
  } else {
    old.data = data;
  }
}

/** Tells of all text in a node that came into the page. */
export function tell(node: Node, added: Added): void {
  if (node instanceof Text) added(node, 0);
  for (const child of node.childNodes) tell(child, added);
}

function attributes(old: Element, made: Element): void {
  for (const { name } of [...old.attributes])
    if (!made.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of made.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}
