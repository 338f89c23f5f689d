// Runs at the edge for each request to the API, before anything is signed or sent to a function.
// What it adds is believed there because of a secret, which the distribution adds (shared/middleware/edge.py).

// biome-ignore lint/correctness/noUnusedVariables: CloudFront calls it by this name.
function handler(event) {
  const request = event.request;
  const headers = request.headers;
  headers["sluice-viewer"] = { value: event.viewer.ip };
  // A function URL that streams undoes gzip on its way, and CloudFront then answers some requests with 502
  // (https://github.com/opennextjs/opennextjs-aws/issues/1127).
  delete headers["accept-encoding"];
  // Where the edge signs, its signature takes the place of `Authorization`.
  if (headers.authorization)
    headers["sluice-authorization"] = { value: headers.authorization.value };
  else delete headers["sluice-authorization"];
  return request;
}
