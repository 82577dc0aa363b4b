// The page: a feed for a user or results of a search, actions that change them, a pin up close, and how the feed was made.

import * as api from "./api.js";
import { card, markDone, skeletons } from "./card.js";
import { Closeup } from "./closeup.js";
import { renderDrawer } from "./drawer.js";
import { el, icon } from "./icons.js";
import { Masonry } from "./masonry.js";
import { Picker } from "./picker.js";
import { actionsOf, REASONS } from "./reasons.js";
import { SearchBar } from "./search.js";
import { toast } from "./toast.js";
import { tokenForm } from "./token.js";

const PAGE = 50;
const RESULTS = 100; // of one search; there is no second page
const MOST = 600; // pins on one page, so that the list of exclusions stays within the API's bounds

const at = (id) => document.getElementById(id);
const feed = at("feed");

const state = {
  user: null,
  query: null, // what is searched for, as typed; null on the home feed
  actions: null,
  answer: null, // the newest answer, for the drawer
  pins: new Map(), // pin id -> pin of the feed, with the request it came in
  marks: new Map(), // pin id -> actions taken in this visit
  reason: null,
  turn: 0, // answers of an older turn are dropped
  busy: false,
  ended: false,
};

const masonry = new Masonry(feed);
const picker = new Picker(at("picker"), (userId) => go({ user: userId }));
const searchBar = new SearchBar(at("search"), (text) => go({ q: text || null, pin: null }));
const closeup = new Closeup(at("closeup"), {
  open: (pin) => go({ pin: pin.pin_id }, pin),
  close: () => go({ pin: null }),
  act,
  marks: marksOf,
});

// Where we are: #user=12&q=cake&pin=345, so that Back, a reload and a shared link all work.

function where() {
  const given = new URLSearchParams(location.hash.slice(1));
  return { user: given.get("user"), q: given.get("q") || null, pin: given.get("pin") };
}

function go(change, pin = null) {
  const next = { ...where(), ...change };
  if ("user" in change) Object.assign(next, { q: null, pin: null }, change);
  if (pin) state.opening = pin;
  const hash = new URLSearchParams(Object.entries(next).filter(([, value]) => value !== null && value !== undefined));
  location.hash = hash.toString();
}

async function arrive() {
  const { user, q, pin } = where();
  const another = user !== null && String(user) !== String(state.user);
  if (another) {
    state.user = user;
    localStorage.setItem("corkboard.user", user);
    picker.show(user);
    state.marks.clear();
  }
  if (another || q !== state.query) {
    state.query = q;
    searchBar.show(q ?? "");
    feed.setAttribute("aria-label", q === null ? "Home feed" : "Results of the search");
    await fresh();
  }
  if (pin === null) {
    if (closeup.open) closeup.hide();
    return;
  }
  const known = state.opening && String(state.opening.pin_id) === pin ? state.opening : state.pins.get(pin);
  state.opening = null;
  try {
    const found = known ?? (await api.pins([pin])).pins[0];
    if (!found) throw new api.ApiError("PinNotFound", `pin ${pin} is not in the catalogue`, 404);
    if (state.actions.closeup) {
      act(found, state.actions.closeup, null, null, found.surface, found.request_id);
    }
    await closeup.show(found, state.actions, state.user);
  } catch (error) {
    toast(`${error.name}: ${error.message}`, { bad: true, iconName: "flag" });
    go({ pin: null });
  }
}

// The feed.

async function ask(exclude) {
  const turn = state.turn;
  const query = state.query;
  const answer = query === null ? await api.homefeed(state.user, PAGE, exclude) : await api.search(query, state.user, RESULTS);
  if (turn !== state.turn) return null;
  state.answer = answer;
  const of = { request_id: answer.request_id, utility: answer.utility };
  if (query !== null) Object.assign(of, { surface: "search", query });
  for (const pin of answer.pins) state.pins.set(String(pin.pin_id), Object.assign(pin, of));
  renderAround();
  return answer.pins;
}

/** A new feed from the top. */
async function fresh() {
  state.turn++;
  state.pins.clear();
  state.ended = false;
  state.reason = null;
  masonry.show(skeletons(24));
  feed.setAttribute("aria-busy", "true");
  at("end").textContent = "";
  window.scrollTo({ top: 0 });
  try {
    const pins = await ask([]);
    if (pins) masonry.show(pins.map(asCard));
    if (pins && !pins.length) at("end").textContent = "There is nothing to show yet.";
  } catch (error) {
    masonry.show([]);
    feed.replaceChildren(problem(error));
  }
  feed.setAttribute("aria-busy", "false");
}

/** More pins below. */
async function more() {
  if (state.busy || state.ended || state.query !== null || state.user === null || !state.pins.size) return;
  state.busy = true;
  try {
    const pins = await ask(shownIds());
    if (pins) masonry.add(pins.map(asCard));
    state.ended = (pins && pins.length === 0) || state.pins.size >= MOST;
    at("end").textContent = state.ended ? "That is all for now. Refresh for a new feed." : "";
  } catch (error) {
    toast(`${error.name}: ${error.message}`, { bad: true, iconName: "flag" });
    state.ended = true;
  }
  state.busy = false;
}

/** What has not been seen yet makes room for what the last action brought. */
async function renewTail() {
  if (state.query !== null) return; // results stay where they are
  const tail = masonry.unseen();
  const gone = new Set(tail.map((made) => made.dataset.pin));
  const kept = shownIds().filter((id) => !gone.has(String(id)));
  const turn = state.turn;
  const pins = await ask(kept);
  if (!pins || turn !== state.turn) return;
  masonry.remove(tail);
  for (const id of gone) if (!pins.some((pin) => String(pin.pin_id) === id)) state.pins.delete(id);
  const cards = pins.map(asCard);
  for (const made of cards) made.classList.add("fresh");
  masonry.add(cards);
  renderAround();
  at("refresh").classList.add("changed");
  setTimeout(() => at("refresh").classList.remove("changed"), 2400);
}

const shownIds = () => [...state.pins.values()].map((pin) => pin.pin_id);

function asCard(pin) {
  const on = { open: (opened) => go({ pin: opened.pin_id }, opened), act };
  const made = card(pin, state.actions, on, marksOf(pin.pin_id));
  made.hidden = state.reason !== null && pin.why.kind !== state.reason;
  return made;
}

function marksOf(pinId) {
  const key = String(pinId);
  if (!state.marks.has(key)) state.marks.set(key, new Set());
  return state.marks.get(key);
}

// Actions.

async function act(pin, action, made, button, surface = pin.surface ?? "homefeed", requestId = pin.request_id) {
  const marks = marksOf(pin.pin_id);
  if (marks.has(action.name)) return;
  marks.add(action.name);
  if (button) markDone(button, action);
  const hides = action.polarity === "negative";
  const onFeed = masonry.cards.find((c) => c.dataset.pin === String(pin.pin_id));
  if (hides) for (const gone of new Set([made, onFeed])) gone?.classList.add("leaving");
  try {
    const event = { user_id: state.user, pin_id: pin.pin_id, action: action.name, surface };
    if (requestId) event.request_id = requestId;
    if (surface === "search") event.query = pin.query;
    const answer = await api.act(event);
    const quiet = action.name === "closeup";
    if (!quiet) {
      const soon = answer.applied ? "your feed has changed" : "your feed changes shortly";
      toast(`${action.done} · ${soon}`, { iconName: action.icon });
    }
    if (hides) setTimeout(() => drop(pin, made, onFeed), 280);
    await renewTail();
  } catch (error) {
    marks.delete(action.name);
    for (const back of new Set([made, onFeed])) back?.classList.remove("leaving");
    toast(`${error.name}: ${error.message}`, { bad: true, iconName: "flag" });
  }
}

function drop(pin, made, onFeed) {
  if (onFeed) masonry.remove([onFeed]);
  made?.remove();
  state.pins.delete(String(pin.pin_id));
  renderAround();
}

// Around the feed.

function renderAround() {
  renderReasons();
  const { missing = [], fallback = null, policy_refused: refused = null, query = null } = state.answer ?? {};
  const notice = at("notice");
  const words = [];
  if (fallback && query) words.push(`Nothing is found for “${state.query}”: this is what is popular.`);
  else if (fallback) words.push(`Nothing is known of user ${state.user} yet: this is what is popular. Act on a few pins and look again.`);
  if (query?.corrected.length) words.push(`Read ${query.corrected.map(({ typed, read, sure }) => `“${typed}” as “${read}”${sure ? "" : ", perhaps"}`).join(", ")}.`);
  if (query?.unknown.length && !fallback) words.push(`No pin says ${query.unknown.map((word) => `“${word}”`).join(", ")}.`);
  if (missing.length) words.push(`Answered without ${missing.join(", ")}.`);
  if (refused) words.push(`The utility weights are not those of the file: ${refused}`);
  notice.hidden = words.length === 0;
  notice.replaceChildren(icon(fallback ? "spark" : "flag"), el("span", "", words.join(" ")));
  if (!at("drawer").hidden) renderDrawer(at("drawer"), state.answer, () => inspect(false));
}

function renderReasons() {
  const counts = {};
  for (const pin of state.pins.values()) counts[pin.why.kind] = (counts[pin.why.kind] ?? 0) + 1;
  const button = (reason, label, count, iconName) => {
    const made = el("button", `reason ${reason ?? "all"}`, iconName ? icon(iconName) : null, label, el("small", "", String(count)));
    made.type = "button";
    made.setAttribute("aria-pressed", String(state.reason === reason));
    made.addEventListener("click", () => {
      state.reason = state.reason === reason ? null : reason;
      for (const shown of masonry.cards) shown.hidden = state.reason !== null && shown.dataset.kind !== state.reason;
      masonry.relay();
      renderReasons();
    });
    return made;
  };
  const kinds = Object.keys(REASONS).filter((kind) => counts[kind]);
  at("reasons").replaceChildren(
    button(null, "All", state.pins.size),
    ...kinds.map((kind) => button(kind, REASONS[kind].label, counts[kind], REASONS[kind].icon)),
  );
}

function problem(error) {
  const mend = [401, 403].includes(error.status) ? tokenForm(start) : tryAgain();
  return el("div", "problem", icon("flag"), el("h2", "", error.name), el("p", "", error.message), mend);
}

function tryAgain() {
  const again = el("button", "pill primary", icon("refresh"), el("span", "label", "Try again"));
  again.type = "button";
  again.addEventListener("click", () => start());
  return again;
}

function inspect(open) {
  at("drawer").hidden = !open;
  document.body.classList.toggle("inspecting", open);
  at("inspect").setAttribute("aria-pressed", String(open));
  if (open && state.answer) renderDrawer(at("drawer"), state.answer, () => inspect(false));
}

function flipTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("corkboard.theme", document.documentElement.dataset.theme);
}

async function start() {
  masonry.show(skeletons(24));
  try {
    const { users, actions } = await api.users();
    state.actions = actionsOf(actions);
    picker.setUsers(users);
    const known = where().user ?? localStorage.getItem("corkboard.user");
    const first = users.some((user) => String(user.user_id) === known) || where().user ? known : users[0]?.user_id;
    state.user = null;
    if (where().user === null) history.replaceState(null, "", `#user=${encodeURIComponent(first ?? 1)}`);
    await arrive();
  } catch (error) {
    feed.replaceChildren(problem(error));
  }
}

at("refresh").append(icon("refresh"), el("span", "label", "Refresh"));
at("inspect").append(icon("sliders"));
at("theme").append(icon("moon", "for-light"), icon("sun", "for-dark"));
at("refresh").addEventListener("click", fresh);
at("inspect").addEventListener("click", () => inspect(at("drawer").hidden));
at("theme").addEventListener("click", flipTheme);
document.querySelector(".brand").addEventListener("click", (event) => {
  event.preventDefault();
  go({ q: null, pin: null });
  window.scrollTo({ top: 0, behavior: "smooth" });
});
window.addEventListener("hashchange", arrive);
new IntersectionObserver((entries) => entries[0].isIntersecting && more(), { rootMargin: "900px" }).observe(at("end"));
start();
