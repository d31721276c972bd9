// The page itself: cards, filters, large view, picks, keys. It builds elements and sets their text, never HTML, and asks
// no network for anything. What can be said without a page is in logic.js.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { rows } = data;
  const models = Gallery.modelNames([...new Set(rows.map((row) => row.endpoint))]);
  const haystacks = rows.map((row) => Gallery.haystack(data, row));
  const indexOf = new Map(rows.map((row, index) => [row, index]));
  const groups = Gallery.groups(rows);
  const groupOf = new Map(groups.flatMap((group) => group.map((row) => [row, group])));
  const labelOf = new Map();
  for (const group of groups) Gallery.labels(data, group, models).forEach((label, n) => labelOf.set(group[n], label));

  const FIRST = 60; // cards that are there before anything else happens; the rest comes while the browser is idle
  const CHUNK = 120;
  const PLAYING_MAX = 24;
  const HOVER_MS = 90; // a pointer that only passes by starts nothing
  const STATES = { "not planned": "not run yet", planned: "not started", submitting: "being submitted", submitted: "at fal",
    completed: "paid, not saved yet", waiting: "waits to be submitted again", in_doubt: "in doubt", failed: "failed",
    cancelled: "cancelled", fetched: "saved" };
  const PICK_WORDS = { keep: ["✓", "Keep", "1"], reject: ["✕", "Reject", "2"], again: ["↻", "Again", "3"] };
  const isStill = matchMedia("(prefers-reduced-motion: reduce)");

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, text] of Object.entries(attributes)) {
      if (text === null || text === undefined || text === false) continue;
      if (name in element && typeof text !== "string") element[name] = text;
      else element.setAttribute(name, text === true ? "" : text);
    }
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  };

  // --- what is remembered: picks for these very results, how the page looks for all pages ---

  const stored = {
    read(name, otherwise) {
      try { return JSON.parse(localStorage.getItem(`fal-batch gallery ${name}`)) ?? otherwise; } catch { return otherwise; }
    },
    write(name, value) {
      try { localStorage.setItem(`fal-batch gallery ${name}`, JSON.stringify(value)); return true; } catch { return false; }
    },
  };
  const PICKS = `picks ${data.campaign}`;
  let picks = stored.read(PICKS, {});
  let isKept = true;
  const look = stored.read("look", {});

  // --- one card ---

  const cards = new Map(); // row index -> its element, made once
  const facts = (row) => {
    const file = row.files[0] ?? {};
    const seed = Gallery.result(data, row, "seed");
    return [models.size > 1 || !seed ? models.get(row.endpoint) : null, seed && `seed ${seed}`,
      Gallery.money(Gallery.result(data, row, "cost_usd"))].filter(Boolean).join(" · ");
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
    if (file.is_missing) {
      box.append(make("div", { class: "sign" }, make("strong", {}, "the file is gone"), make("span", {}, file.name)));
      return box;
    }
    const still = file.poster ?? (file.kind === "image" ? file.href : null);
    if (still) box.append(make("img", { src: still, loading: "lazy", decoding: "async", alt: "" }));
    else box.append(make("div", { class: "sign" }, make("strong", {}, file.kind), make("span", {}, file.name)));
    if (file.kind === "audio") box.append(make("audio", { src: file.href, controls: true, preload: "none" }));
    const more = row.files.length > 1 ? `${row.files.length} files` : "";
    const badge = [more, Gallery.length(file.seconds)].filter(Boolean).join(" · ");
    if (badge && file.kind !== "audio") box.append(make("span", { class: "badge" }, badge));
    return box;
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
      make("div", { class: "prompt" }, Gallery.prompt(row)), make("div", { class: "small" }, facts(row)));
    const state = Gallery.result(data, row, "state");
    const element = make("article", { class: "card", tabindex: "-1", "data-index": String(index), role: "group",
      "aria-label": [row.id, label, STATES[state] ?? state].filter(Boolean).join(", ") }, media(row), said, chooser(row));
    cards.set(index, element);
    showPick(index);
    return element;
  }

  // --- playing: a video element is there only while it plays ---

  const playing = new Set();

  function start(box, row, isLoud = false) {
    const file = row.files[0];
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
    hoverTimer = setTimeout(() => start(box, rowOf(box)), HOVER_MS);
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
      else if (isPlayingAll && playing.size < PLAYING_MAX) start(box, rowOf(box));
    }
  });

  function playAll(isOn) {
    isPlayingAll = isOn;
    $("play").setAttribute("aria-pressed", String(isOn));
    inView.disconnect();
    [...playing].forEach(stop);
    if (isOn) for (const index of visible) if (cards.has(index)) inView.observe(cards.get(index));
  }

  // --- filters; they stand in the address too, so that a page that is loaded again shows the same ---

  let query = "";
  let filters = {};
  let visible = [];
  let isSide = false;

  function readAddress() {
    const said = new URLSearchParams(location.hash.slice(1));
    query = said.get("q") ?? "";
    isSide = said.has("side") ? said.get("side") === "1" : groups.length < rows.length;
    filters = {};
    for (const [name, wanted] of said) if (["state", "model", "picked"].includes(name) || isColumn(name)) filters[name] = wanted;
  }

  const isColumn = (name) => name.startsWith("col.") && data.columns.includes(name.slice(4));

  function writeAddress() {
    const said = new URLSearchParams();
    if (query) said.set("q", query);
    for (const [name, wanted] of Object.entries(filters)) said.set(name, wanted);
    if (isSide !== groups.length < rows.length) said.set("side", isSide ? "1" : "0");
    const hash = said.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  function fillChoice(select, name, all, words = (value) => value || "(empty)") {
    const wanted = filters[name] ?? "";
    select.replaceChildren(make("option", { value: "" }, all));
    for (const [value, count] of Gallery.values(data, picks, name)) {
      select.append(make("option", { value: `=${value}` }, `${words(value)} (${count})`));
    }
    if (wanted && ![...select.options].some((option) => option.value === wanted)) {
      select.append(make("option", { value: wanted }, `${words(wanted.slice(1))} (0)`));
    }
    select.value = wanted;
  }

  function setFilter(name, wanted) {
    if (wanted) filters[name] = wanted;
    else delete filters[name];
    apply();
  }

  function showFilters() {
    fillChoice($("state"), "state", "all", (state) => STATES[state] ?? state);
    fillChoice($("model"), "model", "all", (endpoint) => models.get(endpoint) ?? endpoint);
    fillChoice($("picked"), "picked", "all", (pick) => (pick === "none" ? "not yet" : pick));
    $("model-label").hidden = models.size < 2;
    const chosen = Object.keys(filters).filter(isColumn);
    $("column-filters").replaceChildren(...chosen.map(columnFilter));
    const add = $("add-filter");
    add.replaceChildren(make("option", { value: "" }, "+ Filter by column"));
    for (const column of data.columns) if (!chosen.includes(`col.${column}`)) add.append(make("option", { value: column }, column));
    add.hidden = add.options.length < 2;
    $("search").value = query;
  }

  function columnFilter(name) {
    const column = name.slice(4);
    const drop = make("button", { type: "button", class: "drop", "aria-label": `No filter by ${column}` }, "✕");
    drop.addEventListener("click", () => { setFilter(name, ""); showFilters(); });
    let choice;
    if (Gallery.values(data, picks, name).size <= Gallery.VALUES_MAX) {
      choice = make("select", { "aria-label": column });
      fillChoice(choice, name, "all");
      choice.addEventListener("change", () => { filters[name] = choice.value || "all"; apply(); });
    } else {
      choice = make("input", { type: "search", "aria-label": `${column} has`, placeholder: "has …" });
      choice.value = filters[name].startsWith("~") ? filters[name].slice(1) : "";
      choice.addEventListener("input", () => { filters[name] = `~${choice.value}`; apply(); });
    }
    return make("label", { "data-column": column }, `${column} `, choice, drop);
  }

  // --- the cards that are shown ---

  let current = -1; // the row index that keys are about
  let rendering = 0; // a newer render ends an older one

  function apply() {
    visible = [];
    rows.forEach((row, index) => {
      if (Gallery.fits(data, row, haystacks[index], picks, query, filters)) visible.push(index);
    });
    const isAll = visible.length === rows.length;
    const left = data.left_out ? `, ${data.left_out.toLocaleString("en")} more are not shown` : "";
    $("counts").textContent = `${isAll ? "" : `${visible.length.toLocaleString("en")} of `}${rows.length.toLocaleString("en")} results${left}${models.size === 1 ? ` on ${[...models.values()][0]}` : ""}`;
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
    return make("section", { class: "group", "aria-label": first.id },
      make("h2", {}, first.id, make("span", {}, Gallery.prompt(first))), make("div", {}, ...indexes.map(card)));
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

  // --- picks ---

  function showPick(index) {
    const row = rows[index];
    const pick = picks[row.pick];
    for (const element of [cards.get(index), ...document.querySelectorAll(`[data-large="${index}"]`)]) {
      if (!element) continue;
      if (pick) element.dataset.pick = pick;
      else delete element.dataset.pick;
      element.querySelectorAll(".chooser button").forEach((button) => {
        button.setAttribute("aria-pressed", String(button.dataset.pick === pick));
      });
      const mark = element.querySelector("figcaption i");
      if (mark) mark.textContent = pick ? PICK_WORDS[pick].slice(0, 2).join(" ") : "";
    }
  }

  function choose(index, pick) {
    const row = rows[index];
    if (pick === "again" && !Gallery.canBeAskedAgain(row)) return;
    picks = { ...stored.read(PICKS, {}), ...(isKept ? {} : picks) }; // another window may have picked meanwhile
    if (picks[row.pick] === pick) delete picks[row.pick];
    else picks[row.pick] = pick;
    isKept = stored.write(PICKS, picks);
    rows.forEach((other, at) => { if (other.pick === row.pick) showPick(at); });
    showPickCounts();
    fillChoice($("picked"), "picked", "all", (one) => (one === "none" ? "not yet" : one));
  }

  const picked = (pick) => rows.filter((row) => picks[row.pick] === pick);

  function showPickCounts() {
    const counts = Gallery.PICKS.map((pick) => [PICK_WORDS[pick][0], picked(pick).length]).filter(([, count]) => count);
    $("save").textContent = counts.length ? `Picks  ${counts.map(([glyph, count]) => `${glyph} ${count}`).join("  ")}` : "Picks";
    $("save").setAttribute("aria-label", `Picks: ${Gallery.PICKS.map((pick) => `${picked(pick).length} ${pick}`).join(", ")}`);
  }

  function download(name, text) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    const link = make("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  function openPicks() {
    const [kept, rejected, again] = Gallery.PICKS.map((pick) => picked(pick));
    $("picks-counts").textContent = kept.length + rejected.length + again.length
      ? `${kept.length} kept, ${rejected.length} rejected, ${again.length} again.`
      : "Nothing is picked yet: 1 keeps, 2 rejects, 3 asks for another one with another seed.";
    if (!isKept) $("picks-counts").textContent += " This browser remembers nothing for this page: save before you close it.";
    const usd = Gallery.cost(data, again);
    const price = usd === null ? "" : ` Going by what these cost, about ${Gallery.money(String(usd))}.`;
    const name = data.campaign.replace(/[^\p{L}\p{N}._ -]+/gu, "-");
    $("picks-kept").replaceChildren(...sheet(kept, `${name}-kept.csv`, () => Gallery.keptSheet(data, picks),
      ["Your own columns of what you kept, with the results beside them."]));
    $("picks-again").replaceChildren(...sheet(again, `${name}-again.csv`, () => Gallery.againSheet(data, picks),
      ["What was asked for, each with a seed that you have not seen. Put it beside ", make("code", {}, data.manifest),
        " (its paths start from there) and type, where you typed the first run: ",
        make("code", {}, `${data.run} ${name}-again.csv`), `. It pays for these only, and once.${price}`]));
    $("picks").showModal();
  }

  function sheet(chosen, name, text, says) {
    if (!chosen.length) return [];
    const button = make("button", { type: "button", class: "main" }, `Save ${name}`);
    button.addEventListener("click", () => download(name, text()));
    return [make("div", { class: "sheet" }, make("p", {}, button), make("p", {}, ...says))];
  }

  // --- the large view ---

  let isLargeSide = false;

  function openLarge(index, side = isLargeSide) {
    current = index;
    isLargeSide = side;
    [...playing].forEach(stop);
    if (!$("large").open) $("large").showModal();
    showLarge();
  }

  const siblings = () => (isLargeSide ? groupOf.get(rows[current]) : [rows[current]]);

  function showLarge() {
    const row = rows[current];
    const group = siblings();
    const stage = $("stage");
    $("large-title").textContent = [row.id, labelOf.get(row)].filter(Boolean).join("  ·  ");
    $("large-place").textContent = `${visible.indexOf(current) + 1} of ${visible.length}`;
    $("large-side").hidden = groupOf.get(row).length < 2;
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
    const element = make("figure", { "data-large": String(index) });
    const file = row.files[0];
    const box = make("div", { class: "media" });
    if (file && !file.is_missing && file.kind === "image") box.append(make("img", { src: file.href, alt: Gallery.prompt(row) }));
    else if (file && !file.is_missing && file.kind === "video") start(box, row, true);
    else box.append(...media(row).childNodes);
    if (isStill.matches) box.querySelector("video")?.pause();
    element.append(box, make("figcaption", {}, make("b", {}, labelOf.get(row) || row.id), facts(row), make("i")));
    element.addEventListener("click", () => { if (isLargeSide && current !== index) go(index); });
    return element;
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
    const own = data.columns.map((name) => [name, Gallery.cell(row, name)]).filter(([name]) => name !== "prompt" && name !== "id");
    const sent = Object.entries(row.sent).filter(([name]) => name !== "prompt" && !data.columns.includes(name));
    const pick = chooser(row);
    pick.querySelectorAll("button").forEach((button) => { button.tabIndex = 0; });
    const box = make("div", { "data-large": String(indexOf.get(row)) }, pick);
    const pictures = row.sources.filter(Boolean);
    $("facts").replaceChildren(box, ...[
      make("p", { class: "whole" }, Gallery.prompt(row)),
      error ? make("p", { class: "whole error" }, error) : null,
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
    if (visible.includes(current)) go(current);
  }

  // --- what people do ---

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
      if (!player) start(box, rows[current]);
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
      else openLarge(current, groupOf.get(rows[current]).length > 1);
    },
    1: () => current >= 0 && choose(current, "keep"), 2: () => current >= 0 && choose(current, "reject"),
    3: () => current >= 0 && choose(current, "again"),
    g: () => !$("large").open && toggleSide(), p: () => !$("large").open && playAll(!isPlayingAll),
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
})();
