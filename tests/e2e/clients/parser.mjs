// What eventsource-parser makes of a stream: node parser.mjs URL KEY
// Prints one JSON object at the stream's end.
import { createParser } from "eventsource-parser";

const [url, key] = process.argv.slice(2);
const response = await fetch(url, { headers: { Authorization: `Bearer ${key}` } });
const found = { events: [], comments: [], errors: [], retries: [] };
const parser = createParser({
  onEvent: ({ id, event, data }) => found.events.push({ id, event, data }),
  onComment: (comment) => found.comments.push(comment),
  onError: (error) => found.errors.push(error.message),
  onRetry: (ms) => found.retries.push(ms),
});
for await (const text of response.body.pipeThrough(new TextDecoderStream())) parser.feed(text);
console.log(JSON.stringify(found));
