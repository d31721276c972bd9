// The cards in the page: the first at once, the rest while the browser is idle; and going from one to another.

let current = -1; // the row index that keys are about
let rendering = 0; // a newer render ends an older one

function apply() {
  visible = [];
  rows.forEach((row, index) => {
    if (Gallery.fits(data, row, haystacks[index], picks, query, filters)) visible.push(index);
  });
  const isAll = visible.length === rows.length;
  const left = data.left_out ? `, ${data.left_out.toLocaleString("en")} more are not shown` : "";
  $("counts").textContent = `${isAll ? "" : `${visible.length.toLocaleString("en")} of `}${rows.length.toLocaleString("en")} results${left}${models.size === 1 ? ` on ${[...models.values()][0]}` : ""}${asOf}`;
  $("clear").hidden = !query && !Object.keys(filters).length;
  $("nothing").hidden = visible.length > 0;
  writeAddress();
  render();
}

/** What is put into the page in one piece: a card, or a row of the sheet with its results. */
function pieces() {
  if (!isSide) return visible.map((index) => [index]);
  return Gallery.groups(visible.map((index) => rows[index])).map((group) => group.map((row) => indexOf.get(row)));
}

function piece(indexes) {
  if (!isSide) return card(indexes[0]);
  const first = rows[indexes[0]];
  const prompts = new Set(indexes.map((index) => Gallery.prompt(rows[index])));
  return make("section", { class: `group${prompts.size === 1 ? " is-one-prompt" : ""}`, "aria-label": first.id },
    make("h2", {}, first.id, make("span", {}, prompts.size === 1 ? Gallery.prompt(first) : "")),
    make("div", {}, ...indexes.map(card)));
}

let waiting = [];

function render() {
  const turn = ++rendering;
  [...playing].forEach(stop);
  hovered = null;
  const all = pieces();
  const main = $("cards");
  main.classList.toggle("is-side", isSide);
  $("side").setAttribute("aria-pressed", String(isSide));
  main.replaceChildren(...all.slice(0, FIRST).map(piece));
  waiting = all.slice(FIRST);
  if (!visible.includes(current)) current = visible[0] ?? -1;
  showCurrent();
  if (isPlayingAll) playAll(true);
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 16));
  const more = () => {
    if (turn !== rendering || !waiting.length) return;
    append(CHUNK);
    idle(more);
  };
  idle(more);
}

function append(count) {
  const fresh = waiting.splice(0, count).map(piece);
  $("cards").append(...fresh);
  if (isPlayingAll) for (const element of fresh) for (const one of element.matches(".card") ? [element] : element.querySelectorAll(".card")) inView.observe(one);
}

function showCurrent() {
  document.querySelectorAll('.card[tabindex="0"]').forEach((one) => {
    one.tabIndex = -1;
    one.querySelectorAll(".chooser button").forEach((button) => { button.tabIndex = -1; });
  });
  if (current < 0) return;
  const element = card(current);
  element.tabIndex = 0;
  element.querySelectorAll(".chooser button").forEach((button) => { button.tabIndex = 0; });
}

function go(index) {
  if (index === undefined || index < 0) return;
  if (current !== index && !isPlayingAll && current >= 0 && cards.has(current)) stop(cards.get(current).querySelector(".media"));
  current = index;
  if (!card(index).isConnected) append(Infinity);
  showCurrent();
  if ($("large").open) { showLarge(); return; }
  cards.get(index).focus({ preventScroll: true });
  cards.get(index).scrollIntoView({ block: "nearest" });
}

const step = (by) => go(visible[Math.min(visible.length - 1, Math.max(0, visible.indexOf(current) + by))]);

/** The nearest card in the line of cards above or below. */
function stepLine(by) {
  if (current < 0) return;
  if (!cards.get(current)?.isConnected) append(Infinity);
  const here = cards.get(current).getBoundingClientRect();
  const x = here.left + here.width / 2;
  let best = null;
  for (let at = visible.indexOf(current) + by; at >= 0 && at < visible.length; at += by) {
    if (!cards.get(visible[at])?.isConnected) append(Infinity);
    const box = cards.get(visible[at]).getBoundingClientRect();
    if (Math.abs(box.top - here.top) < 4) continue;
    if (best && Math.abs(box.top - best.top) > 4) break;
    const away = Math.abs(box.left + box.width / 2 - x);
    if (!best || away < best.away) best = { top: box.top, away, index: visible[at] };
  }
  if (best) go(best.index);
}
