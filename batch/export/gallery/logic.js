// What the page knows about its rows: search, filters, groups, names, and the sheets that come out. Pure functions; it
// touches no page, so that it can be tried without a browser.
"use strict";
const Gallery = (() => {
  const PICKS = ["keep", "reject", "again"];
  const VALUES_MAX = 60; // different values of a column that make a list to choose from; more are searched by text
  const FORMULA = /^[=+\-@\t\r]/; // what a spreadsheet program would run (OWASP, "CSV Injection")
  const NUMBER = /^[-+]?[0-9]+(\.[0-9]+)?$/;

  /** What stands in a column of the user's sheet. A cell that says what was sent is not repeated in the data. */
  const cell = (row, column) => row.cells[column] ?? row.sent[column] ?? "";

  const result = (data, row, name) => row.result[data.result_columns.indexOf(`result_${name}`)] ?? "";

  const prompt = (row) => row.sent.prompt ?? row.sent.text ?? "";

  /** The parts of a result without files, as [name, text]: scores, labels, a verdict. What it says in words is none. */
  function parts(data, row) {
    const [text, json] = [result(data, row, "text"), result(data, row, "json")];
    let whole;
    try { whole = JSON.parse(json || "{}"); } catch { return [["", json]]; } // one that was cut for the page
    if (whole === null || typeof whole !== "object") return [["", String(whole)]];
    return Object.entries(whole)
      .filter(([, value]) => value !== text)
      .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  }

  /** What a result says: its words, else its parts, a line each. Empty where it is nothing but files. */
  const said = (data, row) =>
    result(data, row, "text") || parts(data, row).map(([name, text]) => (name ? `${name}: ${text}` : text)).join("\n");

  /** All that can be searched of a row, in lower case. */
  const haystack = (data, row) =>
    [row.id, row.stem, row.endpoint, ...Object.values(row.sent), ...Object.values(row.cells), ...row.result]
      .join("\n")
      .toLowerCase();

  const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);

  /** The value of a row that a filter is about: `state`, `model`, `picked`, or `col.NAME`. */
  function value(data, row, picks, name) {
    if (name === "state") return result(data, row, "state");
    if (name === "model") return row.endpoint;
    if (name === "picked") return picks[row.pick] ?? "none";
    return cell(row, name.slice("col.".length));
  }

  /** Whether a row passes. `filters` is {name: wanted}; a wanted text that begins with `~` must only be in the value. */
  function fits(data, row, hay, picks, query, filters) {
    if (!words(query).every((word) => hay.includes(word))) return false;
    return Object.entries(filters).every(([name, wanted]) => {
      const found = value(data, row, picks, name);
      if (wanted.startsWith("~")) return found.toLowerCase().includes(wanted.slice(1).toLowerCase());
      return wanted.startsWith("=") ? found === wanted.slice(1) : true;
    });
  }

  /** The values that rows have under a filter's name, with how many have each, the order of the sheet kept. */
  function values(data, picks, name) {
    const counts = new Map();
    for (const row of data.rows) {
      const found = value(data, row, picks, name);
      counts.set(found, (counts.get(found) ?? 0) + 1);
    }
    return counts;
  }

  /** The rows of the sheet, each with its takes and combinations. */
  function groups(rows) {
    const found = new Map();
    for (const row of rows) {
      if (!found.has(row.number)) found.set(row.number, []);
      found.get(row.number).push(row);
    }
    return [...found.values()];
  }

  /** What tells the results of one row of the sheet apart: columns that vary inside it (a matrix's axes), and the take. */
  function labels(data, group, models) {
    const axes = data.columns.filter((column) => new Set(group.map((row) => cell(row, column))).size > 1);
    const hasTakes = new Set(group.map((row) => row.take)).size > 1;
    const hasModels = new Set(group.map((row) => row.endpoint)).size > 1;
    return group.map((row) => {
      const parts = axes.filter((column) => column !== "endpoint").map((column) => cell(row, column));
      if (hasModels) parts.unshift(models.get(row.endpoint));
      if (hasTakes) parts.push(`take ${row.take}`);
      return parts.filter(Boolean).join(" · ");
    });
  }

  /** Endpoint -> a short name: without what all of them begin and end with. */
  function modelNames(endpoints) {
    const split = endpoints.map((endpoint) => endpoint.split("/"));
    let head = 0;
    let tail = 0;
    if (split.length === 1) head = split[0].length > 1 ? 1 : 0;
    else if (split.length) {
      const least = Math.min(...split.map((parts) => parts.length));
      const same = (at) => new Set(split.map((parts) => parts.at(at))).size === 1;
      while (head < least - 1 && same(head)) head++;
      while (tail < least - head - 1 && same(-1 - tail)) tail++;
    }
    return new Map(endpoints.map((endpoint, n) => [endpoint, split[n].slice(head, split[n].length - tail).join("/")]));
  }

  const money = (usd) => (usd === "" ? "" : `$${Number(usd).toFixed(4).replace(/0{1,2}$/, "")}`);

  const length = (seconds) => (seconds == null ? "" : `${Math.round(seconds * 10) / 10} s`);

  const size = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

  /** A file's name as a word of a command line. */
  const typed = (path) => (/^[\p{L}\p{N}_./:\\-]+$/u.test(path) ? path : `"${path.replace(/(["$`\\])/g, "\\$1")}"`);

  // --- the sheets that come out ---

  const quoted = (text) => (/[",;|\t\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  /** A sheet as text. The mark at its beginning tells spreadsheet programs that it is UTF-8. */
  const csv = (lines) => "\ufeff" + lines.map((line) => line.map((text) => quoted(String(text))).join(",") + "\r\n").join("");

  const harmless = (text) => (FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text);

  /** The user's own columns of the rows that are kept, with their results beside them, as an export has them. */
  function keptSheet(data, picks) {
    const kept = data.rows.filter((row) => picks[row.pick] === "keep");
    const lines = kept.map((row) => [...data.columns.map((name) => cell(row, name)), ...row.result.map(harmless)]);
    return csv([[...data.columns, ...data.result_columns], ...lines]);
  }

  const canBeAskedAgain = (row) => row.again !== null;

  /** A line for each row picked again: what was sent, with another seed. Where a model takes no seed, the picks of one
      row are one line that asks for so many takes more. */
  function againSheet(data, picks) {
    const lines = new Map();
    for (const row of data.rows) {
      if (picks[row.pick] !== "again" || !canBeAskedAgain(row)) continue;
      const { id, seed, takes } = row.again;
      const known = lines.get(id);
      if (seed === null && known) known.takes += 1;
      else lines.set(id, { row, id, seed, takes: takes === null ? "" : takes + 1 });
    }
    const carried = new Set(data.carried);
    const text = (line, name) => {
      if (name === "id") return line.id;
      if (name === "endpoint") return line.row.endpoint;
      if (name === "takes") return line.takes;
      if (name === "seed" && line.seed !== null) return line.seed;
      return line.row.sent[name] ?? (carried.has(name) ? cell(line.row, name) : "");
    };
    return csv([
      data.again_columns,
      ...[...lines.values()].map((line) => data.again_columns.map((name) => text(line, name))),
    ]);
  }

  /** What so many more would cost, going by what these did; null where that is not known. */
  function cost(data, rows) {
    const each = rows.map((row) => Number(result(data, row, "cost_usd")) / (Number(result(data, row, "attempts")) || 1));
    return each.length && each.every((usd) => usd > 0) ? each.reduce((sum, usd) => sum + usd, 0) : null;
  }

  return {
    PICKS, VALUES_MAX, againSheet, canBeAskedAgain, cell, cost, csv, fits, groups, haystack, keptSheet, labels, length,
    modelNames, money, parts, prompt, result, said, size, typed, value, values, words,
  };
})();
if (typeof module !== "undefined") module.exports = Gallery;
