// One pin as a card: picture, why it is here, and what can be done to it.

import { cover } from "./cover.js";
import { el, icon } from "./icons.js";
import { oddsLine } from "./odds.js";
import { REASONS } from "./reasons.js";

/** The chip that says why. */
export function chip(why) {
  const made = el("span", `why ${why.kind}`, icon(REASONS[why.kind]?.icon ?? "spark"), el("span", "text", why.text));
  made.title = why.text;
  return made;
}

export function actionButton(action, className, onAct) {
  const button = el("button", className, icon(action.icon), el("span", "label", action.label));
  button.type = "button";
  button.setAttribute("aria-label", action.label);
  button.title = action.label;
  button.dataset.action = action.name;
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    onAct(action, button);
  });
  return button;
}

/** Show on the button that its action was taken. */
export function markDone(button, action) {
  button.classList.add("done");
  button.querySelector(".icon").replaceWith(icon("check"));
  const label = button.querySelector(".label");
  if (label) label.textContent = action.done;
  button.setAttribute("aria-label", action.done);
}

/**
 * A card. `on.open(pin)` opens it, `on.act(pin, action, card, button)` acts on it; `marks` is the set of
 * actions already taken on it in this visit.
 */
export function card(pin, actions, on, marks = new Set()) {
  const made = el("article", "card");
  made.tabIndex = 0;
  made.dataset.pin = pin.pin_id;
  made.dataset.kind = pin.why.kind;
  made.setAttribute("aria-label", `${pin.title || `Pin ${pin.pin_id}`}. ${pin.why.text}`);

  const frame = cover(pin);
  const over = el("div", "over");
  const act = (action, button) => on.act(pin, action, made, button);
  const buttons = [
    [actions.primary, "pill primary"],
    [actions.secondary, "round secondary"],
    [actions.negative, "round negative"],
  ];
  for (const [action, className] of buttons) {
    if (!action) continue;
    const button = actionButton(action, className, act);
    if (marks.has(action.name)) markDone(button, action);
    over.append(button);
  }
  frame.append(over);

  const drawnCover = frame.classList.contains("drawn");
  const title = drawnCover ? null : el("h3", "", pin.title || `Pin ${pin.pin_id}`);
  const domain = pin.link_domain ? el("span", "domain", pin.link_domain) : null;
  const score = el("span", "score", `#${pin.position + 1} · ${pin.source} · ${pin.score.toFixed(3)}`);
  const odds = el("span", "score odds-line", oddsLine(pin));
  const sponsored = pin.sponsored ? el("span", "sponsored", "Sponsored") : null;
  made.append(frame, el("div", "text", sponsored, title, domain, chip(pin.why), score, odds));

  made.addEventListener("click", () => on.open(pin));
  made.addEventListener("keydown", (event) => {
    if (event.target === made && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      on.open(pin);
    }
  });
  return made;
}

/** Grey cards of several heights, while an answer is on its way. */
export function skeletons(count) {
  return Array.from({ length: count }, (_, i) => {
    const made = el("div", "card skeleton", el("div", "cover"), el("div", "line"), el("div", "line short"));
    made.firstChild.style.aspectRatio = [0.75, 1, 0.66, 0.85, 1.2, 0.7][(i * 5) % 6];
    return made;
  });
}
