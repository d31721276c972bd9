// Keep, reject, again; and the sheets that come out of it.

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
    ["What was sent, each with a seed that you have not seen (a further take where the model takes no seed). Put it beside ", make("code", {}, data.manifest),
      " (its paths start from there) and type, where you typed the first run: ",
      make("code", {}, `${data.run} ${Gallery.typed(`${data.folder}${name}-again.csv`)}`), `. It pays for these only, and once.${price}`]));
  $("picks").showModal();
}

function sheet(chosen, name, text, says) {
  if (!chosen.length) return [];
  const button = make("button", { type: "button", class: "main" }, `Save ${name}`);
  button.addEventListener("click", () => download(name, text()));
  return [make("div", { class: "sheet" }, make("p", {}, button), make("p", {}, ...says))];
}
