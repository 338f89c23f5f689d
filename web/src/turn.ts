import type { Answer, AnswerEvent } from "sluice-client";
import { Figures } from "./figures";

/** A question and its answer. Its siblings are the other answers to the same question. */
export class Turn {
  readonly figures = new Figures(performance.now());
  readonly siblings: Turn[];

  constructor(
    readonly question: string | undefined,
    readonly model: string,
    /** The stream that this one goes on from. */
    readonly parent: string | undefined,
    readonly answer: Answer,
    /** Whether this page has seen it begin; else its first text says nothing of the producer. */
    readonly asked: boolean,
    siblings: Turn[] = [],
    /** Whether only the beginning of the question is known. */
    readonly cut = false,
  ) {
    this.siblings = siblings;
    siblings.push(this);
    answer.on((event: AnswerEvent) => this.figures.note(event, performance.now()));
  }

  /** Whether its question can be asked again: it is known, and not only its beginning. */
  get repeatable(): boolean {
    return this.question !== undefined && !this.cut;
  }

  get id(): string | undefined {
    return this.answer.id;
  }

  /** Whether more may come by itself. */
  get running(): boolean {
    const { is } = this.answer.state;
    return is !== "closed" && is !== "given-up" && is !== "paused";
  }

  get over(): boolean {
    return this.answer.state.is === "closed";
  }
}
