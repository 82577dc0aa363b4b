// Line icons, 24 x 24, drawn for this page.

const paths = {
  refresh: '<path d="M20 11a8 8 0 1 0-2.3 6.3"/><path d="M20 4v7h-7"/>',
  sliders: '<path d="M4 7h9M17 7h3M4 17h3M11 17h9"/><circle cx="15" cy="7" r="2"/><circle cx="9" cy="17" r="2"/>',
  sun: '<circle cx="12" cy="12" r="4"/><path d="M12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4"/>',
  moon: '<path d="M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z"/>',
  bookmark: '<path d="M6.5 4h11v16.5L12 16.4l-5.5 4.1z"/>',
  arrow: '<path d="M7 17 17 7M9 7h8v8"/>',
  eyeoff: '<path d="M4 4l16 16M9.9 5.2A9.6 9.6 0 0 1 12 5c5 0 8.6 4.2 9.7 7a12.6 12.6 0 0 1-2.6 3.7M6.3 6.8A12.9 12.9 0 0 0 2.3 12c1.1 2.8 4.7 7 9.7 7a9.7 9.7 0 0 0 4.6-1.2"/><path d="M9.9 10a3 3 0 0 0 4.2 4.2"/>',
  expand: '<path d="M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5"/>',
  flag: '<path d="M6 21V4h11l-2 4 2 4H6"/>',
  download: '<path d="M12 4v11M7.5 11 12 15.5 16.5 11M5 20h14"/>',
  clock: '<circle cx="12" cy="12" r="8.5"/><path d="M12 7.5V12l3 2"/>',
  basket: '<path d="M4 9h16l-1.6 10H5.6zM8 9l3-5M16 9l-3-5M9.5 13v3M14.5 13v3"/>',
  ticket: '<path d="M4 7h16v3.5a1.8 1.8 0 0 0 0 3.5V17H4v-3a1.8 1.8 0 0 0 0-3.5zM14 7v10" /><path d="M9 11h1M9 13.5h1"/>',
  heart: '<path d="M12 20s-7.5-4.6-7.5-10A4.2 4.2 0 0 1 12 7.5 4.2 4.2 0 0 1 19.5 10c0 5.4-7.5 10-7.5 10z"/>',
  close: '<path d="M6 6l12 12M18 6 6 18"/>',
  back: '<path d="M19 12H5M11 6l-6 6 6 6"/>',
  spark: '<path d="M12 3.5c.7 4.6 2.4 6.3 7 7-4.6.7-6.3 2.4-7 7-.7-4.6-2.4-6.3-7-7 4.6-.7 6.3-2.4 7-7zM19 16.5v4M17 18.5h4"/>',
  bolt: '<path d="M13 3 5 13.5h6L10 21l8-10.5h-6z"/>',
  board: '<rect x="4" y="4" width="7" height="9" rx="1.5"/><rect x="13" y="4" width="7" height="5" rx="1.5"/><rect x="13" y="11" width="7" height="9" rx="1.5"/><rect x="4" y="15" width="7" height="5" rx="1.5"/>',
  tag: '<path d="M4 12V5a1 1 0 0 1 1-1h7l8 8-8 8z"/><circle cx="8.5" cy="8.5" r="1.2"/>',
  flame: '<path d="M12 21c-4 0-6.5-2.7-6.5-6.2 0-3.8 3.2-5.3 3.7-8.8.1-.9 0-1.9-.2-3 3.6 1.3 5 4.1 5.2 6.6.8-.6 1.2-1.5 1.3-2.6 2 2 3 4.7 3 7.3C18.5 18.3 16 21 12 21z"/>',
  similar: '<circle cx="9" cy="12" r="5.5"/><circle cx="15" cy="12" r="5.5"/>',
  search: '<circle cx="11" cy="11" r="6.5"/><path d="M16 16l4.5 4.5"/>',
  chevron: '<path d="M6 9.5l6 6 6-6"/>',
  check: '<path d="M5 12.5l4.5 4.5L19 7.5"/>',
};

export function icon(name, extra = "") {
  const holder = document.createElement("span");
  holder.className = `icon ${extra}`.trim();
  holder.setAttribute("aria-hidden", "true");
  holder.innerHTML = `<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.9" stroke-linecap="round" stroke-linejoin="round">${paths[name] ?? paths.spark}</svg>`;
  return holder;
}

/** An element with a class, text or children: text is never read as markup. */
export function el(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}
