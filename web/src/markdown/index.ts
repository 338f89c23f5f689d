export { type Heading, MarkdownView } from "./view";
