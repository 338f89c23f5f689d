type Child = Node | string | null | undefined | false;

/** What is set on an element: its own properties, and attributes that are none. */
type Properties<T> = Partial<Omit<T, "attributes">> & { attributes?: Record<string, string> };

/** An element with these properties, attributes and children. Text is only ever text. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const { attributes = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(
    ...children.filter(
      (child): child is Node | string => child !== null && child !== undefined && child !== false,
    ),
  );
  return made;
}

/** Only where it differs: what is selected or being read stays, and nothing is laid out in vain. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Have the host hold these nodes, in this order. Only what differs is moved: what the reader looks at stays. */
export function arrange(host: Element, nodes: readonly Element[]): void {
  const kept = new Set(nodes);
  for (const node of [...host.children]) if (!kept.has(node)) node.remove();
  for (const [index, node] of nodes.entries()) {
    const there = host.children[index];
    if (there !== node) host.insertBefore(node, there ?? null);
  }
}

/** The element of the page's own markup that has this id. */
export function part<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found as T;
}
