// One result large, or all of a row of the sheet side by side.

let isLargeSide = false;
let largeIndex = -1; // the browser gives the focus back to the card that had it before, which makes that the current one

function openLarge(index, side = isLargeSide) {
  current = index;
  isLargeSide = side;
  [...playing].forEach(stop);
  if (!$("large").open) $("large").showModal();
  showLarge();
}

/** The results of the current row of the sheet that pass the filters. */
const family = () => groupOf.get(rows[current]).filter((row) => visible.includes(indexOf.get(row)));

function showLarge() {
  largeIndex = current;
  const row = rows[current];
  const all = family();
  const group = isLargeSide ? all : [row];
  const stage = $("stage");
  $("large-title").textContent = [row.id, labelOf.get(row)].filter(Boolean).join("  ·  ");
  $("large-place").textContent = `${visible.indexOf(current) + 1} of ${visible.length}`;
  $("large-side").hidden = all.length < 2;
  $("large-side").setAttribute("aria-pressed", String(isLargeSide));
  const shown = [...stage.querySelectorAll("figure")].map((figure) => Number(figure.dataset.large));
  const wanted = group.map((one) => indexOf.get(one));
  if (shown.length !== wanted.length || shown.some((one, n) => one !== wanted[n])) {
    stage.querySelectorAll(".media").forEach(stop);
    stage.classList.toggle("is-side", isLargeSide);
    stage.style.setProperty("--columns", String(group.length <= 3 ? group.length : Math.ceil(Math.sqrt(group.length))));
    stage.replaceChildren(...group.map(figure));
    if (isLargeSide) together([...stage.querySelectorAll("video")]);
  }
  stage.querySelectorAll("figure").forEach((one) => {
    const isCurrent = Number(one.dataset.large) === current;
    one.setAttribute("aria-current", String(isCurrent));
    if (isCurrent && isLargeSide) one.scrollIntoView({ block: "nearest" });
  });
  showFacts(row);
  wanted.forEach(showPick);
}

function figure(row) {
  const index = indexOf.get(row);
  const files = row.files.length ? row.files.map((file) => largeMedia(row, file)) : [media(row)];
  const box = make("div", { class: "files" }, ...files);
  box.style.setProperty("--columns", String(Math.ceil(Math.sqrt(files.length))));
  const element = make("figure", { "data-large": String(index) }, box,
    make("figcaption", {}, make("b", {}, labelOf.get(row) || row.id), make("i"), facts(row)));
  element.addEventListener("click", () => { if (isLargeSide && current !== index) go(index); });
  return element;
}

function largeMedia(row, file) {
  const box = make("div", { class: "media" });
  if (file.is_missing || file.kind === "file") box.append(...unseen(row, file, "src"));
  else if (file.kind === "image") box.append(make("img", { src: file.href, alt: Gallery.prompt(row) }));
  else if (file.kind === "audio") box.append(...unseen(row, file, "src"), make("audio", { src: file.href, controls: true }));
  else start(box, file, true);
  if (isStill.matches) box.querySelector("video")?.pause();
  return box;
}

/** Films side by side begin together, and begin again when the longest is over. */
function together(videos) {
  if (videos.length < 2) return;
  const ready = videos.map((video) => new Promise((done) => {
    video.pause();
    video.loop = false;
    if (video.readyState >= 1) done();
    video.addEventListener("loadedmetadata", done, { once: true });
    video.addEventListener("error", done, { once: true });
  }));
  Promise.all(ready).then(() => {
    const begin = () => videos.forEach((video) => { video.currentTime = 0; video.play().catch(() => {}); });
    const longest = videos.reduce((one, other) => ((other.duration || 0) > (one.duration || 0) ? other : one));
    longest.addEventListener("ended", begin);
    if (!isStill.matches) begin();
  });
}

function showFacts(row) {
  const file = row.files[0];
  const dimensions = file?.width ? `${file.width} × ${file.height}` : "";
  const error = Gallery.result(data, row, "error");
  const state = Gallery.result(data, row, "state");
  const list = (pairs) => make("dl", {}, ...pairs.filter(([, text]) => text !== "" && text !== null && text !== undefined)
    .flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  const about = list([["State", STATES[state] ?? state], ["Model", row.endpoint], ["Seed", Gallery.result(data, row, "seed")],
    ["Cost", Gallery.money(Gallery.result(data, row, "cost_usd"))],
    ["File", file && !file.is_missing ? [dimensions, Gallery.length(file.seconds), file.fps ? `${file.fps} fps` : "", Gallery.size(file.bytes)].filter(Boolean).join(", ") : ""],
    ["Take", labelOf.get(row) ? String(row.take) : ""], ["Request", Gallery.result(data, row, "request_id")],
    ["Submits", Number(Gallery.result(data, row, "attempts")) > 1 ? Gallery.result(data, row, "attempts") : ""],
    ["Finished", Gallery.result(data, row, "finished_at").replace("T", " ").replace("Z", " UTC")], ["Row", row.address]]);
  const own = data.columns.map((name) => [name, Gallery.cell(row, name)]).filter(([name]) => !["prompt", "id", "endpoint"].includes(name));
  const sent = Object.entries(row.sent).filter(([name]) => name !== "prompt" && !data.columns.includes(name));
  const pick = chooser(row);
  pick.querySelectorAll("button").forEach((button) => { button.tabIndex = 0; });
  const box = make("div", { "data-large": String(indexOf.get(row)) }, pick);
  const pictures = row.sources.filter(Boolean);
  $("facts").replaceChildren(box, ...[
    make("p", { class: "whole" }, Gallery.prompt(row)),
    error ? make("p", { class: "whole error" }, error) : null,
    Gallery.said(data, row) ? make("h3", {}, "What came back") : null,
    Gallery.result(data, row, "text") && make("p", { class: "whole", dir: "auto" }, Gallery.result(data, row, "text")),
    list(Gallery.parts(data, row)),
    about,
    file?.href ? make("p", {}, ...row.files.flatMap((one) => (one.href ? [make("a", { href: one.href, target: "_blank" }, one.name), " "] : []))) : null,
    pictures.length ? make("h3", {}, "Went in") : null,
    pictures.length ? make("div", { class: "sources" }, ...pictures.map((src) => make("img", { src, alt: "a picture that went in" }))) : null,
    own.some(([, text]) => text) ? make("h3", {}, "Your columns") : null, list(own),
    sent.length ? make("h3", {}, "Also sent") : null, list(sent)].filter(Boolean));
}

function closeLarge() {
  $("stage").querySelectorAll(".media").forEach(stop);
  $("stage").replaceChildren();
  if (visible.includes(largeIndex)) go(largeIndex);
}
