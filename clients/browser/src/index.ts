export { SluiceError } from "./errors.js";
export { Sluice } from "./sluice.js";
export type * from "./types.js";
