// The rows as the page has them, what they are called, and what this browser remembers. First chapter of the page's script.

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
const CHUNK = 240;
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

// A run that goes on is further than the page says.
const isUnfinished = rows.some((row) => !["fetched", "failed", "cancelled"].includes(Gallery.result(data, row, "state")));
const asOf = isUnfinished ? `, as of ${data.made_at.slice(0, 16).replace("T", " ")} UTC` : "";
