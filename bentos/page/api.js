// The service's API. Every call resolves to the answer or throws ApiError with the error's own name.

import { authorization } from "./token.js";

export class ApiError extends Error {
  constructor(name, message, status) {
    super(message);
    this.name = name;
    this.status = status;
  }
}

// The page lives at <root>/ui/, the API at <root>/; a service behind a path prefix keeps working.
const root = new URL("../", document.baseURI);

async function call(path, request) {
  let response;
  try {
    response = await fetch(new URL(path, root), {
      method: "POST",
      headers: { "Content-Type": "application/json", ...authorization() },
      body: JSON.stringify(request),
    });
  } catch {
    throw new ApiError("Unreachable", "The service does not answer. Is it running?", 0);
  }
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new ApiError("BadAnswer", `The service answered ${response.status} without JSON.`, response.status);
  }
  if (!response.ok) {
    const { name = "Error", message = `status ${response.status}` } = answer.error ?? {};
    throw new ApiError(name, message, response.status);
  }
  return answer;
}

export const users = (limit = 60) => call("users", { limit });
export const homefeed = (user_id, limit, exclude = []) => call("homefeed", { user_id, limit, exclude });
export const search = (query, user_id, limit) => call("search", { query, user_id, limit });
export const suggestions = (prefix, limit = 8) => call("suggestions", { prefix, limit });
export const related = (pin_id, user_id, limit = 30) => call("related", { pin_id, user_id, limit });
export const relatedAds = (pin_id, user_id, limit = 30) => call("related_ads", { pin_id, user_id, limit });
export const pins = (pin_ids) => call("pins", { pin_ids });

/** Keep one event. The id makes a retry harmless; the time is the service's, since clocks of visitors drift. */
export function act(event) {
  const event_id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  return call("events", { events: [{ event_id, ...event }] });
}
