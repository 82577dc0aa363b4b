// The bearer token of a service behind tokens: asked for once, kept while the tab is open, never part of an address.

import { el } from "./icons.js";

const KEY = "corkboard.token";

/** The headers that say who asks; none without a token. */
export function authorization() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** A form that asks for a token, and calls `then()` once there is one. */
export function tokenForm(then) {
  const input = Object.assign(el("input"), { type: "password", required: true, autocomplete: "off" });
  Object.assign(input, { pattern: "\\s*[\\x21-\\x7e]+\\s*", title: "A token has no spaces and no accents." });
  input.setAttribute("aria-label", "Token");
  const form = el("form", "token", input, el("button", "pill primary", el("span", "label", "Go on")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value.trim());
    then();
  });
  return form;
}
