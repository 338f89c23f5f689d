import type {
  Answer,
  FollowOptions,
  Options,
  Saved,
  StartRequest,
  StreamPage,
  Summary,
  Usage,
} from "./types.js";

/** One Sluice, as one credential sees it. */
export class Sluice {
  constructor(_options: Options) {}

  start(_request: StartRequest): Answer {
    throw new Error("to be built");
  }

  follow(_stream: string, _options: FollowOptions = {}): Answer {
    throw new Error("to be built");
  }

  restore(_saved: Saved): Answer {
    throw new Error("to be built");
  }

  async streams(_options: { limit?: number; page?: string } = {}): Promise<StreamPage> {
    throw new Error("to be built");
  }

  async stream(_id: string): Promise<Summary> {
    throw new Error("to be built");
  }

  async usage(): Promise<Usage> {
    throw new Error("to be built");
  }

  async erase(_id: string): Promise<void> {
    throw new Error("to be built");
  }

  async exported(_id: string): Promise<Blob> {
    throw new Error("to be built");
  }
}
