// A pin up close, with related pins below it. Pins open one from another; Escape and Back go home.

import * as api from "./api.js";
import { actionButton, card, chip, markDone, skeletons } from "./card.js";
import { cover } from "./cover.js";
import { el, icon } from "./icons.js";
import { Masonry } from "./masonry.js";
import { odds } from "./odds.js";

/** Related pins with each ad at its place; what is done to an ad is logged as of its own request. */
function withAds(pins, ads) {
  const sold = new Set(ads.pins.map((ad) => ad.pin_id));
  const page = pins.filter((pin) => !sold.has(pin.pin_id));
  for (const ad of ads.pins) {
    page.splice(ad.position, 0, { ...ad, surface: "related_ads", request_id: ads.request_id });
  }
  return page;
}

export class Closeup {
  /** `on.act(pin, action, card, button, surface, requestId)`, `on.open(pin)`, `on.close()`, `marks(pinId)`. */
  constructor(holder, on) {
    this.holder = holder;
    this.on = on;
    this.turn = 0;
    holder.addEventListener("click", (event) => {
      if (event.target === holder) on.close();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !holder.hidden) on.close();
    });
  }

  get open() {
    return !this.holder.hidden;
  }

  async show(pin, actions, userId) {
    const turn = ++this.turn;
    if (!this.open) this.returnTo = document.activeElement;
    const close = el("button", "round back", icon("back"));
    close.type = "button";
    close.setAttribute("aria-label", "Back to the feed");
    close.addEventListener("click", () => this.on.close());

    const row = el("div", "acts");
    const order = (action) => (action === actions.primary ? 0 : action.polarity === "negative" ? 2 : 1);
    const shown = actions.all.filter((a) => a.name !== "closeup").sort((a, b) => order(a) - order(b));
    for (const action of shown) {
      const kind = action === actions.primary ? "pill primary" : action.polarity === "negative" ? "pill quiet negative" : "pill quiet";
      const button = actionButton(action, kind, () => this.on.act(pin, action, null, button, pin.surface ?? "related"));
      if (this.on.marks(pin.pin_id).has(action.name)) markDone(button, action);
      row.append(button);
    }
    const topics = el("div", "topics", ...pin.topics.map((topic) => el("span", "topic", topic.name)));
    const about = el(
      "div",
      "about",
      row,
      el("h2", "", pin.title || `Pin ${pin.pin_id}`),
      pin.why ? chip(pin.why) : null,
      odds(pin, pin.utility),
      pin.description ? el("p", "", pin.description) : null,
      topics,
      el("p", "fine", [pin.link_domain, `pin ${pin.pin_id}`].filter(Boolean).join(" · ")),
    );
    const grid = el("div", "masonry");
    grid.setAttribute("aria-busy", "true");
    const sheet = el("div", "sheet", close, el("div", "hero", cover(pin), about), el("h3", "more", "More like this"), grid);
    this.holder.replaceChildren(sheet);
    this.holder.hidden = false;
    this.holder.scrollTop = 0;
    document.body.classList.add("still");
    close.focus({ preventScroll: true, focusVisible: false });

    const masonry = new Masonry(grid, { least: 190, most: 5 });
    masonry.show(skeletons(10));
    try {
      // Ads are a part of the page that may fail: related pins stand without them.
      const [answer, ads] = await Promise.all([
        api.related(pin.pin_id, userId, 30),
        api.relatedAds(pin.pin_id, userId, 30).catch(() => ({ pins: [] })),
      ]);
      if (turn !== this.turn) return;
      const page = withAds(answer.pins, ads);
      const on = {
        open: this.on.open,
        act: (other, action, made, button) =>
          this.on.act(other, action, made, button, other.surface ?? "related", other.request_id ?? answer.request_id),
      };
      masonry.show(page.map((other) => card(other, actions, on, this.on.marks(other.pin_id))));
      if (!page.length) grid.replaceChildren(el("p", "end", "Nothing else is like it."));
    } catch (error) {
      if (turn === this.turn) grid.replaceChildren(el("p", "end", `${error.name}: ${error.message}`));
    }
    grid.setAttribute("aria-busy", "false");
  }

  hide() {
    this.turn++;
    this.holder.hidden = true;
    this.holder.replaceChildren();
    document.body.classList.remove("still");
    this.returnTo?.focus?.({ preventScroll: true });
  }
}
