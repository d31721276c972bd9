// A card: what can be seen of a row, small, and its buttons. A film is there only while it plays.

const cards = new Map(); // row index -> its element, made once

// A still is asked for when its card comes near. (`loading="lazy"` asked for most of them at once: Chromium 156 does not
// know yet where a picture is that stands in a part of the page that it skips.)
const nearView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    showStill(target);
    nearView.unobserve(target);
  }
}, { rootMargin: "700px 0px" });

function showStill(element) {
  const image = element.querySelector("img[data-src]");
  if (!image) return;
  image.src = image.dataset.src;
  delete image.dataset.src;
}

const facts = (row) => {
  const seed = Gallery.result(data, row, "seed");
  const model = models.get(row.endpoint);
  const isSaid = models.size < 2 || labelOf.get(row).includes(model);
  const price = Gallery.money(Gallery.result(data, row, "cost_usd"));
  return [seed && `seed ${seed}`, price, isSaid ? "" : model].filter(Boolean).join(" · ");
};

function sign(row) {
  const state = Gallery.result(data, row, "state");
  const error = Gallery.result(data, row, "error");
  const [cause, ...message] = error.split(": ");
  const what = STATES[state] ?? state;
  return make("div", { class: "sign" }, make("strong", {}, error && state !== "fetched" ? `${what}: ${cause}` : what),
    make("span", {}, message.join(": ")));
}

/** What can be seen of a row, small. */
function media(row) {
  const file = row.files[0];
  const isFailed = Gallery.result(data, row, "state") === "failed";
  const box = make("div", { class: `media${isFailed ? " is-failed" : ""}` });
  if (!file) { box.append(sign(row)); return box; }
  const still = file.poster ?? (file.kind === "image" ? file.href : null);
  if (still) box.append(make("img", { "data-src": still, decoding: "async", alt: "" }));
  else box.append(...unseen(row, file, "data-src"));
  if (file.kind === "audio" && file.href) box.append(make("audio", { src: file.href, controls: true, preload: "none" }));
  const more = row.files.length > 1 ? `${row.files.length} files` : "";
  const badge = [more, Gallery.length(file.seconds)].filter(Boolean).join(" · ");
  if (badge && file.kind !== "audio") box.append(make("span", { class: "badge" }, badge));
  return box;
}

/** What a result says in words or figures; null where it says nothing. */
function answer(row, name) {
  const text = Gallery.said(data, row);
  return text ? make("div", { class: name, dir: "auto" }, text) : null;
}

/** What stands for a file of which nothing can be seen: what the result says, beside the picture that it is about, else
    what the file is called. `src` is where the picture's address goes. */
function unseen(row, file, src) {
  const words = file.kind === "file" && file === row.files[0] ? answer(row, "said") : null;
  const picture = row.sources.find(Boolean);
  if (words) return picture ? [make("img", { class: "source", [src]: picture, alt: "the picture that went in" }), words] : [words];
  const what = file.is_missing ? "the file is gone" : file.kind;
  return [make("div", { class: "sign" }, make("strong", {}, what), make("span", {}, file.name))];
}

function chooser(row) {
  const box = make("div", { class: "chooser", role: "group", "aria-label": `Pick ${row.stem}` });
  for (const pick of Gallery.PICKS) {
    const [glyph, word, key] = PICK_WORDS[pick];
    const why = pick === "again" && !Gallery.canBeAskedAgain(row);
    box.append(make("button", { type: "button", "data-pick": pick, "aria-keyshortcuts": key, tabindex: "-1",
      disabled: why, title: why ? "a cell of this row is too long for the page: ask again in your own sheet" : `${word} (${key})` },
    `${glyph} ${word}`));
  }
  return box;
}

function card(index) {
  if (cards.has(index)) return cards.get(index);
  const row = rows[index];
  const label = labelOf.get(row);
  const said = make("div", { class: "says" },
    make("div", { class: "name" }, row.id, label ? make("em", {}, `  ${label}`) : ""),
    make("div", { class: "prompt" }, Gallery.prompt(row)),
    row.files.length && row.files[0].kind !== "file" ? answer(row, "answer") : null,
    make("div", { class: "small" }, facts(row)));
  const state = Gallery.result(data, row, "state");
  const element = make("article", { class: "card", tabindex: "-1", "data-index": String(index), role: "group",
    "aria-label": [row.id, label, STATES[state] ?? state].filter(Boolean).join(", ") }, media(row), said, chooser(row));
  cards.set(index, element);
  nearView.observe(element);
  showPick(index);
  return element;
}

// --- playing ---

const playing = new Set();

function start(box, file, isLoud = false) {
  if (!file || file.kind !== "video" || file.is_missing || box.querySelector("video")) return;
  const video = make("video", { src: file.href, poster: file.poster, playsinline: true, preload: "auto", controls: isLoud });
  video.muted = true; // load-bearing: browsers let only silent films begin by themselves
  video.loop = true;
  video.addEventListener("error", () => {
    video.remove();
    playing.delete(box);
    box.append(make("span", { class: "badge" }, "this browser cannot play it"));
  });
  box.append(video);
  playing.add(box);
  video.play().catch(() => {});
}

function stop(box) {
  const video = box.querySelector("video");
  playing.delete(box);
  if (!video) return;
  video.pause();
  video.removeAttribute("src");
  video.load(); // lets the file go
  video.remove();
}

let hovered = null;
let hoverTimer = 0;
const rowOf = (element) => rows[Number(element.closest(".card").dataset.index)];

$("cards").addEventListener("pointerover", (event) => {
  const box = event.target.closest(".media");
  if (box === hovered) return;
  leave();
  if (!box || event.pointerType === "touch" || isStill.matches) return;
  hovered = box;
  hoverTimer = setTimeout(() => start(box, rowOf(box).files[0]), HOVER_MS);
});
$("cards").addEventListener("pointerleave", () => leave());

function leave() {
  clearTimeout(hoverTimer);
  if (hovered && !isPlayingAll) stop(hovered);
  hovered = null;
}

let isPlayingAll = false;
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const box = target.querySelector(".media");
    if (!isIntersecting) stop(box);
    else if (isPlayingAll && playing.size < PLAYING_MAX) start(box, rowOf(box).files[0]);
  }
});

function playAll(isOn) {
  isPlayingAll = isOn;
  $("play").setAttribute("aria-pressed", String(isOn));
  inView.disconnect();
  [...playing].forEach(stop);
  if (isOn) for (const index of visible) if (cards.has(index)) inView.observe(cards.get(index));
}
