import { type AnswerEvent, type Sluice, SluiceError, type State } from "sluice-client";
import { announcement } from "./announcement";
import { Announcer } from "./announcer";
import { Composer } from "./composer";
import type { Config } from "./config";
import { Conversation } from "./conversation";
import type { Remedy } from "./describe";
import { Drawers } from "./drawers";
import { part } from "./element";
import { examples } from "./examples";
import { History } from "./history";
import { icon } from "./icons";
import { Keyboard } from "./keyboard";
import { Notice } from "./notice";
import { Panel } from "./panel";
import { showQuota } from "./quota-view";
import { parseRoute, routeTo } from "./route";
import { StateLine } from "./state-line";
import type { Memory } from "./storage";
import { documentTitle } from "./title";
import { showTools } from "./tools";
import { Transcript } from "./transcript";
import type { Turn } from "./turn";
import type { TurnView } from "./turn-view";

/** How often at most a running answer is kept for a reload, in ms. */
const KEEP_MS = 500;
const NAME_CHARS_MAX = 80;

/** What lies around the conversation. */
export interface Surroundings {
  config: Config;
  memory: Memory;
  sluice: Sluice;
  /** Have the reader give another key; false: it is being asked for already. */
  signIn: (why: string) => Promise<boolean>;
  /** Where the key is the reader's. */
  signOut: (() => void) | undefined;
  /** End a stream's producer as a dying machine would; in a local run only. */
  kill: (stream: string) => Promise<void>;
}

/** The page at work: tells its parts what happens, and the conversation what the reader wants. */
export class App {
  readonly #around: Surroundings;
  readonly #conversation: Conversation;
  readonly #transcript: Transcript;
  readonly #composer: Composer;
  readonly #line = new StateLine(part("state"));
  readonly #panel: Panel;
  readonly #history: History;
  readonly #drawers: Drawers;
  readonly #keyboard: Keyboard;
  readonly #announcer = new Announcer(part("announcer"));
  readonly #notice = new Notice(part("notice"));
  readonly #states = new WeakMap<Turn, State["is"]>();
  #kept = 0;
  /** The stream that the address named last. */
  #named: string | undefined;
  /** Whether the heading that the first address named was found. */
  #arrived = false;

  constructor(around: Surroundings) {
    const { config, memory, sluice } = around;
    this.#around = around;
    this.#conversation = new Conversation(sluice, memory);
    this.#transcript = new Transcript(examples(config.models));
    this.#composer = new Composer(config.models, memory.get("model"));
    this.#panel = new Panel(part("panel"), config.local);
    this.#history = new History(part("history"), sluice);
    this.#drawers = new Drawers(memory);
    this.#keyboard = this.#shortcuts();
    showTools(part("tools"), memory, () => this.#keyboard.list(), around.signOut);
    this.#listen();
  }

  /** Go on with what a reload broke off, or show what the address names. */
  begin(): void {
    void this.#history.refresh();
    void this.#refreshUsage();
    this.#named = parseRoute(location.hash).stream;
    if (!this.#conversation.restore(this.#named)) this.#open(this.#named);
    this.#composer.focus();
  }

  /** Forget what is shown, so that nobody else gets to see it. What runs goes on. */
  clear(): void {
    this.#conversation.clear();
  }

  #listen(): void {
    const conversation = this.#conversation;
    conversation.onturns = () => this.#showTurns();
    conversation.onevent = (turn, event) => this.#heard(turn, event);
    const composer = this.#composer;
    composer.onask = (question) => this.#ask(question, composer.model);
    composer.onstop = () => this.#try(conversation.last?.answer.cancel());
    composer.onpause = () => this.#try(conversation.last?.answer.pause());
    composer.oncontinue = () => this.#continue();
    composer.onmodel = (model) => this.#around.memory.set("model", model);
    const transcript = this.#transcript;
    transcript.onexample = (question, model) => this.#ask(question, model);
    transcript.onrender = (view) => {
      this.#panel.contents(view.markdown);
      this.#arriveAtHeading(view);
    };
    transcript.oncopied = (copied) => {
      if (copied) this.#announcer.say("Copied");
      else this.#tellOf("Your browser does not let this page copy.");
    };
    transcript.onregenerate = () => conversation.regenerate();
    transcript.onchoose = (sibling) => conversation.choose(sibling);
    this.#line.onremedy = (remedy) => this.#remedy(remedy);
    this.#panel.onclose = () => this.#drawers.close();
    this.#panel.onkill = () => this.#kill();
    transcript.onheading = (view, id) => this.#toHeading(view, id);
    this.#panel.onheading = (id) => {
      if (transcript.last) this.#toHeading(transcript.last, id);
    };
    this.#history.onopen = (id) => this.#go(id);
    this.#history.onerased = (id) => this.#erased(id);
    this.#history.onproblem = (error) => this.#problem(error);
    part("new").prepend(icon("plus"));
    part("new").addEventListener("click", () => this.#new());
    addEventListener("popstate", () => this.#arrive());
    addEventListener("pagehide", () => conversation.keep());
  }

  #shortcuts(): Keyboard {
    return new Keyboard(
      [
        { key: "/", does: "Write a question", run: () => this.#composer.focus() },
        { key: "n", does: "New conversation", run: () => this.#new() },
        { key: "g", does: "Go on with a paused answer", run: () => this.#continue() },
        { key: "r", does: "Answer again", run: () => this.#conversation.regenerate() },
        { key: "c", does: "Copy the answer", run: () => void this.#transcript.last?.copy() },
        { key: "l", does: "Jump to latest", run: () => this.#transcript.toEnd() },
        { key: "h", does: "History", run: () => this.#drawers.toggleSidebar() },
        { key: "p", does: "What is happening", run: () => this.#drawers.togglePanel() },
      ],
      this.#around.memory,
      () => this.#escape(),
    );
  }

  #ask(question: string, model: string): void {
    this.#conversation.ask(question, model);
    this.#composer.focus();
  }

  /** First what lies over the page, then the answer: a pause can be taken back, so it comes first. */
  #escape(): void {
    const turn = this.#conversation.last;
    if (this.#drawers.close() || !turn) return;
    if (turn.answer.state.is === "paused") this.#try(turn.answer.cancel());
    else if (turn.running && turn.id) this.#try(turn.answer.pause());
  }

  #continue(): void {
    const answer = this.#conversation.last?.answer;
    if (answer?.state.is === "paused") this.#try(answer.resume());
  }

  #remedy(remedy: Remedy): void {
    const answer = this.#conversation.last?.answer;
    if (remedy === "retry") answer?.retry();
    if (remedy === "resume") this.#continue();
    if (remedy === "regenerate") this.#conversation.regenerate();
    if (remedy === "key") void this.#signIn("Your key is not valid any more.");
  }

  /** Have another key, and do by it what the one before did not allow. */
  async #signIn(why: string): Promise<void> {
    if (!(await this.#around.signIn(why))) return;
    this.#history.clear();
    void this.#history.refresh();
    void this.#refreshUsage();
    const answer = this.#conversation.last?.answer;
    if (answer?.state.is === "given-up") answer.retry();
    if (answer?.state.is === "paused") this.#try(answer.grant());
  }

  #kill(): void {
    const id = this.#conversation.last?.id;
    if (id) this.#try(this.#around.kill(id));
  }

  #new(): void {
    this.#drawers.close();
    this.#go(undefined);
    this.#composer.focus();
  }

  #go(stream: string | undefined): void {
    this.#drawers.close();
    this.#name(stream, true);
    this.#open(stream);
  }

  /** The reader went back or forth, or wrote another address. */
  #arrive(): void {
    const { stream } = parseRoute(location.hash);
    if (stream === this.#named) return;
    this.#named = stream;
    this.#open(stream);
  }

  #open(stream: string | undefined): void {
    if (stream) this.#try(this.#conversation.open(stream));
    else this.#conversation.clear();
  }

  #erased(id: string): void {
    if (this.#conversation.turns.some((turn) => turn.id === id)) this.#new();
  }

  /** Have the address name the stream, so that a reload or another tab finds it. */
  #name(stream: string | undefined, entry: boolean): void {
    if (stream === this.#named) return;
    this.#named = stream;
    history[entry ? "pushState" : "replaceState"](null, "", routeTo({ stream }));
    if (stream) void this.#history.refresh();
  }

  #toHeading(view: TurnView, id: string): void {
    this.#drawers.close();
    this.#transcript.toElement(id);
    const stream = view.turn.id;
    const heading = view.slugOf(id);
    if (stream === this.#named) history.replaceState(null, "", routeTo({ stream, heading }));
  }

  /** Go to the heading that the address names, once it is there. */
  #arriveAtHeading(view: TurnView): void {
    const { stream, heading } = parseRoute(location.hash);
    if (!heading || this.#arrived || stream !== view.turn.id) return;
    const id = view.idOf(heading);
    if (!view.markdown.headings.some((each) => each.id === id)) return;
    this.#arrived = true;
    this.#transcript.toElement(id);
  }

  #showTurns(): void {
    const { turns, last } = this.#conversation;
    this.#transcript.show(turns);
    this.#panel.contents(this.#transcript.last?.markdown);
    this.#tell(last);
  }

  #heard(turn: Turn, event: AnswerEvent): void {
    if (turn !== this.#conversation.last) return;
    const before = this.#states.get(turn);
    const said = announcement(event, before, turn.answer.text);
    if (said) this.#announcer.say(said);
    this.#states.set(turn, turn.answer.state.is);
    this.#keep(turn);
    if (event.type === "chunk") {
      this.#transcript.came(event.text);
      this.#panel.came();
      return;
    }
    this.#tell(turn);
    if (event.type !== "state") return;
    const { is } = event.state;
    if (is === "closed" || (is === "paused") !== (before === "paused"))
      void this.#history.refresh();
    if (is === "closed" || is === "limited") void this.#refreshUsage();
    if (is === "closed") this.#panel.ended();
  }

  #tell(turn: Turn | undefined): void {
    const first = this.#conversation.turns[0];
    const name = (first?.question ?? "Answer").slice(0, NAME_CHARS_MAX);
    this.#line.show(turn);
    this.#composer.show(turn);
    this.#panel.show(turn);
    this.#history.current = turn?.id;
    part("title").textContent = turn ? name : "New conversation";
    document.title = documentTitle(turn, name);
    if (turn?.id)
      this.#name(turn.id, this.#conversation.turns.length === 1 && turn.siblings.length === 1);
  }

  #keep(turn: Turn): void {
    const now = performance.now();
    if (now - this.#kept < KEEP_MS && !turn.over) return;
    this.#kept = now;
    this.#conversation.keep();
  }

  async #refreshUsage(): Promise<void> {
    try {
      showQuota(part<HTMLDetailsElement>("quota"), await this.#around.sluice.usage());
    } catch {
      // What is left is shown as it was; a question that meets a limit is told so.
    }
  }

  /** Do what may fail, and say so. */
  #try(doing: Promise<unknown> | undefined): void {
    doing?.catch((error: unknown) => this.#problem(error));
  }

  #problem(error: unknown): void {
    if (error instanceof SluiceError && error.status === 401) {
      void this.#signIn("This key is not valid, or not any more.");
      return;
    }
    this.#tellOf(error instanceof Error ? error.message : "That could not be done.");
  }

  #tellOf(text: string): void {
    this.#notice.show(text);
    this.#announcer.say(text);
  }
}
