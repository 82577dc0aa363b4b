// The search bar: a combobox whose list is what others search for.

import * as api from "./api.js";
import { el, icon } from "./icons.js";

const LONGEST = 2000; // characters, as the service takes them
const PAUSE_MS = 120; // of typing, before suggestions are asked for

export class SearchBar {
  /** `onSearch(text)` is called with what was typed or picked; "" ends the search. */
  constructor(holder, onSearch) {
    this.onSearch = onSearch;
    this.turn = 0; // suggestions of an older turn are dropped
    this.input = Object.assign(el("input"), { type: "search", placeholder: "Search", autocomplete: "off", maxLength: LONGEST });
    const said = { role: "combobox", "aria-label": "Search pins", "aria-autocomplete": "list", "aria-controls": "suggestions", "aria-expanded": "false" };
    for (const [name, value] of Object.entries(said)) this.input.setAttribute(name, value);
    this.list = Object.assign(el("ul"), { id: "suggestions", hidden: true });
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "What others search for");
    const form = el("form", "find", icon("search"), this.input);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search(this.#active?.textContent ?? this.input.value);
    });
    holder.append(form, this.list);

    this.input.addEventListener("input", () => {
      this.#deselect(); // Enter searches for what is typed, not for what was chosen before it
      this.#typed();
    });
    this.input.addEventListener("focus", () => this.#typed());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("search", () => this.input.value || this.#search(""));
    document.addEventListener("click", (event) => {
      if (!holder.contains(event.target)) this.#close();
    });
    holder.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !holder.contains(event.relatedTarget)) this.#close();
    });
  }

  /** Show `text` as what is searched for, without searching. */
  show(text) {
    if (this.input.value !== text) this.input.value = text;
    this.#close();
  }

  get #active() {
    return this.list.querySelector('[aria-selected="true"]');
  }

  #deselect() {
    this.#active?.setAttribute("aria-selected", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  #search(text) {
    this.input.value = text;
    this.#close();
    this.onSearch(text.trim());
  }

  #typed() {
    const turn = ++this.turn;
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      // Suggestions may fail: what is typed can be searched for without them.
      const { queries } = await api.suggestions(this.input.value).catch(() => ({ queries: [] }));
      if (turn === this.turn && document.activeElement === this.input) this.#offer(queries);
    }, PAUSE_MS);
  }

  #offer(queries) {
    this.list.replaceChildren(...queries.map((query, nth) => this.#row(query, nth)));
    this.list.hidden = queries.length === 0;
    this.input.setAttribute("aria-expanded", String(queries.length > 0));
    this.input.removeAttribute("aria-activedescendant");
  }

  #row(query, nth) {
    const row = Object.assign(el("li", "", query), { id: `suggestion-${nth}` });
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    row.addEventListener("mousedown", (event) => event.preventDefault()); // the input keeps the focus
    row.addEventListener("click", () => this.#search(query));
    return row;
  }

  #key(event) {
    if (event.key === "Escape" && !this.list.hidden) {
      event.preventDefault();
      event.stopPropagation();
      this.#close();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !this.list.hidden) {
      event.preventDefault();
      const rows = [...this.list.children];
      const at = rows.indexOf(this.#active);
      const next = event.key === "ArrowDown" ? at + 1 : (at < 0 ? rows.length : at) - 1; // past either end: what was typed
      this.#deselect();
      rows[next]?.setAttribute("aria-selected", "true");
      rows[next]?.scrollIntoView({ block: "nearest" });
      if (rows[next]) this.input.setAttribute("aria-activedescendant", rows[next].id);
    }
  }

  #close() {
    this.turn++;
    clearTimeout(this.timer);
    this.#offer([]);
  }
}
