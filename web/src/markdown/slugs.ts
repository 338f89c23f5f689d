/** Names for headings as they are met, each different, the same for the same headings in the same order. */
export class Slugs {
  readonly #used = new Set<string>();

  take(text: string): string {
    const words =
      text
        .normalize()
        .toLowerCase()
        .match(/[\p{L}\p{M}\p{N}]+/gu) ?? [];
    const slug = words.join("-").slice(0, 80).replace(/-$/, "") || "section";
    let name = slug;
    for (let n = 1; this.#used.has(name); n++) name = `${slug}-${n}`;
    this.#used.add(name);
    return name;
  }
}
