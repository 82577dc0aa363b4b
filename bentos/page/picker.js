// Who is looking: a button that opens a searchable list of users.

import { hash } from "./cover.js";
import { el, icon } from "./icons.js";

export function avatar(userId) {
  const hue = hash(`user ${userId}`) % 360;
  const made = el("span", "avatar", String(userId).replace(/^\D*/, "").slice(-2) || String(userId).slice(0, 2));
  made.style.setProperty("--hue", hue);
  made.setAttribute("aria-hidden", "true");
  return made;
}

export class Picker {
  constructor(holder, onPick) {
    this.onPick = onPick;
    this.users = [];
    this.current = null;
    this.button = el("button", "who");
    this.button.type = "button";
    this.button.setAttribute("aria-haspopup", "listbox");
    this.button.setAttribute("aria-expanded", "false");
    this.input = Object.assign(el("input"), { type: "text", placeholder: "Find a user, or type any id", autocomplete: "off" });
    this.input.setAttribute("aria-label", "Find a user");
    this.list = el("ul", "");
    this.list.setAttribute("role", "listbox");
    this.menu = el("div", "menu", el("label", "find", icon("search"), this.input), this.list);
    this.menu.hidden = true;
    holder.append(this.button, this.menu);

    this.button.addEventListener("click", () => this.toggle(this.menu.hidden));
    this.input.addEventListener("input", () => this.#list());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("click", (event) => {
      if (!holder.contains(event.target)) this.toggle(false);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.menu.hidden) {
        this.toggle(false);
        this.button.focus();
      }
    });
  }

  setUsers(users) {
    this.users = users;
    this.#list();
    if (this.current !== null) this.show(this.current);
  }

  /** Show `userId` as the one who looks, without picking. */
  show(userId) {
    this.current = userId;
    const user = this.users.find((u) => String(u.user_id) === String(userId));
    const detail = user ? describe(user) : "not among the active users";
    this.button.replaceChildren(
      avatar(userId),
      el("span", "name", el("b", "", `User ${userId}`), el("small", "", detail)),
      icon("chevron"),
    );
    this.button.setAttribute("aria-label", `User ${userId}, ${detail}. Choose another user`);
  }

  toggle(open) {
    this.menu.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (open) {
      this.input.value = "";
      this.#list();
      this.input.focus();
    }
  }

  #pick(userId) {
    this.toggle(false);
    this.onPick(userId);
  }

  #key(event) {
    const items = [...this.list.children];
    const at = items.indexOf(this.list.querySelector(".at"));
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const next = items[(at + (event.key === "ArrowDown" ? 1 : items.length - 1)) % items.length];
      items[at]?.classList.remove("at");
      next?.classList.add("at");
      next?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") {
      event.preventDefault();
      (items[at] ?? items[0])?.click();
    }
  }

  #list() {
    const typed = this.input.value.trim().toLowerCase();
    const fits = (user) =>
      !typed || String(user.user_id).toLowerCase().includes(typed) || user.topics.some((t) => t.name.toLowerCase().includes(typed));
    const rows = this.users.filter(fits).map((user) => this.#row(user.user_id, describe(user)));
    const exact = this.users.some((user) => String(user.user_id).toLowerCase() === typed);
    if (typed && !exact) rows.push(this.#row(this.input.value.trim(), "ask as this user, known or not"));
    this.list.replaceChildren(...rows);
  }

  #row(userId, detail) {
    const row = el("li", "", avatar(userId), el("span", "name", el("b", "", `User ${userId}`), el("small", "", detail)));
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(String(userId) === String(this.current)));
    row.addEventListener("click", () => this.#pick(userId));
    return row;
  }
}

function describe(user) {
  const topics = user.topics.map((topic) => topic.name).join(", ");
  const actions = `${user.actions} action${user.actions === 1 ? "" : "s"} last day`;
  return topics ? `${topics} · ${actions}` : actions;
}
