import type { AnswerEvent, Sluice, Summary } from "sluice-client";
import type { Memory } from "./storage";
import { Turn } from "./turn";

/** How many earlier turns of a conversation are opened with its last one. */
const TURNS_OPENED_MAX = 50;
/** What a stream's metadata may hold of the question. */
const QUESTION_CHARS_MAX = 500;

/** What is open: a chain of streams, each the parent of the next. The last one may still run. */
export class Conversation {
  turns: readonly Turn[] = [];
  /** After the turns have changed. */
  onturns = (): void => {};
  /** After each event of a turn that is shown. */
  onevent = (_turn: Turn, _event: AnswerEvent): void => {};
  /** How often another conversation was opened: what was asked before is then not wanted any more. */
  #opened = 0;

  constructor(
    private readonly sluice: Sluice,
    private readonly memory: Memory,
  ) {}

  get last(): Turn | undefined {
    return this.turns.at(-1);
  }

  /** Ask. While the last answer runs, this refines it: that one is cancelled, and its text is kept. */
  ask(question: string, model: string): void {
    const before = this.last;
    // What was still being opened would take the place of what is asked now.
    if (!before) this.#opened += 1;
    // Without an id it cannot be a parent, which would cancel it.
    if (before?.running && !before.id) abandon(before);
    this.#show([...this.turns, this.#start(question, model, this.#goesOnFrom())]);
  }

  /** Have the last question answered again. */
  regenerate(): void {
    const turn = this.last;
    if (turn?.question === undefined || !turn.repeatable) return;
    if (!turn.over) abandon(turn);
    const again = this.#start(turn.question, turn.model, turn.parent, turn.siblings);
    this.#show([...this.turns.slice(0, -1), again]);
  }

  /** Show another answer to the last question. */
  choose(sibling: Turn): void {
    this.#show([...this.turns.slice(0, -1), sibling]);
  }

  clear(): void {
    this.#opened += 1;
    // Nobody reads them here any more; the streams go on.
    for (const { siblings } of this.turns) for (const turn of siblings) turn.answer.leave();
    this.#show([]);
  }

  /** Open a stream and what it goes on from. Raises `SluiceError`. */
  async open(id: string): Promise<void> {
    this.clear();
    const opened = this.#opened;
    const summary = await this.sluice.stream(id);
    if (opened !== this.#opened) return;
    this.#show([this.#follow(summary)]);
    await this.#openEarlier(summary.parent, opened);
  }

  /** Go on with what this tab was receiving when it was reloaded; false: there is nothing. */
  restore(id: string | undefined): boolean {
    const running = this.memory.running;
    if (!running || (id && running.saved.stream && id !== running.saved.stream)) return false;
    const { question, model, parent, saved } = running;
    this.#show([this.#heard(new Turn(question, model, parent, this.sluice.restore(saved), false))]);
    void this.#openEarlier(parent, this.#opened).catch(() => {});
    return true;
  }

  /** Keep what is needed to go on after a reload. */
  keep(): void {
    const turn = this.last;
    const resumable = turn?.repeatable && !turn.over;
    this.memory.running = resumable
      ? {
          question: turn.question ?? "",
          model: turn.model,
          parent: turn.parent,
          saved: turn.answer.saved(),
        }
      : undefined;
  }

  /** The newest stream of the chain: one that never began has none, then it is the one before. */
  #goesOnFrom(): string | undefined {
    return this.turns.findLast((turn) => turn.id !== undefined)?.id;
  }

  #start(question: string, model: string, parent: string | undefined, siblings?: Turn[]): Turn {
    const answer = this.sluice.start({
      model,
      messages: [{ role: "user", content: question }],
      metadata: titled(question),
      ...(parent ? { parent } : {}),
    });
    return this.#heard(new Turn(question, model, parent, answer, true, siblings));
  }

  #follow(summary: Summary): Turn {
    const { id, model, parent, metadata } = summary;
    const answer = this.sluice.follow(id);
    const { question, question_cut } = metadata;
    const cut = question_cut !== undefined;
    return this.#heard(new Turn(question, model, parent ?? undefined, answer, false, [], cut));
  }

  /** The turns before, the newest first: so what the reader looks at is there first. */
  async #openEarlier(parent: string | null | undefined, opened: number): Promise<void> {
    let before = parent;
    for (let left = TURNS_OPENED_MAX; before && left; left -= 1) {
      const summary = await this.sluice.stream(before);
      if (opened !== this.#opened) return;
      const turn = this.#follow(summary);
      this.#show([turn, ...this.turns]);
      await turn.answer.done.catch(() => {});
      before = summary.parent;
    }
  }

  #heard(turn: Turn): Turn {
    turn.answer.on((event) => {
      if (this.turns.includes(turn)) this.onevent(turn, event);
    });
    return turn;
  }

  #show(turns: readonly Turn[]): void {
    this.turns = turns;
    this.keep();
    this.onturns();
  }
}

/** Nobody waits for it any more, nor for its cancel, which is tried for as long as the answer is followed. */
function abandon(turn: Turn): void {
  void turn.answer.cancel().catch(() => {});
}

/** The question as metadata, cut between words: half of what is redacted would not be known as such. */
export function titled(question: string): Record<string, string> {
  if (question.length <= QUESTION_CHARS_MAX) return { question };
  const cut = question.slice(0, QUESTION_CHARS_MAX);
  return { question: `${cut.slice(0, Math.max(cut.search(/\s\S*$/), 0))}…`, question_cut: "true" };
}
