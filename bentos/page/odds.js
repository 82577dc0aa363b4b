// What the ranker foretells of a pin, and what that makes it worth.

import { el } from "./icons.js";

const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)}%`;
const named = (head) => head.replaceAll("_", " ");

/** One short line: `save 4.1% · hide 0.2%`; empty where nothing was ranked. */
export function oddsLine(pin) {
  return Object.entries(pin.heads ?? {}).map(([head, p]) => `${named(head)} ${percent(p)}`).join(" · ");
}

/** A row a head: how likely, times what it is worth. Null where the pin was not ranked. `utility` is the answer's. */
export function odds(pin, utility) {
  const heads = Object.entries(pin.heads ?? {});
  if (!heads.length || !utility) return null;
  const most = Math.max(...heads.map(([, p]) => p), 1e-9);
  const rows = heads.map(([head, p]) => {
    const bar = el("i", utility.weights[head] < 0 ? "against" : "");
    bar.style.width = `${(100 * p) / most}%`;
    const weight = el("small", "", `× ${Number(utility.weights[head].toPrecision(3))}`);
    return el("div", "row", el("span", "name", named(head)), el("span", "track", bar), el("b", "", percent(p)), weight);
  });
  const sum = el("p", "fine", `Utility ${pin.score.toFixed(3)}${utility.calibrated ? "" : ", of scores that are not calibrated"}`);
  return el("div", "odds bars", ...rows, sum);
}
