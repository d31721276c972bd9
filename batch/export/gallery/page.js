// What people do: clicks, keys, and how the page begins. Last chapter of the page's script: the chapters are put into one
// function, so that a name of one is known in all of them. They build elements and set their text, never HTML.

$("cards").addEventListener("click", (event) => {
  const element = event.target.closest(".card");
  if (!element) return;
  const index = Number(element.dataset.index);
  const button = event.target.closest(".chooser button");
  current = index;
  showCurrent();
  if (button) choose(index, button.dataset.pick);
  else if (event.target.closest(".media") && !event.target.closest("audio")) openLarge(index);
});
$("cards").addEventListener("focusin", (event) => {
  const element = event.target.closest(".card");
  if (!element || Number(element.dataset.index) === current) return;
  current = Number(element.dataset.index);
  showCurrent();
});
$("facts").addEventListener("click", (event) => {
  const button = event.target.closest(".chooser button");
  if (button) choose(current, button.dataset.pick);
});

let searchTimer = 0;
$("search").addEventListener("input", () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(() => { query = $("search").value; apply(); }, 120);
});
for (const name of ["state", "model", "picked"]) $(name).addEventListener("change", () => setFilter(name, $(name).value));
$("add-filter").addEventListener("change", () => {
  const column = $("add-filter").value;
  filters[`col.${column}`] = "all";
  apply();
  showFilters();
  document.querySelector(`[data-column="${CSS.escape(column)}"] :is(select, input)`)?.focus();
});
$("clear").addEventListener("click", () => { query = ""; filters = {}; apply(); showFilters(); });
$("side").addEventListener("click", () => toggleSide());
$("play").addEventListener("click", () => playAll(!isPlayingAll));
$("theme").addEventListener("click", () => toggleTheme());
$("help").addEventListener("click", () => $("keys").showModal());
$("keys-close").addEventListener("click", () => $("keys").close());
$("save").addEventListener("click", () => openPicks());
$("picks-close").addEventListener("click", () => $("picks").close());
$("picks-clear").addEventListener("click", () => {
  if (!confirm("Forget every pick of this page?")) return;
  picks = {};
  isKept = stored.write(PICKS, picks);
  rows.forEach((_, index) => showPick(index));
  showPickCounts();
  showFilters();
  $("picks").close();
});
$("size").addEventListener("input", () => setSize(Number($("size").value)));
$("large").addEventListener("close", closeLarge);
$("large-close").addEventListener("click", () => $("large").close());
$("large-before").addEventListener("click", () => step(-1));
$("large-after").addEventListener("click", () => step(1));
$("large-side").addEventListener("click", () => { isLargeSide = !isLargeSide; showLarge(); });
addEventListener("hashchange", () => { readAddress(); apply(); showFilters(); });

function toggleSide() { isSide = !isSide; apply(); go(current); }

function toggleTheme() {
  const isDark = look.theme ? look.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  look.theme = isDark ? "light" : "dark";
  document.documentElement.dataset.theme = look.theme;
  stored.write("look", look);
}

function setSize(px) {
  look.size = Math.min(640, Math.max(140, px));
  document.documentElement.style.setProperty("--size", `${look.size}px`);
  $("size").value = String(look.size);
  stored.write("look", look);
}

function togglePlay() {
  const boxes = $("large").open ? [...$("stage").querySelectorAll(".media")] : [cards.get(current)?.querySelector(".media")];
  for (const box of boxes.filter(Boolean)) {
    const player = box.querySelector("video, audio");
    if (!player) start(box, rows[current].files[0]);
    else if (player.paused) player.play().catch(() => {});
    else player.pause();
  }
}

const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), j: () => step(1), k: () => step(-1),
  ArrowDown: () => ($("large").open ? step(1) : stepLine(1)), ArrowUp: () => ($("large").open ? step(-1) : stepLine(-1)),
  Home: () => go(visible[0]), End: () => go(visible.at(-1)),
  " ": togglePlay,
  Enter: () => ($("large").open ? $("large").close() : current >= 0 && openLarge(current)),
  c: () => {
    if (current < 0) return;
    if ($("large").open) $("large-side").click();
    else openLarge(current, family().length > 1);
  },
  1: () => current >= 0 && choose(current, "keep"), 2: () => current >= 0 && choose(current, "reject"),
  3: () => current >= 0 && choose(current, "again"),
  g: () => !$("large").open && !$("side").hidden && toggleSide(), p: () => !$("large").open && playAll(!isPlayingAll),
  "+": () => setSize(look.size + 40), "-": () => setSize(look.size - 40),
  "/": () => { if (!$("large").open) { $("search").focus(); $("search").select(); } },
  t: toggleTheme, "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("picks").open || $("keys").open) return;
  const target = event.target;
  if (target.matches("input, select, textarea")) {
    if (event.key === "Escape" || (event.key === "Enter" && target === $("search"))) go(current);
    return;
  }
  // On a button or link these are its own keys; on a player the arrows and the space bar are.
  if (target.matches("button, a") && (event.key === " " || event.key === "Enter")) return;
  if (target.matches("video, audio") && (event.key === " " || event.key.startsWith("Arrow"))) return;
  const does = KEYS[event.key];
  if (!does) return;
  event.preventDefault();
  does();
});
addEventListener("storage", (event) => {
  if (event.key !== `fal-batch gallery ${PICKS}`) return;
  picks = stored.read(PICKS, {});
  cards.forEach((_, index) => showPick(index));
  showPickCounts();
});

$("side").hidden = groups.length === rows.length;
if (look.theme) document.documentElement.dataset.theme = look.theme;
setSize(look.size ?? 260);
const shapes = new Map();
for (const { files: [file] } of rows) if (file?.width) shapes.set(`${file.width} / ${file.height}`, (shapes.get(`${file.width} / ${file.height}`) ?? 0) + 1);
const [shape] = [...shapes].sort((one, other) => other[1] - one[1])[0] ?? ["16 / 9"];
document.documentElement.style.setProperty("--shape", shape);
readAddress();
apply();
showFilters();
showPickCounts();
