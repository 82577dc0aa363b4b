// Masonry: columns of equal width, each card on the shortest, reading order kept from left to right.

const GAP = 18;

export class Masonry {
  constructor(holder, { least = 228, most = 8 } = {}) {
    this.holder = holder;
    this.least = least;
    this.most = most;
    this.cards = [];
    this.columns = [];
    new ResizeObserver(() => this.#fit()).observe(holder);
  }

  /** Take away every card and put these in their place. */
  show(cards) {
    this.cards = [];
    this.#lay(this.#count());
    this.add(cards);
  }

  add(cards) {
    if (!this.columns.length) this.#lay(this.#count());
    const heights = this.columns.map((column) => column.offsetHeight);
    for (const card of cards) {
      const shortest = heights.indexOf(Math.min(...heights));
      this.columns[shortest].append(card);
      heights[shortest] += card.offsetHeight + GAP;
    }
    this.cards.push(...cards);
  }

  remove(cards) {
    const gone = new Set(cards);
    for (const card of gone) card.remove();
    this.cards = this.cards.filter((card) => !gone.has(card));
  }

  /** Cards whose top lies below the window: nobody has seen them yet. */
  unseen() {
    const edge = window.innerHeight;
    return this.cards.filter((card) => card.getBoundingClientRect().top > edge);
  }

  relay() {
    const cards = this.cards;
    this.cards = [];
    this.#lay(this.#count());
    this.add(cards);
  }

  #count() {
    const width = this.holder.clientWidth || window.innerWidth;
    return Math.max(2, Math.min(this.most, Math.floor((width + GAP) / (this.least + GAP))));
  }

  #fit() {
    if (this.columns.length && this.#count() !== this.columns.length) this.relay();
  }

  #lay(count) {
    this.columns = Array.from({ length: count }, () => Object.assign(document.createElement("div"), { className: "column" }));
    this.holder.replaceChildren(...this.columns);
  }
}
