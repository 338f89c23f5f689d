// What fetch makes of a stream, as it comes: node events.mjs URL KEY
// Prints the response's encoding, and then each piece of text as soon as it can be read.
const [url, key] = process.argv.slice(2);
const response = await fetch(url, { headers: { Authorization: `Bearer ${key}` } });
process.stdout.write(`${response.headers.get("content-encoding")}\n`);
for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
  process.stdout.write(text);
}
