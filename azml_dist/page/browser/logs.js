const CHUNK = 200, MOST_SHOWN = 4000, MOST_FOUND = 500;
let goTo = () => {};

function showLogs() {
  const logs = sheet.logs;
  if (!logs.length) {
    if (sheet.no_logs) section("logs", "Logs", el("p", { class: "dim" }, sheet.no_logs));
    return;
  }
  for (const log of logs) {
    log.order = summed(log.order);
    log.numbers = numbered(log);
  }
  const merged = logs.length > 1 && logs.every((log) => log.order.length === log.lines.length) ? inOrder(logs) : null;
  const lines = el("div", { class: "lines", tabindex: 0, role: "log", "aria-label": "lines" });
  const longest = Math.max(...logs.map((log) => log.label.length));
  lines.style.setProperty("--who", Math.min(26, Math.max(9, longest)) + "ch");
  const said = el("span", { class: "dim" });
  const above = el("div", { class: "dim" });
  const pick = el("select", { "aria-label": "log", onchange: () => show(Number(pick.value)) },
    merged ? el("option", { value: -1 }, "all ranks, in the order of arrival") : null,
    logs.map((log, at) => el("option", { value: at }, log.label + (log.note ? " (" + log.note + ")" : ""))));
  const search = el("input", { type: "search", placeholder: "search in all logs", "aria-label": "search", oninput: () => { clearTimeout(timer); timer = setTimeout(find, 120); }, onkeydown: (event) => event.key === "Enter" && find() });
  let timer = null, shown = 0;
  const open = (rows, of) => lines.replaceChildren(...chunks(rows, of));

  function show(at, line) {
    shown = at;
    pick.value = String(at);
    const log = at < 0 ? null : logs[at];
    above.replaceChildren(...(log ? about(log) : [`${number(merged.length)} lines of ${logs.length} logs`]));
    const rows = at < 0 ? merged : log.lines.map((_, place) => [at, place]);
    if (line === undefined) open(rows.slice(-MOST_SHOWN), rows.length > MOST_SHOWN ? rows.length - MOST_SHOWN : 0);
    else {
      const place = Math.max(0, log.lines.findIndex((_, row) => log.numbers[row] >= line));
      const first = Math.max(0, place - MOST_SHOWN / 2);
      open(rows.slice(first, first + MOST_SHOWN), 0);
      const found = lines.querySelector(`[data-line="${place}"]`);
      if (found) { found.classList.add("bad"); lines.scrollTop += found.getBoundingClientRect().top - lines.getBoundingClientRect().top - 120; }
    }
    if (line === undefined) lines.scrollTop = lines.scrollHeight;
    if (chosen.log !== at) choose(at);
  }

  function find() {
    const wanted = search.value.toLowerCase();
    if (!wanted) { said.textContent = ""; show(shown); return; }
    const found = [];
    let count = 0, where = new Set();
    logs.forEach((log, at) => log.lines.forEach((text, place) => {
      if (!text.toLowerCase().includes(wanted)) return;
      count++;
      where.add(at);
      if (found.length < MOST_FOUND) found.push([at, place]);
    }));
    const more = count > MOST_FOUND ? `, the first ${MOST_FOUND} of them here` : "";
    said.textContent = count ? `${plural(count, "line")} in ${plural(where.size, "log")}${more}; select one to see it in its log` : "no line has that";
    lines.replaceChildren(...chunks(found, 0, wanted, (at, place) => { search.value = ""; said.textContent = ""; show(at, logs[at].numbers[place]); }));
    lines.scrollTop = 0;
  }

  function chunks(rows, omitted, wanted, onclick) {
    const found = omitted ? [el("div", { class: "gap" }, plural(omitted, "earlier line") + " not shown here: search finds them")] : [];
    for (let begin = 0; begin < rows.length; begin += CHUNK) {
      const some = rows.slice(begin, begin + CHUNK);
      found.push(el("div", { class: rows.length > 2 * CHUNK ? "chunk" : null }, some.map(([at, place]) => lineOf(logs[at], place, logs.length > 1 && (wanted || shown < 0), wanted, onclick && (() => onclick(at, place))))));
    }
    return found.length ? found : [el("div", { class: "gap" }, wanted ? "no line has that" : "this log is empty")];
  }

  goTo = (at, line) => { search.value = ""; said.textContent = ""; show(at, line); document.getElementById("logs").scrollIntoView(); };
  section("logs", "Logs", el("div", { class: "bar" }, pick, search, said), above, lines);
  show(sheet.log_first !== null ? sheet.log_first : merged ? -1 : 0);
}

function about(log) {
  if (!log.href) return ["all of it: ", el("code", {}, log.path)];
  return ["the whole file: ", link(log.href, log.path), ` (${log.size}${log.omitted ? "; its beginning and its end are here" : ""})`];
}

function lineOf(log, place, who, wanted, onclick) {
  const text = log.lines[place];
  if (text === null) return el("div", { class: "gap" }, log.omitted || "…");
  const at = log.order.length ? timeOf(log.order[place]) : null;
  return el("div", { class: "l" + (log.bad.includes(place) ? " bad" : ""), "data-line": place, onclick },
    who ? el("span", { class: "who" }, log.label) : el("span", { class: "n" }, log.numbers[place] === null ? "" : String(log.numbers[place])),
    sheet.clock.length ? el("span", { class: "at" }, at === null ? "" : at.toFixed(2) + " s") : null,
    el("span", { class: "x" }, wanted ? marked(text, wanted) : text));
}

function marked(text, wanted) {
  const found = [], lower = text.toLowerCase();
  // Some letters change their length in lower case.
  if (lower.length !== text.length) return text;
  let from = 0, at;
  while ((at = lower.indexOf(wanted, from)) >= 0 && found.length < 200) {
    found.push(text.slice(from, at), el("mark", {}, text.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  return [...found, text.slice(from)];
}

// The number of each line; those after the gap begin anew.
function numbered(log) {
  let next = log.first;
  return log.lines.map((text) => {
    if (text === null) { next = log.after; return null; }
    return next === null ? null : next++;
  });
}

function summed(differences) {
  let sum = 0;
  return differences.map((one) => one === null ? null : (sum += one));
}

function inOrder(logs) {
  const rows = [];
  logs.forEach((log, at) => log.lines.forEach((text, place) => { if (text !== null) rows.push([at, place]); }));
  const order = ([at, place]) => logs[at].order[place] === null ? -1 : logs[at].order[place];
  return rows.map((row, place) => [row, place]).sort((a, b) => order(a[0]) - order(b[0]) || a[1] - b[1]).map(([row]) => row);
}

// The time of a record, by the last mark that is not after it.
function timeOf(record) {
  if (record === null || !sheet.clock.length || record < sheet.clock[0][0]) return null;
  let low = 0, high = sheet.clock.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sheet.clock[middle][0] <= record) low = middle; else high = middle;
  }
  return sheet.clock[low][1];
}
