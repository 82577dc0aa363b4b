// Why a pin is here, and what can be done to it: the words and icons of the page.

export const REASONS = {
  recent: { label: "From today", icon: "bolt" },
  interest: { label: "Your interests", icon: "spark" },
  next: { label: "Next for you", icon: "clock" },
  taste: { label: "Your taste", icon: "heart" },
  topic: { label: "Topics you follow", icon: "tag" },
  board: { label: "Followed boards", icon: "board" },
  popular: { label: "Popular", icon: "flame" },
  together: { label: "Saved together", icon: "board" },
  similar: { label: "Similar", icon: "similar" },
  words: { label: "By words", icon: "search" },
  meaning: { label: "By meaning", icon: "spark" },
};

const KNOWN = {
  closeup: { label: "Open", done: "Opened", icon: "expand" },
  click: { label: "Visit", done: "Visited", icon: "arrow" },
  long_click: { label: "Read", done: "Read for long", icon: "clock" },
  save: { label: "Save", done: "Saved", icon: "bookmark" },
  download: { label: "Download", done: "Downloaded", icon: "download" },
  hide: { label: "Hide", done: "Hidden", icon: "eyeoff" },
  report: { label: "Report", done: "Reported", icon: "flag" },
  purchase: { label: "Buy", done: "Bought", icon: "basket" },
  coupon: { label: "Use coupon", done: "Coupon used", icon: "ticket" },
  like: { label: "Like", done: "Liked", icon: "heart" },
};

/** A data set's own vocabulary as buttons: {closeup, primary, secondary, negative, all}. */
export function actionsOf(vocabulary) {
  const all = Object.entries(vocabulary).map(([name, polarity]) => {
    const words = name.replaceAll("_", " ");
    const label = words[0].toUpperCase() + words.slice(1);
    return { name, polarity, label, done: label, icon: polarity === "negative" ? "eyeoff" : "heart", ...KNOWN[name] };
  });
  const positive = all.filter((a) => a.polarity === "positive" && a.name !== "closeup");
  const find = (name) => all.find((a) => a.name === name);
  const primary = find("save") ?? find("purchase") ?? positive[0];
  return {
    all,
    closeup: find("closeup"),
    primary,
    secondary: find("click") ?? positive.find((a) => a !== primary),
    negative: find("hide") ?? all.find((a) => a.polarity === "negative"),
  };
}
