// Which rows are shown. Filters stand in the address too, so that a page that is loaded again shows the same.

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
  const wanted = filters[name]?.startsWith("=") ? filters[name] : ""; // "all" keeps a column's filter on the page
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
