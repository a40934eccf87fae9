function showHead() {
  const kind = { good: "good", bad: "bad", live: "live" }[sheet.tone] || "";
  const dark = el("button", { type: "button", title: "light or dark", onclick: turn }, "light / dark");
  page.append(
    el("header", {},
      el("div", { class: "bar" }, el("h1", {}, sheet.name), el("span", { class: "pill " + kind }, sheet.status), el("span", { class: "grow" }), dark),
      el("p", { class: "dim" }, sheet.line)),
    contents);
}

function turn() {
  const now = getComputedStyle(document.documentElement).colorScheme;
  const isDark = now === "dark" || (now !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
}

function showVerdict() {
  const rows = [];
  if (sheet.why) {
    rows.push(el("div", { class: "card " + (sheet.tone === "bad" ? "bad" : "warn") },
      el("p", { class: "why" }, sheet.why),
      sheet.said ? el("p", { class: "dim" }, sheet.said) : null,
      el("div", { class: "pairs" }, sheet.ending.map(([name, text, lines]) => [el("span", {}, name), el("span", {}, text, quoted(lines))])),
      evidence()));
  }
  if (rows.length) section("verdict", "Verdict", rows);
}

const quoted = (lines) => lines && lines.length ? el("div", { class: "quoted mono" }, lines.join("\n")) : null;

function evidence() {
  const lines = sheet.evidence;
  if (!lines.length) return null;
  return el("details", { open: true }, el("summary", {}, "evidence"),
    lines.map((one) => el("div", { class: "evidence mono" }, one.place && one.log !== null && one.log !== undefined
      ? el("button", { class: "copy", type: "button", onclick: () => goTo(one.log, one.line) }, "show in the log") : null,
    one.place ? el("span", { class: "dim" }, one.place + "\n") : null, one.text)));
}

function showStacks() {
  if (!sheet.stacks.length) return;
  section("stacks", "Where it stood",
    sheet.stacks.map((one) => el("details", { open: sheet.stacks.length <= 4 }, el("summary", {}, one.who),
      el("div", { class: "quoted mono" }, one.text))));
}

function showNotes() {
  if (sheet.notes.length) section("notes", "Notes", sheet.notes.map((note) => el("p", {}, note)));
}
