// Short messages that come and go.

import { el, icon } from "./icons.js";

const STAY_MS = 3600;

export function toast(text, { iconName = "check", bad = false } = {}) {
  const holder = document.getElementById("toasts");
  const made = el("div", bad ? "toast bad" : "toast", icon(iconName), el("span", "", text));
  holder.append(made);
  while (holder.children.length > 3) holder.firstChild.remove();
  setTimeout(() => {
    made.classList.add("leaving");
    setTimeout(() => made.remove(), 260);
  }, bad ? STAY_MS * 2 : STAY_MS);
}
