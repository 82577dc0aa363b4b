// A picture for every pin: its own image, or a cover drawn from its title and topic.

import { el } from "./icons.js";

/** A steady whole number from text. */
export function hash(text) {
  let value = 2166136261;
  for (const char of String(text)) value = Math.imul(value ^ char.codePointAt(0), 16777619);
  return value >>> 0;
}

/** Width over height from a data URI's own SVG, so that the page never jumps when pictures load. */
function ratioOf(image) {
  if (!image.startsWith("data:image/svg")) return null;
  const head = image.slice(0, 600).replaceAll("%22", '"').replaceAll("%20", " ");
  const read = (name) => Number(head.match(new RegExp(`\\b${name}=["']?([\\d.]+)`))?.[1]);
  const [width, height] = [read("width"), read("height")];
  return width > 0 && height > 0 ? width / height : null;
}

export function cover(pin) {
  const frame = el("div", "cover");
  if (!pin.image) return drawn(pin, frame);
  const picture = document.createElement("img");
  picture.alt = pin.title;
  picture.loading = "lazy";
  picture.decoding = "async";
  const ratio = ratioOf(pin.image);
  if (ratio) picture.style.aspectRatio = ratio;
  picture.addEventListener("error", () => {
    picture.remove();
    drawn(pin, frame);
  });
  picture.src = pin.image;
  frame.append(picture);
  return frame;
}

/** A cover set in type: the topic gives the hue, the pin its shapes and shape of page. */
function drawn(pin, frame) {
  const topic = pin.topics[0]?.name ?? pin.link_domain ?? "";
  const seed = hash(pin.pin_id);
  const hue = (hash(topic || `pin ${pin.pin_id}`) + (seed % 24)) % 360;
  frame.classList.add("drawn");
  frame.style.setProperty("--hue", hue);
  frame.style.aspectRatio = [0.8, 1, 0.72, 0.92, 1.15][seed % 5];
  const size = 40 + (seed % 30);
  const at = (shift, range, from) => ((seed >>> shift) % range) + from;
  const art = document.createElement("div");
  art.className = "art";
  art.innerHTML = `<svg viewBox="0 0 100 100" preserveAspectRatio="xMidYMid slice" aria-hidden="true">
    <circle cx="${at(3, 100, 0)}" cy="${at(7, 50, -10)}" r="${size}" class="a"/>
    <circle cx="${at(11, 90, 5)}" cy="${at(13, 40, 70)}" r="${size * 0.7}" class="b"/>
    <path d="M-10 ${at(17, 30, 60)} Q ${at(5, 40, 20)} ${at(9, 40, 30)} 110 ${at(19, 40, 50)} V110 H-10Z" class="c"/>
  </svg>`;
  const words = el("div", "words");
  if (topic) words.append(el("small", "", topic));
  words.append(el("strong", "", pin.title || `Pin ${pin.pin_id}`));
  frame.append(art, words);
  return frame;
}
