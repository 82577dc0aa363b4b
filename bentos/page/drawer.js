// How the feed was made: release, spaces, funnel and sources of the last answer.

import { el, icon } from "./icons.js";

const TITLES = {
  user: "User features",
  retrieve: "Candidate sources",
  popular: "Or what is popular",
  merge: "Merge",
  unseen: "Unseen",
  not_hidden: "Not hidden",
  pins: "Pin features",
  on_topic: "On topic",
  distinct: "Near-duplicates out",
  light: "Light scoring",
  shortlist: "Shortlist",
  rank: "Heavy ranking",
  calibration: "Calibration",
  utility: "Utility",
  diversity: "Diversity",
  take: "Answer",
  cards: "Cards",
  log: "Impression log",
};

export function renderDrawer(holder, answer, onClose) {
  const most = Math.max(1, ...answer.stages.map((stage) => stage.count));
  const head = el("header", "", el("h2", "", "How this feed was made"));
  const close = el("button", "round", icon("close"));
  close.type = "button";
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", onClose);
  head.append(close);

  const facts = el("dl", "facts");
  const fact = (name, value) => facts.append(el("div", "", el("dt", "", name), el("dd", "", value)));
  fact("Release", `homefeed v${answer.release}`);
  fact("Spaces", answer.spaces.join(", ") || "none");
  fact("Answer", `${answer.pins.length} pins in ${answer.ms.toFixed(1)} ms`);
  fact("Request", String(answer.request_id));
  const { utility, query } = answer;
  if (query) {
    fact("Query", query.text);
    if (query.corrected.length) fact("Read as", query.corrected.map(({ typed, read }) => `${typed}: ${read}`).join(", "));
    if (query.unknown.length) fact("Not in the catalogue", query.unknown.join(", "));
  }
  if (utility) {
    fact("Ranker", `${utility.ranker}, ${utility.calibrated ? "calibrated" : "not calibrated"}`);
    fact("Utility", Object.entries(utility.weights).map(([head, weight]) => `${head} ${Number(weight.toPrecision(3))}`).join(", "));
    fact("Policy", `${utility.policy}, theta ${utility.theta}`);
  }

  const parts = [head, facts];
  for (const missing of answer.missing) parts.push(el("p", "missing", icon("flag"), `Without ${missing}`));
  for (const without of query?.without ?? []) parts.push(el("p", "missing calm", icon("search"), `Searched without ${without}`));
  if (answer.policy_refused) parts.push(el("p", "missing", icon("flag"), answer.policy_refused));
  if (answer.fallback) parts.push(el("p", "missing calm", icon("spark"), answer.fallback));

  const sources = el("div", "bars");
  for (const source of answer.sources) {
    const bar = row(source.name, source.count, took(source), most, `source ${source.name}`);
    if (source.missing) bar.append(el("em", "", source.missing));
    sources.append(bar);
  }
  const stages = el("div", "bars");
  for (const stage of answer.stages) stages.append(row(TITLES[stage.name] ?? stage.name, stage.count, took(stage), most, "stage"));
  parts.push(el("h3", "", "Sources"), sources, el("h3", "", "Funnel"), stages);
  if (answer.interests.length) parts.push(el("h3", "", "Interests"), interestBars(answer.interests));
  parts.push(el("p", "hint", "Bars count pins left after each step; times are this answer's own."));
  holder.replaceChildren(...parts);
}

function interestBars(interests) {
  const bars = el("div", "bars");
  for (const { pin_id, importance, size, asked } of interests) {
    const bar = row(`Around ${pin_id}`, size, `${(100 * importance).toFixed(0)} %`, size / importance, "source pinnersage");
    if (asked) bar.append(el("em", "", "asked"));
    bars.append(bar);
  }
  return bars;
}

const took = ({ ms }) => `${ms.toFixed(1)} ms`;

function row(name, count, note, most, className) {
  const bar = el("i", "");
  bar.style.width = `${(100 * count) / most}%`;
  const track = el("span", "track", bar);
  const shown = name === TITLES.user ? "" : String(count);
  return el("div", `row ${className}`, el("span", "name", name), track, el("b", "", shown), el("small", "", note));
}
